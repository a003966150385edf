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

#: Pixels of the longest side that images are prepared to.
_LARGEST_SIDE = 2**14

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
    if not isinstance(checkpoint[BLOCK], Mapping):
        raise VIReIDError(
            f"{path} says nothing of its method: its entry '{BLOCK}' is no dictionary; give another file."
        )
    found = checkpoint[BLOCK].get("format")
    if not isinstance(found, int) or found != FORMAT:  # a tensor has no one answer
        raise VIReIDError(
            f"{path} was written by vireid-lightning {checkpoint[BLOCK].get('version')} in a format that this version "
            f"({__version__}) does not read; load it with that version."
        )
    _check_content(path, checkpoint)
    return checkpoint


def _check_content(path: str | Path, checkpoint: Mapping[str, Any]) -> None:
    """Refuse a checkpoint of this package's format whose entries are not what they should be.

    Raises:
        VIReIDError: Names the file and the entry.
    """
    block, state = checkpoint[BLOCK], checkpoint["state_dict"]
    preprocessing = _get_mapping(block, "preprocessing")
    size = preprocessing.get("image_size", [1, 1]) if preprocessing is not None else None
    ranges = preprocessing.get("intensity_range") or {} if preprocessing is not None else {}
    dataset, training = _get_mapping(block, "dataset"), _get_mapping(block, "training")
    checks = {
        "state_dict": isinstance(state, Mapping)
        and all(isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()),
        "hyper_parameters": isinstance(checkpoint.get("hyper_parameters", {}), Mapping)
        and all(isinstance(name, str) for name in checkpoint.get("hyper_parameters", {})),
        "epoch": _is_count(checkpoint.get("epoch", 0)),
        "global_step": _is_count(checkpoint.get("global_step", 0)),
        "callbacks": isinstance(checkpoint.get("callbacks", {}), Mapping),
        f"{BLOCK}.method": isinstance(block.get("method"), str),
        f"{BLOCK}.module": isinstance(block.get("module", ""), str),
        f"{BLOCK}.preprocessing": preprocessing is not None,
        f"{BLOCK}.preprocessing.image_size": isinstance(size, (list, tuple))
        and len(size) == 2
        and all(_is_count(side) and 0 < side <= _LARGEST_SIDE for side in size),
        **{
            f"{BLOCK}.preprocessing.{name}": isinstance(
                values := (preprocessing or {}).get(name, [0.0] * 3), (list, tuple)
            )
            and len(values) == 3
            and all(isinstance(value, float) for value in values)
            for name in ("mean", "std")
        },
        **{
            f"{BLOCK}.preprocessing.{name}": isinstance((preprocessing or {}).get(name, ""), str)
            for name in ("interpolation", "resizer")
        },
        f"{BLOCK}.preprocessing.intensity_range": isinstance(ranges, Mapping)
        and all(isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in ranges.values()),
        f"{BLOCK}.identities": isinstance(block.get("identities", []), (list, tuple))
        and all(isinstance(identity, int) for identity in block.get("identities", [])),
        f"{BLOCK}.dataset": dataset is not None,
        **{
            f"{BLOCK}.dataset.{name}": isinstance((dataset or {}).get(name), (str, type(None)))
            for name in ("name", "fingerprint", "distance")
        },
        f"{BLOCK}.dataset.trial": (dataset or {}).get("trial") is None or _is_count((dataset or {})["trial"]),
        f"{BLOCK}.training": training is not None,
    }
    if wrong := next((name for name, is_right in checks.items() if not is_right), None):
        raise VIReIDError(
            f"{path} is no checkpoint that vireid-lightning wrote: its entry '{wrong}' is missing, or is not what it "
            "should be; give the file as training left it."
        )


def _get_mapping(block: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    """Return a dictionary of a checkpoint's block, an empty one where it is missing, None where it is none."""
    found = block.get(name)
    return {} if found is None else found if isinstance(found, Mapping) else None


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


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
