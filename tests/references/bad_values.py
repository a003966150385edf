"""Every constructor and function of the public packages that takes a number or a choice, and values that are wrong."""

from __future__ import annotations

import importlib
import inspect
import math
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import UnionType
from typing import Any, Literal, NamedTuple, Union

#: The packages whose exports are public, and modules of public classes that the command line reaches by their names.
PUBLIC = (
    "callbacks", "clustering", "data", "deployment", "losses", "methods", "metrics", "modules", "report",
    "data.samplers.modality", "data.samplers.pseudo_label", "data.synthetic.layouts", "data.synthetic.drawing",
    "data.synthetic.renderer",
)  # fmt: skip

#: Public methods that users give numbers to.
METHODS = {
    "deployment.Embedder": ("from_checkpoint",),
    "deployment.Gallery": ("load", "search"),
    "deployment.GalleryIndex": ("build", "search"),
}

_PACKAGE = "vireid_lightning."


def discover() -> dict[str, Callable[..., Any]]:
    """Return what takes a number or a choice, by the name of its package and its own."""
    found: dict[str, Callable[..., Any]] = {}
    for place in PUBLIC:
        module = importlib.import_module(_PACKAGE + place)
        exported = getattr(module, "__all__", None)
        for name in exported or vars(module):
            item = getattr(module, name)
            home = str(getattr(item, "__module__", ""))
            own = home.startswith(_PACKAGE) if exported else home == _PACKAGE + place and name[0] != "_"
            if own and callable(item) and list_arguments(item):
                found[f"{place}.{name}"] = item
            for method in METHODS.get(f"{place}.{name}", ()):
                found[f"{place}.{name}.{method}"] = getattr(item, method)
    return found


def list_arguments(item: Callable[..., Any]) -> dict[str, Any]:
    """Return the arguments of a constructor or function that hold numbers or a choice, with their annotations."""
    of = item
    if isinstance(item, type) and "__dataclass_fields__" not in vars(item):
        # NamedTuples annotate their class; the constructor of any other class has the annotations.
        of = item if issubclass(item, tuple) or "__init__" not in _names(item) else item.__init__
    try:
        hints = typing.get_type_hints(of)
    except (NameError, TypeError):
        return {}
    try:
        taken = inspect.signature(item).parameters
    except ValueError:
        return {}
    return {name: hints[name] for name in taken if name in hints and (_numbers(hints[name]) or choices(hints[name]))}


def _names(item: type) -> set[str]:
    return {name for base in item.__mro__[:-1] for name in vars(base)}


def _numbers(hint: Any) -> list[type]:
    """Return the kinds of numbers that an annotation holds, alone or in a sequence; none for arrays and tensors."""
    if hint in (int, float):
        return [hint]
    if typing.get_origin(hint) in (Union, UnionType, list, tuple, Sequence, dict, Mapping):
        parts = typing.get_args(hint)[-1:] if typing.get_origin(hint) in (dict, Mapping) else typing.get_args(hint)
        found = [kind for part in parts for kind in _numbers(part)]
        arrays = [part for part in parts if getattr(part, "__module__", "") in ("torch", "numpy")]
        return [] if arrays else found
    return []


def choices(hint: Any) -> tuple[Any, ...]:
    """Return the values of a ``Literal``, alone or beside null; none for any other annotation."""
    if typing.get_origin(hint) is Literal:
        return typing.get_args(hint)
    if typing.get_origin(hint) in (Union, UnionType):
        parts = [part for part in typing.get_args(hint) if part is not type(None)]
        return choices(parts[0]) if len(parts) == 1 else ()
    return ()


class Range(NamedTuple):
    """The numbers that an argument takes."""

    least: float = -math.inf
    most: float = math.inf
    above: bool = False
    below: bool = False

    @classmethod
    def read(cls, text: str) -> Range:
        """Return the range of a text such as ``[0, 1)``."""
        least, most = text[1:-1].split(",")
        return cls(float(least), float(most), text[0] == "(", text[-1] == ")")


def list_bad(hint: Any, span: Range) -> Iterator[Any]:
    """Yield values that an argument must refuse, by its annotation and the numbers that it takes."""
    if choices(hint):
        yield from ("none of them", 3, [], math.nan)
        return
    kinds, optional = _numbers(hint), _is_optional(hint)
    whole, plain = float not in kinds, hint in (int, float) or (optional and not _sequence(hint))
    single = [math.nan, math.inf, -math.inf, "0.5", [], {}, True, *([1.5] if whole else []), *_outside(span, whole)]
    if plain:
        yield from single
        yield from () if optional else (None,)
        return
    shape = _sequence(hint)
    length = len(typing.get_args(shape)) if typing.get_origin(shape) is tuple else 1
    for value in single:
        if typing.get_origin(shape) in (dict, Mapping):
            yield {"": value}
        elif value not in ([], {}):
            yield [value] * (1 if Ellipsis in typing.get_args(shape) else length)
    yield from (3, "text", math.nan)


def _outside(span: Range, whole: bool) -> list[float]:
    found: list[float] = []
    for limit, is_open, step in ((span.least, span.above, -1), (span.most, span.below, 1)):
        if math.isfinite(limit):
            found += [limit + step, *([limit] if is_open else [])]
    return [int(value) for value in found] if whole else found


def _is_optional(hint: Any) -> bool:
    return typing.get_origin(hint) in (Union, UnionType) and type(None) in typing.get_args(hint)


def _sequence(hint: Any) -> Any:
    """Return the part of an annotation that is a sequence or a mapping, None where there is none."""
    parts = typing.get_args(hint) if typing.get_origin(hint) in (Union, UnionType) else (hint,)
    return next((part for part in parts if typing.get_origin(part) in (list, tuple, Sequence, dict, Mapping)), None)


def says(message: str, name: str, value: Any) -> bool:
    """Return whether a message names an argument and its value."""
    text = message.lower()
    shown = [str(value).strip("[](){}").lower()]
    shown += [f"{value:,}"] if isinstance(value, int) else []
    shown += [str(item).lower() for item in value] if isinstance(value, list) else []
    return (name.lower() in text or name.replace("_", " ") in text) and any(form in text for form in shown)
