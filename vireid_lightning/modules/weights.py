"""Trained weights of a file or of an installed package, brought into timm's names for a backbone."""

from __future__ import annotations

import importlib
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import timm
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from vireid_lightning.errors import VIReIDError
from vireid_lightning.modules.weights_files import Tensors, find_weights, read_tensors

#: What the names of a network that was wrapped begin with.
_PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.")

#: Networks that a file is compared with to say what it holds.
_COMMON = (
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x4d", "wide_resnet50_2"),
    *("mobilenetv2_100", "mobilenetv3_large_100", "mobilenetv3_small_100", "tf_efficientnet_lite0"),
    *("tf_efficientnet_lite1", "tf_efficientnet_lite2", "efficientnet_b0", "efficientnet_b1", "efficientnet_b2"),
    *("convnext_atto", "convnext_tiny", "convnext_small", "convnext_base", "regnetx_002", "regnety_002"),
    *("densenet121", "vgg16", "vit_tiny_patch16_224", "vit_small_patch16_224", "vit_base_patch16_224"),
    *("swin_tiny_patch4_window7_224", "resnet10t", "test_resnet"),
)


def read_weights(weights: str, name: str) -> dict[str, Tensor]:
    """Read trained weights of a backbone, under timm's names and without the classifier's.

    Tensors are taken by timm's names, behind whatever prefix; else by the names of a release for which timm has a rule;
    else, where all have the kinds and shapes of the network's in the network's order, by order. One line says which.
    Nothing in the file is executed.

    Args:
        weights: What :func:`~vireid_lightning.modules.weights_files.find_weights` takes: a file, ``package:NAME`` or
            ``small``. The file is .safetensors or what ``torch.save`` wrote: a state dict, alone or under the key
            ``state_dict`` or ``model``, with or without prefixes such as ``module.``.
        name: timm's name of the backbone.

    Raises:
        VIReIDError: If the file cannot be read or holds another network's weights, also a larger network's that has
            all tensors of the backbone and more; says which it looks like.
    """
    path, origin = find_weights(weights, name)
    found = read_tensors(path)
    tensors = _without_prefixes(found.tensors)
    network = timm.create_model(name, pretrained=False)
    wanted = _list_body(network)
    mapped, how = _take_by_name(found.tensors, wanted), "by name"
    if mapped is None:
        mapped, how = _take_renamed(tensors, network, wanted), "by name, after timm's renaming"
    if mapped is None:
        tensors = tensors if found.ordered else _order_by_numbers(tensors)
        mapped, how = _take_by_order(tensors, wanted), "by order, since names differ and every shape agrees"
    if mapped is None:
        raise VIReIDError(_explain_mismatch(weights, name, found, wanted))
    state = network.state_dict()
    if other := [key for key in mapped if mapped[key].is_floating_point() != state[key].is_floating_point()]:
        kind = str(mapped[other[0]].dtype).removeprefix("torch.")
        raise VIReIDError(f"{weights} holds {other[0]} as {kind}, which are no trained weights; save it as float32.")
    if resampled := [key for key in mapped if key in tensors and tensors[key].shape != mapped[key].shape]:
        how += f", {len(resampled)} of them resampled ({resampled[0]})"
    beside = f"; its {', '.join(found.left_out)} is left out" if found.left_out else ""
    rank_zero_info(f"weights: {len(mapped)} tensors of '{name}' from {origin}, {how}{beside}.")
    return mapped


def _without_prefixes(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Remove prefixes that all names share, such as the ``module.`` of a network that was trained on several GPUs."""
    while prefix := next((prefix for prefix in _PREFIXES if all(key.startswith(prefix) for key in tensors)), None):
        tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    return tensors


class _Body(NamedTuple):
    """What is wanted of a network: the shapes of its tensors by name, and what the names of its classifier begin with.

    Neither the classifier nor counters of batches are wanted.
    """

    shapes: dict[str, torch.Size]
    classifier: tuple[str, ...]


def _list_body(network: nn.Module) -> _Body:
    classifier = getattr(network, "default_cfg", {}).get("classifier") or ()
    heads = tuple(f"{head}." for head in ((classifier,) if isinstance(classifier, str) else classifier))
    state = network.state_dict()
    kept = [key for key in state if not key.endswith("num_batches_tracked") and not key.startswith(heads)]
    return _Body({key: state[key].shape for key in kept}, heads)


def _find_prefixes(tensors: Mapping[str, Tensor], wanted: _Body) -> list[str]:
    """Return what stands before timm's names, for each time that the file holds all of them in their shapes."""
    first = next(iter(wanted.shapes))
    prefixes = [key.removesuffix(first) for key in tensors if key == first or key.endswith(f".{first}")]
    return [
        prefix
        for prefix in prefixes
        if all(prefix + key in tensors and tensors[prefix + key].shape == shape for key, shape in wanted.shapes.items())
    ]


def _take_by_name(tensors: Mapping[str, Tensor], wanted: _Body) -> dict[str, Tensor] | None:
    prefixes = _find_prefixes(tensors, wanted)
    if len(prefixes) != 1:
        return None
    under = _list_under(tensors, prefixes[0])
    return None if _list_surplus(under, wanted) else {key: under[key] for key in wanted.shapes}


def _list_under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _list_surplus(tensors: Mapping[str, Tensor], wanted: _Body) -> list[str]:
    """Return tensors beside the wanted ones that belong to the network's body, so that it is another, larger one.

    A head of whatever kind has a first name of its own; buffers of indices and counters are computed anew.
    """
    body = {key.split(".")[0] for key in wanted.shapes}
    return [
        key
        for key, value in tensors.items()
        if key not in wanted.shapes
        and key.split(".")[0] in body
        and not key.startswith(wanted.classifier)
        and value.is_floating_point()
        and value.ndim
    ]


def _take_renamed(tensors: Mapping[str, Tensor], network: nn.Module, wanted: _Body) -> dict[str, Tensor] | None:
    """Return the tensors as timm renames those of a network's original release, where it has a rule for it.

    A rule may also resample patches and positions. Positions of another image size are the same network, patches of
    another size are another network.
    """
    rename = getattr(importlib.import_module(type(network).__module__), "checkpoint_filter_fn", None)
    if rename is None:
        return None
    try:
        renamed: Mapping[str, Tensor] = rename(dict(tensors), network)
    except Exception:  # a rule for one release fails in its own ways on the files of another
        return None
    mapped = _take_by_name(renamed, wanted)
    # Patches are kernels; what a rule may join or split, such as the biases of queries and values, is none.
    sizes = {value.numel() for value in tensors.values()}
    if mapped is None or any(value.ndim > 3 and value.numel() not in sizes for value in mapped.values()):
        return None
    return mapped


def _order_by_numbers(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors in the order of the numbers in their names, or none where letters would decide.

    A .safetensors file keeps no order, and that of the alphabet would put equal layers in each other's places.
    """
    parts = {key: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", key)] for key in tensors}
    # Text and numbers alternate in what is split, so that places compare like with like.
    ordered = sorted(tensors, key=lambda key: parts[key])
    for before, after in itertools.pairwise(ordered):
        unlike = next(((a, b) for a, b in zip(parts[before], parts[after]) if a != b), None)
        if unlike is None or not isinstance(unlike[0], int):
            return {}
    return {key: tensors[key] for key in ordered}


def _is_counter(value: Tensor) -> bool:
    """Return whether a tensor is a BatchNorm's counter of batches, which old files lack."""
    return value.ndim == 0 and not value.is_floating_point()


def _kinds(tensors: Iterable[tuple[str, torch.Size]]) -> list[tuple[str, torch.Size]]:
    return [(key.rpartition(".")[2], shape) for key, shape in tensors]


def _take_by_order(tensors: Mapping[str, Tensor], wanted: _Body) -> dict[str, Tensor] | None:
    """Return the tensors under the wanted names if kinds and shapes agree one by one, but for a classifier behind."""
    values = [(key, value) for key, value in tensors.items() if not _is_counter(value)]
    body, head = values[: len(wanted.shapes)], values[len(wanted.shapes) :]
    if len(head) > 2 or any(value.ndim not in (1, 2) for _, value in head):
        return None
    if _kinds((key, value.shape) for key, value in body) != _kinds(wanted.shapes.items()):
        return None
    return {key: value for key, (_, value) in zip(wanted.shapes, body)}


def _explain_mismatch(weights: str, name: str, found: Tensors, wanted: _Body) -> str:
    tensors = _without_prefixes(found.tensors)
    shapes = wanted.shapes
    missing = [key for key in shapes if key not in tensors]
    first = next((key for key in shapes if key in tensors and tensors[key].shape != shapes[key]), None)
    copies = _find_prefixes(found.tensors, wanted)
    if len(copies) > 1:
        return f"{weights} holds '{name}' {len(copies)} times, under {', '.join(copies)}; keep one in the file."
    if surplus := [key for copy in copies for key in _list_surplus(_list_under(found.tensors, copy), wanted)]:
        reason = f"it has all of its tensors and {len(surplus)} more, the first being {surplus[0]}"
    elif first is not None:
        reason = f"its {first} is {tuple(tensors[first].shape)}, not {tuple(shapes[first])}"
    elif missing:
        reason = (
            f"it lacks {len(missing)} of {len(shapes)} tensors by name, the first being {missing[0]}, and the order of "
            f"its shapes differs{'' if found.ordered else ', or its names do not tell it'}"
        )
    else:
        reason = "timm's rule for its names makes another network of it"
    if found.is_lightning:
        return (
            f"{weights} holds no weights of '{name}': {reason}; it is a checkpoint of a LightningModule, and "
            "init_from takes the backbone of one of this library."
        )
    guess = guess_network(tensors)
    if guess == name.split(".")[0]:
        advice = f"its shapes are those of '{name}' itself, so give it with timm's names"
    elif guess:
        advice = f"it looks like timm's '{guess}', so set backbone to that, or give a timm state dict of '{name}'"
    else:
        advice = (
            f"its {len(tensors)} tensors are those of none of the networks that are often used; give a timm state dict "
            f"of '{name}'"
        )
    return f"{weights} holds no weights of '{name}': {reason}; {advice}."


def guess_network(tensors: Mapping[str, Tensor]) -> str | None:
    """Return the timm name of the often used network whose tensors a state dict has, whatever their names.

    Shapes are compared without their order and without the classifier's.
    """
    shapes = Counter(value.shape for value in tensors.values() if not _is_counter(value))
    for name in _COMMON:
        if not timm.is_model(name):
            continue
        try:
            with torch.device("meta"):
                body = Counter(_list_body(timm.create_model(name, pretrained=False)).shapes.values())
        except (NotImplementedError, RuntimeError):  # ConvNeXt of older timm reads values while it is built
            continue
        rest = shapes - body
        if not body - shapes and rest.total() <= 2:
            return name
    return None
