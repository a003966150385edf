"""Whether values are of the kinds that a constructor's annotations name, told in a sentence before they are used."""

from __future__ import annotations

import dataclasses
import math
import numbers
import sys
import types
import typing
from collections.abc import Callable, Mapping
from collections.abc import Sequence as AbstractSequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from vireid_lightning.errors import VIReIDError, did_you_mean

# More channels, classes or the like would only fill the memory.
_LARGEST_SIZE = 2**24

_NAMES = {float: "a finite number", int: "a whole number", bool: "true or false", str: "a text", type(None): "null"}


def check_kinds(values: Mapping[str, Any], of: Callable[..., Any] | type, prefix: str = "") -> None:
    """Refuse a value that is not of the kind that its annotation names, such as a text or NaN for a number.

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
            raise VIReIDError(f"{prefix}{name} is {_show(value)}; give {_describe(hints[name])}.")


def check_number(
    name: str,
    value: object,
    least: float = -math.inf,
    most: float = math.inf,
    *,
    whole: bool = False,
    above: bool = False,
    below: bool = False,
) -> None:
    """Refuse what is no finite number, or one out of its range.

    Args:
        name: What the message calls the value.
        value: The value.
        least: Smallest number of the range.
        most: Largest number of the range.
        whole: Whether it must be a whole number.
        above: Whether ``least`` itself is out of the range.
        below: Whether ``most`` itself is out of the range.

    Raises:
        VIReIDError: Names the value and the range.

    Example:
        >>> check_number("momentum", 0.2, 0, 1)
    """
    if _fits(value, int if whole else float):
        number: Any = value
        if (least < number if above else least <= number) and (number < most if below else number <= most):
            return
    limits = [f"above {least}" if above else f"from {least}"] if least > -math.inf else []
    limits += [f"below {most}" if below else f"up to {most}"] if most < math.inf else []
    wanted = " ".join([_NAMES[int if whole else float], " and ".join(limits)]).rstrip()
    raise VIReIDError(f"{name} is {_show(value)}; give {wanted}.")


def check_sizes(**sizes: object) -> None:
    """Refuse numbers of channels, classes and the like, by their names, that are no whole number from 1."""
    for name, value in sizes.items():
        check_number(name, value, 1, _LARGEST_SIZE, whole=True)


def check_whole(name: str, values: object, least: float = 1, *, length: int | None = None) -> None:
    """Refuse what is no list of whole numbers from ``least``, of this ``length`` where it is given."""
    listed = values if isinstance(values, (list, tuple)) else None
    if listed is None or length not in (None, len(listed)) or not all(_fits(value, int) for value in listed):
        many = "" if length is None else f" {length}"
        raise VIReIDError(f"{name} is {_show(values)}; give a list of{many} whole numbers.")
    for value in listed:
        check_number(name, value, least, _LARGEST_SIZE if least else math.inf, whole=True)


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


def _show(value: object) -> str:
    said = repr(value)
    return said if len(said) < 80 else f"{said[:77]}..."


def _fits(value: object, hint: Any) -> bool:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, each) for each in arguments)
    if origin is Literal:
        return any(type(value) is type(each) and value == each for each in arguments)
    if hint is bool or hint is type(None):
        return isinstance(value, hint)
    if hint is float:
        # NaN compares with nothing; an integer beyond the largest float could not become one.
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            return False
        number: Any = value
        return bool(-sys.float_info.max <= number <= sys.float_info.max)
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
