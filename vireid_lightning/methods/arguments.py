"""Constructor arguments that methods share, documented once."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping
from typing import Any

from vireid_lightning.errors import VIReIDError
from vireid_lightning.modules.own_network import import_path
from vireid_lightning.modules.trunk import BackboneSettings

#: Documentation of an argument by its name. A method documents such an argument itself only to say more.
SHARED_ARGUMENTS = {
    "num_classes": "Number of training identities, ``datamodule.num_identities``; the command line fills it in. None "
    "builds no classifiers: such a module embeds images but cannot be trained.",
    "backbone": "Name of a timm network, or the class of your own, on the command line by its import path.",
    "pretrained": "Whether the backbone starts from trained weights: those of the file ``weights``, else those that "
    "timm has for its name.",
    "weights": "File with a state dict of the backbone, for ``pretrained``: .safetensors or .pth, by timm's names "
    "or in their order. ``package:NAME`` takes the file of an installed package; ``small`` the package known for "
    "the backbone, ``tf_efficientnet_lite0`` with the extra ``small-weights``.",
    "gather": "Whether the losses of several processes compare the images of all of them, and so are those of one "
    "process with the whole batch; False: each process compares its own images.",
    "backbone_settings": "How the backbone is built beyond its name and weights.",
    "optimization": "Optimiser and learning-rate schedule.",
    "init_from": "Checkpoint of any method of this package whose encoder training starts from. Heads (``heads``) start "
    "fresh. A stem per modality starts from the checkpoint's stem of that modality, or from its single one; a single "
    "stem from the checkpoint's single or *visible* one. Not used where a run is resumed or a checkpoint is tested.",
}


#: Ends of the names of numbers that are 0 or more.
_NOT_NEGATIVE = (
    "weight", "weights", "margin", "margins", "share", "rounds", "blocks", "epochs", "steps", "warmup", "until"
)  # fmt: skip

#: Ends of the names of numbers above 0.
_POSITIVE = ("temperature", "temperatures", "scale", "dimension", "channels", "parts", "patterns", "stripes")

#: The largest number by the ends of names of what a network is made of; more would only fill the memory.
_LARGEST = {"dimension": 2**16, "channels": 2**16, "parts": 256, "patterns": 256, "stripes": 256}


def check_numbers(arguments: Mapping[str, Any]) -> None:
    """Refuse numbers among a method's arguments that are not finite, or negative where their name says they cannot be.

    Args:
        arguments: The arguments by name; nested dictionaries and lists are looked into.

    Raises:
        VIReIDError: If there is such a number; names the argument.
    """
    for name, value in _list_numbers(arguments):
        last = name.rpartition(".")[2].rpartition("_")[2]
        if not math.isfinite(value):
            raise VIReIDError(f"{name} is {value}; give a finite number.")
        if (last in _NOT_NEGATIVE and value < 0) or (last in _POSITIVE and value <= 0):
            wanted = "of 0 or more" if last in _NOT_NEGATIVE else "above 0"
            raise VIReIDError(f"{name} is {value}; give a number {wanted}.")
        if value > (largest := _LARGEST.get(last, math.inf)):
            raise VIReIDError(f"{name} is {value}; give at most {largest}.")


def _list_numbers(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _list_numbers(value, f"{prefix}{name}.")
            continue
        for each in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(each, (int, float)) and not isinstance(each, bool):
                yield f"{prefix}{name}", each


def argument_names(method: type) -> list[str]:
    """Return the names of the constructor arguments of a class."""
    return list(inspect.signature(method).parameters)


def plain_backbone(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return a constructor's arguments on its backbone as plain values that a checkpoint may hold.

    A class becomes its import path, by which no constructor imports anything: whoever loads the checkpoint gives the
    class.
    """
    plain: dict[str, Any] = {}
    if isinstance(backbone := arguments.get("backbone"), type):
        plain["backbone"] = import_path(backbone)
    if isinstance(settings := arguments.get("backbone_settings"), BackboneSettings):
        plain["backbone_settings"] = settings.to_dict()
    return plain


def document_arguments(method: type) -> None:
    """Add to a class's docstring a line for each shared argument that its constructor has and its text lacks."""
    text = inspect.cleandoc(method.__doc__ or "")
    names = [name for name in argument_names(method) if name in SHARED_ARGUMENTS]
    lines = "".join(f"    {name}: {SHARED_ARGUMENTS[name]}\n" for name in names if f"\n    {name}: " not in text)
    before, _, after = text.partition("\nArgs:\n") if "\nArgs:\n" in text else (f"{text}\n", "", "")
    method.__doc__ = f"{before}\nArgs:\n{lines}{after}" if lines else text
