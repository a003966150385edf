"""A user's own network as the parts of a backbone."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vireid_lightning.errors import VIReIDError
from vireid_lightning.files import load_weights_file
from vireid_lightning.modules.trunk import PARTS, BackboneSettings, Trunk

_PROBE = (2, 3, 128, 64)


def import_path(network: type[nn.Module]) -> str:
    """Return the path by which a class is imported."""
    return f"{network.__module__}.{network.__qualname__}"


@torch.no_grad()
def build_own(network: type[nn.Module], settings: BackboneSettings, *, pretrained: bool, weights: str | None) -> Trunk:
    """Build a user's own network, and find out its maps' channels and strides.

    Args:
        network: The class, which is built without arguments. Its attribute ``stages`` holds the five parts.
        settings: How the backbone is built, which is left to the class.
        pretrained: Load the weights of the file ``weights``; without a file those that the class starts from stay.
        weights: Local file with a state dict of the class.

    Raises:
        VIReIDError: If the class does not keep the contract, or the weights cannot be loaded.
    """
    name = import_path(network)
    settings.require_defaults(name, "a network of your own", "token", "patch_stride", "drop_path", "last_stride")
    try:
        module = network()
    except TypeError as error:
        raise VIReIDError(f"{name} cannot be built without arguments ({error}); give all of them defaults.") from error
    if pretrained and weights is not None:
        _load(module, name, weights)
    stages = getattr(module, "stages", None)
    if not isinstance(stages, nn.ModuleList | nn.Sequential) or len(stages) != PARTS:
        raise VIReIDError(
            f"{name} is no backbone: its attribute stages must be an nn.ModuleList of {PARTS} parts, called one after "
            "the other, the first on images (B, 3, H, W), each of which returns a map (B, C, H, W)."
        )
    outside = [key for key, _ in module.named_parameters() if not key.startswith("stages.")]
    if outside:
        raise VIReIDError(f"{name} has parameters outside of its stages, which would not be trained: {outside[0]}.")
    training = module.training
    module.eval()
    x: Any = torch.linspace(-20, 20, math.prod(_PROBE)).sin().view(_PROBE)
    maps: list[Tensor] = []
    for number, stage in enumerate(stages):
        try:
            x = stage(x)
        except Exception as error:
            raise VIReIDError(f"Part {number} of {name} failed on a small image: {error}") from error
        if not isinstance(x, Tensor) or x.ndim != 4 or len(x) != _PROBE[0]:
            raise VIReIDError(f"Part {number} of {name} returned no map (B, C, H, W).")
        maps.append(x)
    module.train(training)
    strides = [_PROBE[2] // part.shape[2] for part in maps]
    signed = bool((maps[-1] < 0).any())
    return Trunk(list(stages), [part.shape[1] for part in maps], strides, PARTS, signed)


def _load(module: nn.Module, name: str, weights: str) -> None:
    state = load_weights_file(Path(weights).expanduser())
    try:
        module.load_state_dict(state)
    except Exception as error:
        raise VIReIDError(
            f"{weights} could not be loaded as weights of {name} ({type(error).__name__}: {error}); give a state dict "
            "of that class, as torch.save writes it."
        ) from error
