"""Checkpoints: describe a run in one, read one, hand its encoder on to another method.

A checkpoint is Lightning's, plus a block that rebuilds the method without its config. The block lies under the key
``vireid``: ``method`` (class name), ``preprocessing``, ``identities`` (the dataset's numbers in class order),
``dataset`` (name, trial, fingerprint, distance) and ``training`` (how the weights were trained). Files are read with
``weights_only=True``: nothing in a checkpoint is executed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vireid_lightning.data.datamodule import CrossModalityDataModule
from vireid_lightning.errors import VIReIDError
from vireid_lightning.files import load_weights_file as load_weights_file
from vireid_lightning.modules.plain_transformer import resample_positions
from vireid_lightning.version import __version__

BLOCK = "vireid"
FORMAT = 1

#: Constructor arguments that say where the first weights came from, and the values that look for none. A checkpoint
#: holds the trained weights, so rebuilding must not look for those files again.
FIRST_WEIGHTS = {"pretrained": False, "weights": None, "init_from": None}

_STREAM = re.compile(r"^(backbone\.stages\.\d+\.)(visible|infrared)\.")


def describe_run(
    checkpoint: dict[str, Any],
    method: str,
    arguments: Mapping[str, Any],
    datamodule: CrossModalityDataModule | None,
    training: Mapping[str, Any] | None = None,
    module: str | None = None,
) -> None:
    """Add the self-describing block to a Lightning checkpoint that is being written.

    Args:
        checkpoint: The checkpoint; changed in place.
        method: Class name of the method.
        arguments: The method's constructor arguments, for a checkpoint in which Lightning has not put them yet.
        datamodule: The run's data; None describes none.
        module: Module of the method's class, which loading compares and never imports.
        training: How the weights were trained, see :mod:`vireid_lightning.methods.training_record`; None: unknown.
    """
    stored = checkpoint.setdefault("hyper_parameters", dict(arguments))
    stored.update({name: value for name, value in FIRST_WEIGHTS.items() if name in stored})
    block: dict[str, Any] = {"format": FORMAT, "version": __version__, "method": method}
    if datamodule is not None:
        dataset = datamodule.dataset
        block["preprocessing"] = dict(datamodule.preprocessing)
        block["identities"] = list(datamodule.identities)
        block["dataset"] = {
            "name": dataset.name,
            "trial": dataset.trial,
            "fingerprint": datamodule.fingerprint,
            "distance": dataset.distance,
        }
    if module is not None:
        block["module"] = module
    if training is not None:
        block["training"] = dict(training)
    checkpoint[BLOCK] = block


def fingerprint_weights(module: nn.Module) -> str:
    """Return 16 hexadecimal digits that change with any tensor of a module's state, its name or its type.

    Example:
        >>> fingerprint_weights(nn.Identity())
        'e4a6a0577479b2b4'
    """
    digest = hashlib.blake2b(digest_size=8)
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint that this package wrote.

    Raises:
        VIReIDError: If the file is no checkpoint, or one of other code.
    """
    checkpoint = load_weights_file(path)
    if not isinstance(checkpoint, dict) or BLOCK not in checkpoint or "state_dict" not in checkpoint:
        raise VIReIDError(
            f"{path} was not written by vireid-lightning; convert weights that a paper's authors released with "
            "`vireid import-checkpoint --method METHOD FILE OUTPUT.ckpt`."
        )
    if checkpoint[BLOCK].get("format") != FORMAT:
        raise VIReIDError(
            f"{path} was written by vireid-lightning {checkpoint[BLOCK].get('version')} in a format that this version "
            f"({__version__}) does not read; load it with that version."
        )
    return checkpoint


@torch.no_grad()
def hand_on(path: str | Path, module: nn.Module, *, heads: tuple[str, ...] = ()) -> str:
    """Copy into a module every encoder tensor that a checkpoint holds under the same name and shape.

    Position embeddings of a vision transformer are resampled where the image sizes differ.

    Args:
        path: The checkpoint.
        module: The module; changed in place.
        heads: Prefixes of the names of tensors that keep their fresh weights.

    Returns:
        One line that says what was and was not loaded.

    Raises:
        VIReIDError: If the file is no checkpoint of this package, or no tensor of the backbone matches.
    """
    checkpoint = read_checkpoint(path)
    source: dict[str, Tensor] = checkpoint["state_dict"]
    target = module.state_dict()
    encoder = [name for name in target if not name.startswith(heads)]
    loaded, used = [], set()
    for name in encoder:
        for candidate in _candidates(name):
            found = source.get(candidate)
            if found is not None and name.endswith("position.grid") and found.shape[:2] == target[name].shape[:2]:
                found = resample_positions(found, (target[name].shape[2], target[name].shape[3]))
            if found is not None and found.shape == target[name].shape:
                target[name].copy_(found)
                loaded.append(name)
                used.add(candidate)
                break
    origin = f"{checkpoint[BLOCK]['method']} in {path}"
    if not any(name.startswith("backbone.") and name.endswith("weight") for name in loaded):
        wanted = next((name for name in encoder if name.startswith("backbone.")), "none")
        raise VIReIDError(
            f"init_from: nothing of {origin} matches the backbone of {type(module).__name__} ({wanted}, "
            f"{tuple(target[wanted].shape) if wanted in target else ''}); use the same backbone in both."
        )
    single = any(_STREAM.match(name) for name in used) and not any(_STREAM.match(name) for name in encoder)
    fresh, unused = _name_parts(target, set(target) - set(loaded)), _name_parts(source, set(source) - used)
    return (
        f"init_from: {len(loaded)} of {len(encoder)} encoder tensors from {origin}"
        f"{', the single stem from its visible one' if single else ''}; "
        f"fresh: {fresh}; not used: {unused}."
    )


def _name_parts(names: Iterable[str], chosen: Collection[str]) -> str:
    """Return the parts that some tensors belong to; of a part that is not among them as a whole, how many are.

    Example:
        >>> _name_parts(["neck.weight", "neck.bias", "pool.p"], {"neck.bias", "pool.p"})
        '1 of the 2 tensors of neck, pool'
    """
    parts: dict[str, list[str]] = {}
    for name in names:
        parts.setdefault(name.split(".")[0], []).append(name)
    words = []
    for part, members in sorted(parts.items()):
        if count := sum(name in chosen for name in members):
            words.append(part if count == len(members) else f"{count} of the {len(members)} tensors of {part}")
    return ", ".join(words) or "nothing"


def _candidates(name: str) -> list[str]:
    """Return the names under which a checkpoint may hold a module's tensor; the first that is found counts.

    A part of the backbone that exists per modality starts from the checkpoint's copy for that modality, else from its
    shared part; a shared part starts from the checkpoint's shared part, else from its *visible* copy, because a
    one-stream network is trained from weights of visible images in every paper.
    """
    if match := _STREAM.match(name):
        return [name, name.replace(match.group(0), match.group(1), 1)]
    return [name, re.sub(r"^(backbone\.stages\.\d+\.)", r"\1visible.", name)]
