"""Kinds of machines: each gives bits of its own, and trains some configurations of a study."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from dqx.study.identity import differences
from dqx.study.plan import Plan

_NAMED = 3  # configurations that are named, before the rest is only counted


class MachineKind(NamedTuple):
    """Machines that give the same bits, and what they train of a study.

    Attributes:
        identity: of them all.
        points: names of configurations.
    """

    identity: dict[str, str]
    points: list[str]


def kinds_of(record: Mapping[str, Any]) -> list[MachineKind]:
    """The kinds of machines that train a study, by its plan's record; of most there is one."""
    everything = {
        "identity": record["identity"],
        "points": [point["name"] for point in record["points"]],
    }
    return [MachineKind(**kind) for kind in record.get("kinds", [everything])]


def commonest(identities: Mapping[str, dict[str, str]]) -> list[dict[str, str]]:
    """The identities of workers, each once, that of most workers first.

    Args:
        identities: of the workers, by name.
    """
    found = list(identities.values())
    distinct = [one for i, one in enumerate(found) if one not in found[:i]]
    return sorted(distinct, key=lambda one: (-found.count(one), sorted(one.items())))


def shared_out(
    plan: Plan, identities: Mapping[str, dict[str, str]], split: bool
) -> list[MachineKind]:
    """The kinds that are to train a plan, the commonest first, and what each trains.

    A kind has so many configurations as it has workers, in proportion; those that share a
    compiled program count together.

    Args:
        plan: of the study.
        identities: of the workers, by name.
        split: whether all kinds train; else the commonest alone.
    """
    found = commonest(identities)
    if not split:
        return [MachineKind(found[0], [point.name for point in plan.points])]
    counts = [list(identities.values()).count(one) for one in found]
    shares: list[list[str]] = [[] for _ in found]
    together: dict[Any, list[str]] = {}
    for point in plan.points:
        together.setdefault(point.config, []).append(point.name)
    for group in together.values():
        # Who is furthest behind its share, the group counted.
        load = [(len(share) + len(group)) / n for share, n in zip(shares, counts, strict=True)]
        shares[load.index(min(load))] += group
    return [MachineKind(one, share) for one, share in zip(found, shares, strict=True) if share]


def present_kinds(
    kinds: list[MachineKind], identities: Mapping[str, dict[str, str]]
) -> list[MachineKind]:
    """Who trains the runs of a study again: its own kinds, and in the place of absent ones others.

    Args:
        kinds: of the study.
        identities: of the workers that there are, by name.

    Returns:
        The kinds, each once; configurations of an absent one go to the commonest that is there.
    """
    found = commonest(identities)
    taken: list[MachineKind] = []
    for kind in kinds:
        here = kind.identity if kind.identity in found else found[0]
        same = next((one for one in taken if one.identity == here), None)
        if same is None:
            taken.append(MachineKind(here, list(kind.points)))
        else:
            same.points.extend(kind.points)
    return taken


class ThenAndNow(NamedTuple):
    """The kinds of machines that trained each configuration, and that train it again.

    Attributes:
        identities: of all these kinds, each once, the study's before the others.
        then: which of them trained a configuration, by its name.
        now: which of them trains it again.
    """

    identities: tuple[dict[str, str], ...]
    then: dict[str, int]
    now: dict[str, int]

    @classmethod
    def of(cls, stored: list[MachineKind], present: list[MachineKind]) -> "ThenAndNow":
        """Brings together the kinds of a study and those that train it again."""
        found: list[dict[str, str]] = []
        for kind in (*stored, *present):
            if kind.identity not in found:
                found.append(kind.identity)
        places = (
            {name: found.index(kind.identity) for kind in kinds for name in kind.points}
            for kinds in (stored, present)
        )
        return cls(tuple(found), *places)

    def comparable(self, config: str) -> bool:
        """Whether a configuration is trained again on what it was trained on, so with its bits."""
        return self.then[config] == self.now[config]

    def differences(self) -> tuple[str, ...]:
        """How what trains again differs from what has trained, in words.

        Where that is not the same for all configurations, each text begins with their names.
        """
        pairs: dict[tuple[int, int], list[str]] = {}
        for name, then in self.then.items():
            pairs.setdefault((then, self.now[name]), []).append(name)
        texts = []
        for (then, now), names in pairs.items():
            more = len(names) - _NAMED
            of = ", ".join([*names[:_NAMED], *([f"{more:,} more"] if more > 0 else [])])
            found = differences(self.identities[then], self.identities[now])
            texts += [f"{of}: {text}" if len(pairs) > 1 else text for text in found]
        return tuple(texts)
