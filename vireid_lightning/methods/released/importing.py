"""Loading weights that a paper's authors released into a method of this package."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch

from vireid_lightning.data.datasets.regdb import RegDB
from vireid_lightning.data.images.resizing import RESIZERS
from vireid_lightning.errors import VIReIDError
from vireid_lightning.files import atomic_write
from vireid_lightning.methods.base import ReIDModule
from vireid_lightning.methods.checkpoint import BLOCK, load_weights_file
from vireid_lightning.methods.released.catalogue import looks_like, release_of
from vireid_lightning.methods.released.release import Release, State
from vireid_lightning.printable import make_printable
from vireid_lightning.types import IMAGENET_MEAN, IMAGENET_STD


def import_checkpoint(path: str | Path, method: str) -> ReIDModule:
    """Load weights that a method's authors released, heads included, and print an account of it.

    The number of identities and of parts are read from the shapes.

    Args:
        path: The released file. Nothing in it is executed.
        method: ``mpanet``, ``dclnet`` or ``agw``.

    Returns:
        The method in eval mode on the CPU.

    Raises:
        VIReIDError: If the file is no checkpoint, would run code, is of another network (says which it looks like), or
            lacks a tensor that the method needs.

    Example:
        >>> model = import_checkpoint("released/sysu_dclnet.t", "dclnet")  # doctest: +SKIP
    """
    release = release_of(method)
    state = _read(path)
    _require_release(state, release, path)
    module = release.build(state)
    print(_load(module, state, release, path))
    return module.eval()


def _read(path: str | Path) -> dict[str, Any]:
    """Return the state dict of a released file: the file itself or what lies under ``net``."""
    content = load_weights_file(path, _numpy_scalars())
    if isinstance(content, dict) and BLOCK in content:
        raise VIReIDError(f"{path} is a checkpoint of vireid-lightning already; use it as it is.")
    state = content.get("net", content) if isinstance(content, dict) else content
    if not isinstance(state, dict) or not state or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise VIReIDError(f"{path} holds no state dict: neither it nor its entry 'net' maps names to tensors.")
    if all(name.startswith("module.") for name in state):  # saved from a DataParallel wrapper
        state = {name.removeprefix("module."): value for name, value in state.items()}
    return state


def _numpy_scalars() -> list[Any]:
    """Return what a file may hold beside tensors: the numbers of numpy under the names that its releases pickle.

    The stand-in for numpy's own function turns bytes into a plain number and accepts no types of objects.
    """

    def stand_in(module: str) -> Any:
        def scalar(dtype: Any, data: bytes) -> int | float | bool:
            kind = np.dtype(dtype)
            if kind.kind not in "biuf":
                raise VIReIDError(f"A checkpoint holds a numpy scalar of type {kind}, which is no number.")
            number: int | float | bool = np.frombuffer(data, kind)[0].item()
            return number

        scalar.__module__, scalar.__qualname__ = module, "scalar"
        return scalar

    numbers = {type(np.dtype(kind)) for kind in ("?", *np.typecodes["AllInteger"], *np.typecodes["Float"])}
    return [np.dtype, *numbers, stand_in("numpy.core.multiarray"), stand_in("numpy._core.multiarray")]


def _require_release(state: State, release: Release, path: str | Path) -> None:
    found = looks_like(state)
    if not found.startswith(release.title):
        raise VIReIDError(f"{path} does not hold {release.title}; it looks like {found}.")
    absent = [name for name in release.sizing if name not in state]
    if absent:
        raise VIReIDError(f"{path} lacks {', '.join(absent)}, without which {release.title} cannot be built.")


def _load(module: ReIDModule, state: State, release: Release, path: str | Path) -> str:
    """Copy what the file holds into the module, complete or not at all, and return the account."""
    target = module.state_dict()
    renamed = {name: release.rename(name, state) for name in state}
    mapped = {ours: name for name, ours in renamed.items() if ours is not None}
    foreign = [name for ours, name in mapped.items() if ours not in target]
    if foreign:
        raise VIReIDError(f"{path} is of a larger network than ResNet-50: it has {_listed(foreign)}.")
    # Batch counters change nothing: the momentum is fixed. Files of old torch versions lack them.
    missing = [ours for ours in target if ours not in mapped]
    needed = [ours for ours in missing if not ours.endswith(".num_batches_tracked")]
    if needed:
        raise VIReIDError(f"{path} is incomplete: {release.title} also needs {_listed(needed)}.")
    for ours, name in mapped.items():
        if state[name].shape != target[ours].shape:
            raise VIReIDError(
                f"{path}: {name} has the shape {tuple(state[name].shape)}, but {release.title} on ResNet-50 needs "
                f"{tuple(target[ours].shape)}; it is of another backbone or another setting."
            )
    with torch.no_grad():
        for ours, name in mapped.items():
            target[ours].copy_(state[name])
    ignored = [name for name, ours in renamed.items() if ours is None]
    lines = [
        f"{release.title} with {module.num_classes} identities from {path}",
        f"  mapped: {len(mapped)} tensors ({_counted(_root(name) for name in mapped.values())})",
        f"  ignored: {len(ignored)} tensors ({_counted(map(_root, ignored))})" if ignored else "  ignored: nothing",
        f"  missing: {len(missing)} batch counters, which change nothing" if missing else "  missing: nothing",
    ]
    return "\n".join(map(make_printable, lines))


def _root(name: str) -> str:
    """Return the part of the network that a tensor belongs to: a ResNet's stem, stage or MAM, else the module."""
    parts = name.split(".")
    for index, part in enumerate(parts):
        if part.startswith(("layer", "MAM")):
            return ".".join(parts[: index + 1])
        if part in ("conv1", "bn1", "fc") and index:
            return ".".join([*parts[:index], "fc" if part == "fc" else "stem"])
    return parts[0]


def _counted(names: Iterable[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in Counter(names).items())


def _listed(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def write_checkpoint(
    module: ReIDModule,
    output: Path,
    release: Release,
    *,
    image_size: Iterable[int] | None = None,
    trial: int | None = None,
) -> None:
    """Write what Lightning and this package read from a checkpoint.

    Args:
        module: The method with its weights.
        output: The file.
        release: Whose weights these are; says how their authors prepared images.
        image_size: Height and width that the weights were trained on; None is the authors' size, for RegDB where there
            is a trial and for SYSU-MM01 where there is none.
        trial: The trial of RegDB that the weights were trained on; None for another dataset.
    """
    if image_size is None:
        image_size = release.image_size if trial is None else release.regdb_image_size
    checkpoint: dict[str, Any] = {
        "pytorch-lightning_version": lightning.__version__,
        "epoch": 0,
        "global_step": 0,
        "state_dict": module.state_dict(),
    }
    module.on_save_checkpoint(checkpoint)
    checkpoint[BLOCK]["training"] = {"weights": f"released by the authors of {release.title}"}
    checkpoint[BLOCK]["preprocessing"] = {
        "image_size": list(image_size),
        "mean": list(IMAGENET_MEAN),
        "std": list(IMAGENET_STD),
        "interpolation": release.interpolation,
        "resizer": RESIZERS[release.interpolation],
    }
    if trial is not None:
        checkpoint[BLOCK]["dataset"] = {"name": RegDB.name, "trial": trial, "fingerprint": None}
    with atomic_write(output) as file:
        torch.save(checkpoint, file)
