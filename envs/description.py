"""What can be set about an environment: options of its constructor, and its parameters."""

from __future__ import annotations

import dataclasses
import inspect
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments.environment import Environment

from envs import registry
from envs.errors import UnusableEnvironment, did_you_mean

TIME_LIMIT = "max_steps_in_episode"
_ASKED = {bool: "True or False", int: "a whole number", float: "a number", str: "a text"}
_WHOLE = np.iinfo(np.int32)
_REAL = float(np.finfo(np.float32).max)


class Parameter(NamedTuple):
    """One thing about an environment that can be set.

    Attributes:
        name: its name.
        type: bool, int, float or str.
        default: its value unless it is set; None where the constructor chooses it, and for an
            option without a default the value it was given.
        unit: such as "m/s^2"; empty where it has none or none is known.
        doc: one sentence without a full stop; empty where none is known.
        traced: whether it may differ between the lanes of a compiled program; what is not traced
            is static, one value for each compiled program.
        constructor: whether it is an option of the constructor, else a field of the parameters.
    """

    name: str
    type: type
    default: Any
    unit: str = ""
    doc: str = ""
    traced: bool = False
    constructor: bool = False


class Description(NamedTuple):
    """What can be set about the environment called `name`; `doc` is the first
    sentence of its own docstring or its class's.

    Constructor options are static. Of the parameters floats are traced, unless their field is
    no part of the pytree; bools, whole numbers and texts are static. What is none of these, such
    as an array or a function, cannot be set and is left out.

    A constructor option hides a parameter of the same name: the constructor is where its author
    means it to be set, and usually fills in the parameter by itself.
    """

    name: str
    doc: str
    options: tuple[Parameter, ...]
    params: tuple[Parameter, ...]

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Options and parameters, each name once."""
        return self.options + self.params


def describe(name: str, /, **options: Any) -> Description:
    """Describe what can be set about the environment called `name`, built with `options`.

    The names, types and defaults are those of the constructor and of `default_params`; units and
    sentences come from the fields' metadata, see `setting`, and an option's sentence from
    `Annotated[float, "sentence"]`. Raises what `make` raises.
    """
    env, params = registry.make(name, **options)
    described = _options(registry.factory_of(name), options)
    hidden = {option.name for option in described}
    fields = tuple(field for field in _fields(env, params) if field.name not in hidden)
    return Description(name, _first_sentence(env.__doc__), described, fields)


def configure(
    name: str,
    options: Mapping[str, Any] | None = None,
    params: Mapping[str, Any] | None = None,
) -> tuple[Environment, Any]:
    """Build the environment called `name` with constructor `options` and changed `params`.

    Both hold what `describe` lists, by name. A whole number does for a float, and a float that
    is traced may be an array [] or, inside a JAX transformation, a tracer; nothing else is
    converted, and True is no number. Returns the environment and its parameters.

    Raises UnusableEnvironment for an unknown name, a value of another type, a number that 32 bits
    cannot hold, a static parameter that is given a traced value and a time limit below 1, and
    whatever `make` raises.
    """
    for what, values in (("options", options), ("params", params)):
        if values is not None and not isinstance(values, Mapping):
            raise UnusableEnvironment(f"{what} of {name} must be values by name, got {values!r}")
    options, params = options or {}, params or {}
    known = {option.name: option for option in _options(registry.factory_of(name), options)}
    for given in options:
        if given not in known:
            raise UnusableEnvironment(_unknown(name, "option", given, list(known)))
    env, defaults = registry.make(
        name, **{given: _fitting(name, known[given], value) for given, value in options.items()}
    )
    fields = {field.name: field for field in _fields(env, defaults) if field.name not in known}
    for given in params:
        if given in known:
            raise UnusableEnvironment(
                f"{name} takes {given!r} as an option of its constructor, not as a parameter"
            )
        if given not in fields:
            raise UnusableEnvironment(_unknown(name, "parameter", given, list(fields)))
    changed = {
        given: _like(_fitting(name, fields[given], value), getattr(defaults, given))
        for given, value in params.items()
    }
    return env, defaults.replace(**changed) if changed else defaults


def _options(factory: Callable[..., Any], given: Mapping[str, Any]) -> tuple[Parameter, ...]:
    """Describe the options of a constructor that are bools, numbers or texts."""
    described = []
    for parameter in _signature(factory).parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            continue
        is_required = parameter.default is parameter.empty
        default = given.get(parameter.name) if is_required else parameter.default
        annotation, doc = _annotated(parameter.annotation)
        kind = _kind(annotation) or _kind(type(default))
        if kind is not None:
            described.append(Parameter(parameter.name, kind, default, doc=doc, constructor=True))
    return tuple(described)


def _signature(factory: Callable[..., Any]) -> inspect.Signature:
    try:
        return inspect.signature(factory, eval_str=True)
    except (NameError, AttributeError, TypeError):
        # An annotation that only type checkers can resolve: defaults tell the types instead.
        return inspect.signature(factory)


def _annotated(annotation: Any) -> tuple[Any, str]:
    """Type and sentence of `Annotated[type, "sentence"]`; another annotation has no sentence."""
    if typing.get_origin(annotation) is not typing.Annotated:
        return annotation, ""
    kind, *notes = typing.get_args(annotation)
    return kind, next((note for note in notes if isinstance(note, str)), "")


def _kind(annotation: Any) -> type | None:
    """Which of bool, int, float and str an annotation asks for; None for anything else."""
    if typing.get_origin(annotation) is Literal:
        members = [type(value) for value in typing.get_args(annotation)]
    elif typing.get_origin(annotation) in (typing.Union, types.UnionType):
        members = list(typing.get_args(annotation))
    else:
        members = [annotation]
    basic = [kind for kind in _ASKED if any(kind is member for member in members)]
    if basic == [int, float]:
        return float
    return basic[0] if len(basic) == 1 else None


def _fields(env: Environment, params: Any) -> tuple[Parameter, ...]:
    """Describe the fields of parameters that are bools, numbers or texts."""
    if not dataclasses.is_dataclass(params) or not hasattr(params, "replace"):
        raise UnusableEnvironment(
            f"default_params of {env.name} is of type {type(params).__name__}; make it a "
            "flax.struct.dataclass derived from gymnax.environments.environment.EnvParams"
        )
    described = []
    for field in dataclasses.fields(params):
        default = _plain(getattr(params, field.name))
        if field.name == TIME_LIMIT and isinstance(default, float):
            default = int(default)  # gymnax's bandits say 100.0
        if type(default) in _ASKED:
            described.append(
                Parameter(
                    field.name,
                    type(default),
                    default,
                    unit=str(field.metadata.get("unit", "")),
                    doc=str(field.metadata.get("doc", "")),
                    traced=isinstance(default, float) and _is_leaf(field),
                )
            )
    return tuple(described)


def _is_leaf(field: dataclasses.Field[Any]) -> bool:
    return bool(field.metadata.get("pytree_node", True))


def _plain(value: Any) -> Any:
    """The Python value of a single number of NumPy or JAX; anything else as it is."""
    if isinstance(value, np.generic | np.ndarray | jax.Array) and np.shape(value) == ():
        return value if isinstance(value, jax.core.Tracer) else value.item()
    return value


def _fitting(name: str, parameter: Parameter, value: Any) -> Any:
    """Check that `value` may be given for `parameter`; returns it as Python has it, or a tracer."""
    what, asked = f"{name}: {parameter.name}", f"{_ASKED[parameter.type]} is asked"
    is_tracer = isinstance(value, jax.core.Tracer)
    if is_tracer and not parameter.traced:
        raise UnusableEnvironment(
            f"{what} is a traced value, but it is static: {asked}, the same in all lanes"
        )
    if is_tracer and value.shape == () and jnp.issubdtype(value.dtype, jnp.floating):
        return value
    if isinstance(value, jax.Array | np.ndarray) and (is_tracer or value.shape != ()):
        shown = f"{value.dtype}{list(value.shape)}"
        raise UnusableEnvironment(f"{what} is an array, {shown}; {asked} (many: call under vmap)")
    plain = _plain(value)
    if plain is None and parameter.default is None:
        return None
    if type(plain) is not parameter.type and (parameter.type, type(plain)) != (float, int):
        raise UnusableEnvironment(f"{what} is {value!r}, of type {type(value).__name__}; {asked}")
    _check_size(what, parameter, plain)
    return float(plain) if parameter.type is float else plain


def _check_size(what: str, parameter: Parameter, value: Any) -> None:
    low, high = (1 if parameter.name == TIME_LIMIT else _WHOLE.min), _WHOLE.max
    if parameter.type is int and not low <= value <= high:
        raise UnusableEnvironment(
            f"{what} is {value}; a whole number from {low} to {high} is asked"
        )
    if parameter.type is float and (math.isnan(value) or _REAL < abs(value) < math.inf):
        raise UnusableEnvironment(f"{what} is {value}; a number that float32 can hold is asked")


def _like(value: Any, default: Any) -> Any:
    """Give `value` the dtype of a default that NumPy or JAX made."""
    if isinstance(value, jax.core.Tracer) or not hasattr(default, "dtype"):
        return value
    if isinstance(default, jax.Array):
        return jnp.asarray(value, default.dtype)
    return np.asarray(value, default.dtype)[()]


def _unknown(name: str, what: str, given: Any, known: Iterable[str]) -> str:
    listed = ", ".join(known)
    return (
        f"{name} has no {what} {given!r} that can be set: {did_you_mean(given, known)}"
        f"its {what}s are {listed or 'none'}"
    )


def _first_sentence(docstring: str | None) -> str:
    paragraph = inspect.cleandoc(docstring or "").partition("\n\n")[0]
    return " ".join(paragraph.split()).partition(". ")[0].removesuffix(".")
