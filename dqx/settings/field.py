"""The declaration of one setting, from which parsing, checks, help and records derive."""

import dataclasses
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from dqx.settings.errors import ConfigError, brief, closest
from dqx.settings.single import check_single, single

# Sizes and steps are counted in int32 on the device.
INT_END = 2**31

Choices = tuple[str, ...] | Callable[[], tuple[str, ...]]
Traits = tuple[tuple[str, tuple[str, ...]], ...] | Callable[[str], tuple[str, ...]]


@dataclasses.dataclass(frozen=True)
class Setting:
    """The declaration of one setting.

    Attributes:
        name: of the field.
        type: ``int``, ``float``, ``bool``, ``str``, ``tuple[int, ...]``, ``tuple[str, ...]`` or
            ``int | None``.
        default: the value where none is given.
        doc: what the setting is, a noun phrase.
        low: the least value that is allowed.
        above: a limit below every value that is allowed.
        high: the largest value that is allowed.
        choices: the texts that are allowed, or a function that gives them; None: any.
        infinite: whether a float may be infinite, which means no limit.
        traced: whether it is a number of the compiled program's input, in `Hyper`; else it decides
            what is compiled, in `Config`.
        of: whose it is: a field that selects something, and a trait which the chosen must have.
        rounds_to: the field of which the value is made a multiple.
        traits: what each choice has, pairs of a choice and its traits, or a function of the choice.
        anneals: whether `Config.annealed` may name it, if it is traced.
        fades: whether annealing may end at 0 although the range leaves 0 out.
        own: whether an agent brings it; it is kept in ``extra`` then.
    """

    name: str
    type: Any
    default: Any
    doc: str
    low: float | None = None
    above: float | None = None
    high: float | None = None
    choices: Choices | None = None
    infinite: bool = False
    traced: bool = False
    of: tuple[str, str] | None = None
    rounds_to: str | None = None
    traits: Traits = ()
    anneals: bool = True
    fades: bool = False
    own: bool = False

    @property
    def parquet(self) -> str:
        """The type of a column: ``"bool"``, ``"int64"``, ``"float64"`` or ``"string"``."""
        return _KINDS[self.type].parquet

    def names(self) -> tuple[str, ...]:
        """The choices there are now; empty where any text is allowed."""
        if self.choices is None or isinstance(self.choices, tuple):
            return self.choices or ()
        return self.choices()

    def has(self, choice: str) -> tuple[str, ...]:
        """The traits of a choice."""
        if isinstance(self.traits, tuple):
            return dict(self.traits).get(choice, ())
        return self.traits(choice)

    def having(self, trait: str) -> tuple[str, ...]:
        """The choices that have a trait."""
        return tuple(name for name in self.names() if trait in self.has(name))

    def parse(self, text: str) -> Any:
        """The value of a text such as ``1e-3``, ``64,64``, ``true`` or ``none``, not yet checked.

        Raises:
            ConfigError: if the text is no value of the type.
        """
        kind = _KINDS[self.type]
        try:
            return kind.parse(text.strip())
        except (KeyError, ValueError):
            raise ConfigError(f"{self.name} = {brief(text)} is not {kind.words}") from None

    def typed(self, value: Any) -> Any:
        """The value in its canonical type, whatever its range.

        A list becomes a tuple. For a float, any number and the texts ``"inf"``, ``"-inf"`` and
        ``"nan"`` become a float.

        Raises:
            ConfigError: if the value has another type.
        """
        kind = _KINDS[self.type]
        try:
            return kind.typed(value)
        except (TypeError, ValueError, OverflowError):
            raise ConfigError(f"{self.name} must be {kind.words}, got {brief(value)}") from None

    def check(self, value: Any) -> Any:
        """The value in its canonical type, if it is allowed.

        Raises:
            ConfigError: if the value has another type, is out of range or is none of the choices.
        """
        value = self.typed(value)
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, str):
                self._check_choice(item)
            elif item is not None and not isinstance(item, bool):
                self._check_number(item, value)
        return value

    def to_json(self, value: Any) -> Any:
        """The value as strict JSON holds it: an infinity is a text, a tuple a list."""
        value = self.typed(value)
        if isinstance(value, float) and not math.isfinite(value):
            return str(value)
        return list(value) if isinstance(value, tuple) else value

    def show(self, value: Any) -> str:
        """The value as short text, which `parse` reads back."""
        return show(self.typed(value))

    def help(self) -> str:
        """What the setting is, what is allowed, whose it is, and its default."""
        allowed = f"one of {', '.join(self.names())}" if self.choices else self._kind_words()
        facts = [allowed]
        if self.rounds_to:
            facts.append(f"rounded up to a multiple of {self.rounds_to}")
        if self.of:
            facts.append(f"for {' '.join(self.of) if self.own else with_trait(*self.of)}")
        facts.append(f"default {self.show(self.default) or 'nothing'}")
        return f"{self.doc} ({'; '.join(facts)})"

    def _kind_words(self) -> str:
        words, limits = _KINDS[self.type].short, self._range_words()
        return f"{words.removesuffix(' or none')}, {limits}" if limits else words

    def _range_words(self) -> str:
        limits = (self.low, self.above, self.high)
        low, above, high = (None if limit is None else show(limit) for limit in limits)
        if low is not None and high is not None:
            words = f"between {low} and {high}"
        else:
            named = [("at least", low), ("greater than", above), ("at most", high)]
            words = " and ".join(f"{name} {x}" for name, x in named if x is not None)
        if self.infinite:
            return f"{words} (inf: no limit)" if words else "any number but nan"
        if self.type is float and (high is None or low is above is None):
            return f"finite and {words}" if words else "finite"
        return f"{words} or none" if words and self.type == int | None else words

    def _check_number(self, number: float, value: Any) -> None:
        limits: tuple[float | None, ...] = (self.low, self.above, self.high)
        if isinstance(number, float):  # the value that is used counts, and so do the limits
            check_single(self.name, number)
            number = single(number)
            limits = tuple(None if limit is None else single(limit) for limit in limits)
        low, above, high = limits
        within = (
            number == number  # and no NaN; math.isnan takes no large whole number
            and (self.infinite or abs(number) != math.inf)
            and (low is None or number >= low)
            and (above is None or number > above)
            and (high is None or number <= high)
        )
        every = "all " if isinstance(value, tuple) else ""
        if not within:
            raise ConfigError(
                f"{self.name} must {every}be {self._range_words()}, got {brief(value)}"
            )
        if isinstance(number, int) and not -INT_END <= number < INT_END:
            side = "below 2**31" if number > 0 else "at least -2**31"
            raise ConfigError(
                f"{self.name} must {every}be {side}, got {brief(value)}: dqx counts in int32"
            )

    def _check_choice(self, item: str) -> None:
        names = self.names()
        if self.choices is not None and item not in names:
            raise ConfigError(
                f"{self.name} must be one of {', '.join(names)}, got {brief(item)}"
                f"{closest(item, names)}"
            )


def declare(
    default: Any,
    doc: str,
    *,
    low: float | None = None,
    above: float | None = None,
    high: float | None = None,
    choices: Choices | Mapping[str, tuple[str, ...]] | None = None,
    infinite: bool = False,
    of: tuple[str, str] | None = None,
    rounds_to: str | None = None,
    traits: Callable[[str], tuple[str, ...]] | None = None,
    anneals: bool = True,
    fades: bool = False,
) -> Any:
    """A field of a dataclass that carries its `Setting`; `collect` adds its name and type.

    Args:
        default, doc, low, above, high, infinite, of, rounds_to, anneals, fades: as of `Setting`.
        choices: texts that are allowed, a table of them with the traits of each, or a function.
        traits: what a choice has, where a function gives the choices.
    """
    if isinstance(choices, Mapping):
        pairs: Traits = tuple((name, tuple(has)) for name, has in choices.items())
        choices = tuple(choices)
    else:
        pairs = traits or ()
    setting = Setting(
        "", type(default), default, doc, low, above, high, choices, infinite,
        of=of, rounds_to=rounds_to, traits=pairs, anneals=anneals, fades=fades,
    )  # fmt: skip
    return dataclasses.field(default=default, metadata={"setting": setting})


def own_setting(
    name: str,
    default: Any,
    doc: str,
    *,
    type: Any = None,
    traced: bool = False,
    low: float | None = None,
    above: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] | None = None,
    infinite: bool = False,
    anneals: bool = True,
    fades: bool = False,
) -> Setting:
    """The declaration of a setting that an agent brings; `register_agent` says whose it is.

    Args:
        type: as of `Setting`; left out: that of the default, float if it is traced.
        name, default, doc, traced, low, above, high, choices, infinite, anneals, fades: as of
            `Setting`.

    Raises:
        ConfigError: if the name is no identifier, the type is none of those there are, something
            traced is no float, or the default is not allowed.
    """
    kind = (float if traced else _type_of(default)) if type is None else type
    if not isinstance(name, str) or not name.isidentifier() or name.startswith("_"):
        raise ConfigError(f"a setting's name must be a word such as num_atoms, got {name!r}")
    if kind not in _KINDS:
        raise ConfigError(f"{name} has the type {kind}: give type, one of {_type_names()}")
    if traced and kind is not float:
        raise ConfigError(f"{name} is traced and must be a float, got {kind}: set traced = False")
    setting = Setting(
        name, kind, default, doc, low, above, high, choices, infinite, traced,
        anneals=anneals, fades=fades, own=True,
    )  # fmt: skip
    return dataclasses.replace(setting, default=setting.check(default))


def collect(kind: type, traced: bool) -> dict[str, Setting]:
    """The settings that a dataclass declares, by name, complete with names and types."""
    hints = typing.get_type_hints(kind)
    settings: dict[str, Setting] = {}
    for field in dataclasses.fields(kind):
        if "setting" in field.metadata:
            setting = dataclasses.replace(
                field.metadata["setting"], name=field.name, type=hints[field.name], traced=traced
            )
            field.metadata = types.MappingProxyType({"setting": setting})
            settings[field.name] = setting
    return settings


def show(value: Any) -> str:
    """A field's value as short text, as names of configurations and tables show it."""
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, float):
        # Where six digits do not tell it from others, all of them.
        return f"{value:g}" if float(f"{value:g}") == value else repr(float(value))
    if isinstance(value, Iterable) and not isinstance(value, str):
        return ",".join(show(item) for item in value)
    return str(value)


def with_trait(selector: str, trait: str) -> str:
    """Words for the choices of a field that have a trait, such as "agents with a gradient"."""
    article = "" if trait.endswith("s") else "an " if trait[0] in "aeiou" else "a "
    ends_in_y = selector[-1] == "y" and selector[-2] not in "aeiou"
    many = f"{selector[:-1]}ies" if ends_in_y else f"{selector}s"
    return f"{many} with {article}{trait}"


class _Kind(NamedTuple):
    """How values of one type are called, stored, read from a text, and recognised."""

    words: str
    short: str
    parquet: str
    parse: Callable[[str], Any]
    typed: Callable[[Any], Any]


def _whole(text: str) -> int:
    """Accepts 500000, 500_000 and 5e5, but nothing with a fraction."""
    number = float(text)
    if not number.is_integer():
        raise ValueError(text)
    return int(number) if "e" in text.lower() or "." in text else int(text)


def _items(item: Callable[[str], Any], text: str) -> tuple[Any, ...]:
    return tuple(item(part) for part in text.strip("()[]").split(",") if part.strip())


def _strictly(kind: type, value: Any) -> Any:
    # A bool is an int in Python, and a mistake here.
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise TypeError
    return value


def _all_strictly(kind: type, value: Any) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise TypeError
    return tuple(_strictly(kind, item) for item in value)


def _number(value: Any) -> float:
    """Accepts whatever float() does, scalars of NumPy and JAX too, but few texts."""
    if isinstance(value, bool | bytes | bytearray):
        raise TypeError
    if isinstance(value, str) and value not in ("inf", "-inf", "nan"):
        raise TypeError
    return float(value)


_KINDS: dict[Any, _Kind] = {
    int: _Kind("a whole number", "int", "int64", _whole, lambda v: _strictly(int, v)),
    float: _Kind("a number", "float", "float64", float, _number),
    bool: _Kind(
        "true or false",
        "true/false",
        "bool",
        lambda text: {"true": True, "false": False}[text.lower()],
        lambda v: _strictly(bool, v),
    ),
    str: _Kind("a text", "text", "string", str, lambda v: _strictly(str, v)),
    tuple[int, ...]: _Kind(
        "a list of whole numbers, such as 120,84",
        "int,int,...",
        "string",
        lambda text: _items(_whole, text),
        lambda v: _all_strictly(int, v),
    ),
    tuple[str, ...]: _Kind(
        "a list of names, such as learning_rate,temperature",
        "name,name,...",
        "string",
        lambda text: _items(str.strip, text),
        lambda v: _all_strictly(str, v),
    ),
    int | None: _Kind(
        "a whole number or none",
        "int or none",
        "int64",
        lambda text: None if text.lower() == "none" else _whole(text),
        lambda v: None if v is None else _strictly(int, v),
    ),
}


def _type_of(value: Any) -> Any:
    """The type that a default stands for; that of the value itself where it does not tell."""
    if isinstance(value, list | tuple) and value:
        return tuple[int, ...] if isinstance(value[0], int) else tuple[str, ...]
    return type(value)


def _type_names() -> str:
    return ", ".join(kind.__name__ if isinstance(kind, type) else str(kind) for kind in _KINDS)
