"""Settings of methods and backbones: the keyword-only parameters of the function that makes one."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from distill3d.errors import ConfigError

BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def option_names(make: Callable[..., Any]) -> list[str]:
    """The settings that it can be given."""
    parameters = inspect.signature(make).parameters.values()
    return [p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]


def checked_options(kind: str, name: str, make: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The options in the types that the function's annotations ask for.

    Raises:
        ConfigError: naming the options that there are, or the values that one can have.
    """
    known = option_names(make)
    unknown = sorted(set(options) - set(known))
    if unknown:
        wrong, there_are = ", ".join(map(repr, unknown)), ", ".join(known) or "none"
        raise ConfigError(f"{kind} {name!r} has no setting called {wrong}. It has: {there_are}.")
    hints = get_type_hints(make) if options else {}
    return {option: _as_type(option, value, hints.get(option, Any)) for option, value in options.items()}


def _as_type(option: str, value: Any, hint: Any) -> Any:
    """`value` as a bool, a number, a pair of numbers or one of some words."""
    hint = next((part for part in get_args(hint) if NoneType in get_args(hint) and part is not NoneType), hint)
    given, number = value, isinstance(value, int | float) and not isinstance(value, bool)
    if hint is bool:
        word = BOOLEANS.get(str(value).lower())
        good, wanted, value = word is not None, "true or false", word
    elif hint is int:
        good, wanted = number and float(value).is_integer() and value > 0, "a whole number from 1"
        value = int(value) if good else value
    elif hint is float:
        good, wanted = number, "a number"
    elif get_origin(hint) is Literal:
        good, wanted = value in get_args(hint), "one of " + ", ".join(map(str, get_args(hint)))
    elif get_origin(hint) is tuple:
        good = isinstance(value, tuple | list) and len(value) == len(get_args(hint))
        good, wanted = good and all(isinstance(v, int | float) for v in value), "two numbers like 0.02,0.5"
        value = tuple(value) if good else value
    elif get_origin(hint) is Sequence:
        value = (value,) if isinstance(value, str) else value
        good = isinstance(value, tuple | list) and all(isinstance(part, str) for part in value)
        wanted = "paths"
    else:
        good, wanted = True, ""
    if not good:
        raise ConfigError(f"{option} must be {wanted}, got {given!r}.")
    return value
