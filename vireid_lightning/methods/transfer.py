"""``init_from``: hand one model's encoder to another method, another number of identities, other streams."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vireid_lightning.errors import VIReIDError
from vireid_lightning.methods.checkpoint import BLOCK, read_checkpoint

if TYPE_CHECKING:
    from vireid_lightning.methods.base import ReIDModule

_STREAM = re.compile(r"^(backbone\.stages\.\d+\.)(visible|infrared)\.")


def _candidates(name: str) -> list[str]:
    """Return the names under which a source may hold a target's tensor, the first found counts.

    A part of the backbone that exists per modality starts from the source's copy for that modality, else from its
    shared part; a shared part starts from the source's shared part, else from its *visible* copy, because a one-stream
    network is trained from weights of visible images in every paper.
    """
    if match := _STREAM.match(name):
        return [name, name.replace(match.group(0), match.group(1), 1)]
    return [name, re.sub(r"^(backbone\.stages\.\d+\.)", r"\1visible.", name)]


@torch.no_grad()
def initialise_from(module: ReIDModule, path: str | Path) -> str:
    """Copy into ``module`` every encoder tensor that a checkpoint holds under the same name and shape.

    Heads (``module.heads``) keep their fresh weights.

    Returns:
        One line that says what was and was not loaded.

    Raises:
        VIReIDError: If the file is no checkpoint of this package, or no tensor of the backbone matches.
    """
    checkpoint = read_checkpoint(path)
    source: dict[str, Tensor] = checkpoint["state_dict"]
    target = module.state_dict()
    encoder = [name for name in target if not name.startswith(module.heads or ("\0",))]
    loaded, used = [], set()
    for name in encoder:
        for candidate in _candidates(name):
            if candidate in source and source[candidate].shape == target[name].shape:
                target[name].copy_(source[candidate])
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
    fresh = sorted({name.split(".")[0] for name in target if name not in loaded})
    unused = sorted({name.split(".")[0] for name in source if name not in used})
    return (
        f"init_from: {len(loaded)} of {len(encoder)} encoder tensors from {origin}"
        f"{', the single stem from its visible one' if single else ''}; "
        f"fresh: {', '.join(fresh) or 'nothing'}; not used: {', '.join(unused) or 'nothing'}."
    )
