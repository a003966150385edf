"""Whether values are of the kinds that a constructor's annotations name, told in a sentence before they are used."""

from __future__ import annotations

import dataclasses
import numbers
import types
import typing
from collections.abc import Callable, Mapping
from collections.abc import Sequence as AbstractSequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from vireid_lightning.errors import VIReIDError, did_you_mean

_NAMES = {float: "a number", int: "a whole number", bool: "true or false", str: "a text", type(None): "null"}


def check_kinds(values: Mapping[str, Any], of: Callable[..., Any] | type, prefix: str = "") -> None:
    """Refuse a value that is not of the kind that its annotation names, such as a text for a number.

    What an annotation does not tell in plain kinds, such as an object of a class, is left to the constructor.

    Args:
        values: The values by name; names without an annotation are left alone.
        of: The constructor, or the dataclass, whose annotations count.
        prefix: What stands before a name in the message, such as ``optimization.``.

    Raises:
        VIReIDError: Names the value and the kind that it should be of.

    Example:
        >>> def build(margin: float = 0.3) -> None: ...
        >>> check_kinds({"margin": 1}, build)
    """
    try:
        hints = typing.get_type_hints(of)
    except (NameError, TypeError):  # annotations that only a type checker can read
        return
    for name, value in values.items():
        if name in hints and not _fits(value, hints[name]):
            said = repr(value)
            raise VIReIDError(
                f"{prefix}{name} is {said if len(said) < 80 else said[:77] + '...'}; give {_describe(hints[name])}."
            )


def require_settings(of: type, value: object, name: str) -> dict[str, Any]:
    """Return the settings that a dictionary holds for a dataclass.

    Raises:
        VIReIDError: If it is no dictionary, or has a name that the dataclass does not have.
    """
    if not isinstance(value, Mapping):
        raise VIReIDError(f"{name} is {str(value)[:80]!r}; give its settings by name.")
    known = [field.name for field in dataclasses.fields(of)]
    for key in value:
        if key not in known:
            raise VIReIDError(f"{name} has no setting '{key}'.{did_you_mean(str(key), known)}")
    return dict(value)


def _fits(value: object, hint: Any) -> bool:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, each) for each in arguments)
    if origin is Literal:
        return any(type(value) is type(each) and value == each for each in arguments)
    if hint is bool or hint is type(None):
        return isinstance(value, hint)
    if hint is float:
        return isinstance(value, numbers.Real) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if hint is str:
        return isinstance(value, (str, Path))
    if origin in (list, tuple, AbstractSequence):
        if not isinstance(value, (list, tuple)):
            return False
        if origin is tuple and Ellipsis not in arguments:
            return len(value) == len(arguments) and all(map(_fits, value, arguments))
        return all(_fits(each, arguments[0]) for each in value)
    if origin in (dict, Mapping):
        return isinstance(value, Mapping) and all(_fits(each, arguments[1]) for each in value.values())
    if origin is type:
        return isinstance(value, type)
    return True


def _describe(hint: Any) -> str:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(_describe, arguments)))
    if origin is Literal:
        return "one of " + ", ".join(map(str, arguments))
    if origin is tuple and Ellipsis not in arguments:
        return "a list of " + ", ".join(map(_describe, arguments))
    if origin in (list, tuple, AbstractSequence):
        return f"a list, each of {_describe(arguments[0])}"
    if origin in (dict, Mapping):
        return f"names, each with {_describe(arguments[1])}"
    return _NAMES.get(hint, f"a {getattr(hint, '__name__', hint)}")
