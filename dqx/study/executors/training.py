"""What every executor does with a chunk: a segment after the other, and what is to be kept between.

Who trains in this process and who trains in a worker of a cluster differ in where that goes.
"""

import enum
from collections.abc import Callable, Iterator

from dqx.compute.session import Session


class Moment(enum.Enum):
    """What is to be done with a session before it goes on."""

    SNAPSHOT = "its parameters are to be kept"
    SAVE = "its state is to be kept; it has no work under way"
    SEGMENT = "nothing; a segment is over"
    STOPPED = "nothing; it was asked to stop, and has"
    FINISHED = "its results are to be kept"


def trained(
    session: Session, every: int, due: Callable[[bool], bool], asked: Callable[[], bool]
) -> Iterator[Moment]:
    """Trains a session to its end, or until it is asked to stop, which is the last moment then.

    Args:
        session: of a chunk.
        every: environment steps from one snapshot to the next; 0 for none.
        due: ``due(stopping)``, whether a checkpoint is to be written now.
        asked: whether it is to stop; looked at once a segment, so that whoever stops has saved.
    """
    while True:
        before = session.step
        session.advance()
        if every and session.step // every > before // every:
            yield Moment.SNAPSHOT
        if session.finished:
            yield Moment.FINISHED
            return
        stopping = asked()
        if due(stopping):
            session.settle()  # which is training, no part of what saving costs
            yield Moment.SAVE
        if stopping:
            yield Moment.STOPPED
            return
        yield Moment.SEGMENT
