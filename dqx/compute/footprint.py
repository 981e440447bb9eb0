"""How much memory a chunk needs: its state exactly from shapes, the rest from XLA's own figures."""

from typing import NamedTuple

import jax

from dqx.compute import trees
from dqx.compute.intervals import intervals
from dqx.compute.limits import Limit
from dqx.compute.programs import Programs
from dqx.core.diagnostics import at_rows
from dqx.core.stores import Ring
from dqx.settings import Config, ConfigError

# Share of the free memory that chunks may take; the rest is for results, and for what other
# processes take meanwhile.
_USABLE = 0.9


class Footprint(NamedTuple):
    """Bytes that one chunk needs while it trains.

    Attributes:
        replay: the rows of all lanes' replays.
        state: everything of the lanes, the replays included.
        working: what the largest program allocates beside the state, as XLA says, and the results
            of the interval before, which the host still reads, the episodes of an evaluation among
            them; 0 before anything is compiled.
    """

    replay: int
    state: int
    working: int = 0

    @property
    def total(self) -> int:
        """State and working memory together."""
        return self.state + self.working


def state_of(programs: Programs, config: Config) -> Footprint:
    """What a chunk's state takes, exactly, of any ``config`` of ``programs``; compiles nothing."""
    _, lanes = programs.shapes
    return Footprint(trees.num_bytes(lanes.replay_rows), trees.num_bytes(programs.shapes))


def measure(programs: Programs, config: Config) -> Footprint:
    """What a chunk needs; compiles every program that a run of ``config`` will use.

    But for the one that goes on with an evaluation which does not end in its first piece.
    """
    parts = intervals(config)
    lengths = {("warm_up", n) for part in parts for n in part.warm}
    lengths |= {("segment", n) for part in parts for n in part.learn}
    if any(part.evaluates for part in parts):
        lengths |= {("evaluate", 0)} | ({("q_table", 0)} if config.exact_metrics else set())
    if at_rows(config):
        lengths |= {("diagnose", 0)}
    programs.program("init")
    needs, results, beside = [0], [0], 0
    for name, steps in sorted(lengths):
        new, temporary = _allocated(programs, name, steps)
        needs.append(new + temporary)
        if name in ("evaluate", "diagnose"):
            beside += new  # the episodes of an evaluation, and what diagnostics look at
        elif name in ("warm_up", "segment"):
            results.append(new)
    return state_of(programs, config)._replace(working=max(needs) + max(results) + beside)


def _allocated(programs: Programs, name: str, steps: int) -> tuple[int, int]:
    """Bytes of a program's results that overwrite no argument, and of its temporaries."""
    found = programs.program(name, steps).memory_analysis()
    if found is None:  # a backend that does not say
        outputs = jax.eval_shape(*_flat(programs, name, steps))
        return trees.num_bytes(outputs), 0
    new = found.output_size_in_bytes - found.alias_size_in_bytes
    return max(0, new), found.temp_size_in_bytes


def _flat(programs: Programs, name: str, steps: int) -> tuple:
    chunk, shapes = programs.chunk(name, steps)
    return (chunk, *shapes)


def chunks_that_fit(need: Footprint, limit: Limit, wanted: int, saved: int = 0) -> int:
    """How many chunks of this need memory allows at a time, at most ``wanted``.

    Args:
        need: of one chunk.
        limit: what is free.
        wanted: how many would be useful.
        saved: bytes that are copied at a time for a checkpoint.
    """
    usable = int(limit.bytes * _USABLE) - saved
    return max(0, min(wanted, usable // max(need.total, 1)))


def refusal(config: Config, need: Footprint, limit: Limit, saved: int = 0) -> ConfigError:
    """Says that not even one chunk fits, with the numbers and what would.

    What changes no algorithm comes first.
    """
    width = config.chunk_width or 1
    usable = int(limit.bytes * _USABLE)
    remedies = []
    # A lane's share, of a checkpoint too.
    narrower = min(width - 1, usable * width // (need.total + saved))
    if narrower >= 1:
        remedies.append(f"chunk_width={narrower} trains fewer seeds side by side")
    ring = Ring(config.replay_capacity, config.num_envs, config.frame_stack)
    row = need.replay // (width * ring.num_rows)
    copies = 2 if saved else 1  # of each row
    spared = need.total + saved - usable
    capacity = config.replay_capacity - -(-spared // (width * row * copies)) if row else 0
    capacity -= capacity % config.num_envs
    if not remedies and capacity >= config.batch_size:
        remedies.append(f"replay_capacity={capacity} would fit, which changes the algorithm")
    if config.agent == "tabular" and need.state > 2 * need.replay:
        remedies.append("most of it is tables: agent=dqn network=embedding takes less")
    what = f" ({gib(need.replay)} of it replay)" if need.replay else ""
    copy = f" and {gib(saved)} for a checkpoint" if saved else ""
    needs = f"{width} seeds side by side need {gib(need.total)}{what}{copy}"
    return ConfigError(
        f"{needs}, but of the {limit.what} {gib(limit.bytes)} is left; "
        f"{' or '.join(remedies) or 'nothing smaller fits either'}"
    )


def gib(count: int) -> str:
    """Bytes as a person reads them."""
    return f"{count / 2**30:.2f} GiB"
