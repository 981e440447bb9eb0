"""Films in the page: greedy episodes of the best, the median and the worst seed."""

import base64
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from dqx.report.findings import Group
from dqx.settings import ConfigError
from dqx.study.folder import StudyError
from dqx.study.results import Study

# All films of a page together, in seconds until the last is begun; bytes, pixels and pictures of
# one; and of how many configurations of an environment, the best first.
SECONDS = 15.0
_BYTES, _WIDTH, _PICTURES, _STEPS = 400_000, 400, 100, 500
_CASES = 1
_KINDS = ("best", "median", "worst")


def films(
    studies: Sequence[Study], groups: Sequence[Group], say: Callable[[str], None]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Plays seeds of each group's best configurations; gives the group's number and a film.

    What cannot be played or takes too long is left out, which ``say`` is told.
    """
    begun = time.monotonic()
    for number, group in enumerate(groups):
        for place in group.ranking[:_CASES]:
            case = group.cases[place]
            for kind in _KINDS:
                if time.monotonic() - begun > SECONDS:
                    return say(f"films: the others are left out after {SECONDS:.0f} s")
                try:
                    made = _film(studies[case.study], case.name, kind)
                except (StudyError, ConfigError) as error:
                    say(f"films: none of {case.label}: {error}")
                    break
                say(f"films: the {kind} seed of {case.label}")
                yield number, {"case": place, **made}


def _film(study: Study, config: str, kind: str) -> dict[str, Any]:
    from dqx.report.film import film, pick_seed
    from dqx.report.reel import gif_bytes

    pick = pick_seed(study, config, kind)
    shot = film(study, config, pick.seed, max_steps=_STEPS, max_frames=_PICTURES)
    content = gif_bytes(shot, width=_WIDTH, limit=_BYTES)
    return {
        "kind": kind,
        "seed": pick.seed,
        "words": shot.episodes[0].words,
        "source": f"data:image/gif;base64,{base64.b64encode(content).decode('ascii')}",
    }
