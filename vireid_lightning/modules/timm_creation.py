"""timm's networks by their names, with their weights."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers.drop import DropPath
from timm.models import load_state_dict
from torch import Tensor, nn

from vireid_lightning.errors import VIReIDError, did_you_mean


def is_own(name: object) -> bool:
    """Return whether a backbone's name is the import path of a user's own class, as a checkpoint holds it."""
    return isinstance(name, str) and ":" not in name and not timm.is_model(name)


def find_family(name: str) -> str:
    """Return the module of timm that defines a model, such as ``swin_transformer``.

    Raises:
        VIReIDError: If timm has no such model, or the name asks timm to read a network from elsewhere.
    """
    if ":" in name:
        raise VIReIDError(
            f"The backbone is '{name}', which would have timm read a network from elsewhere; give a plain name of "
            "timm's, and a file of its weights as weights."
        )
    if not timm.is_model(name):
        raise VIReIDError(
            f"timm has no model named '{name}'.{did_you_mean(name.split('.')[0], timm.list_models())} "
            "`python -c 'import timm; print(timm.list_models())'` lists all names. A network of your own is given by "
            "its class, on the command line by the class's import path."
        )
    family: str = timm.models.model_entrypoint(name).__module__.rpartition(".")[2]
    return family


def require_weights_file(name: str, weights: str | None) -> None:
    """Refuse a path at which there is no file, before a network is built."""
    if weights is not None and not Path(weights).expanduser().is_file():
        raise VIReIDError(f"There is no weights file at {weights}; give the path of a state dict of '{name}'.")


def create(name: str, *, drop_path: float | None = None, **arguments: Any) -> nn.Module:
    """Create a network of timm's with random weights.

    Raises:
        VIReIDError: If timm has no such weights tag, or the network has no stochastic depth and ``drop_path`` asks for
            it. What else the network's constructor raises is the caller's to explain.
    """
    if drop_path is not None:
        arguments["drop_path_rate"] = drop_path
    without = VIReIDError(f"'{name}' has no stochastic depth; leave backbone_settings.drop_path out.")
    try:
        network: nn.Module = timm.create_model(name, **arguments)
    except RuntimeError as error:
        if "pretrained tag" in str(error) and not arguments.get("pretrained"):
            tags = timm.list_models(f"{name.split('.')[0]}.*", pretrained=True)
            raise VIReIDError(f"{error}{did_you_mean(name, tags)} timm has {', '.join(tags) or 'none'}.") from error
        raise
    except TypeError as error:
        if "drop_path_rate" in str(error):
            raise without from error
        raise
    if drop_path and not any(isinstance(part, DropPath) and part.drop_prob for part in network.modules()):
        raise without
    return network


def create_pretrained(name: str, weights: str | None, **arguments: Any) -> nn.Module:
    """Create a network with the weights of a local file, or with those that timm downloads or has in its cache.

    Args:
        name: A timm model name, with or without a tag of pretrained weights.
        weights: Local file with a timm state dict of the model; None takes those of the name's tag.
        **arguments: What :func:`create` takes.

    Raises:
        VIReIDError: If the weights cannot be loaded.
    """
    if weights is None:
        try:
            return create(name, pretrained=True, **arguments)
        except Exception as error:
            raise VIReIDError(
                f"The pretrained weights of '{name}' could not be loaded ({type(error).__name__}: {error}). Without a "
                "network, give a local file as weights, or pretrained: false for random weights."
            ) from error
    path = str(Path(weights).expanduser())
    try:
        # custom_load tells the format of the tag's own weights, not of this file.
        overlay = {"file": path, "custom_load": False}
        network = create(name, pretrained=True, pretrained_cfg_overlay=overlay, **arguments)
        found = load_state_dict(path)
    except Exception as error:
        raise VIReIDError(
            f"{weights} could not be loaded as weights of '{name}' ({type(error).__name__}: {error}); give a timm "
            "state dict of that model as .safetensors or .pth."
        ) from error
    missing = _not_found(network, found)
    if missing:
        raise VIReIDError(
            f"{weights} has no weights for {len(missing)} tensors of '{name}', the first being {missing[0]}; give a "
            "timm state dict of that model."
        )
    return network


def _not_found(network: nn.Module, found: dict[str, Tensor]) -> list[str]:
    """Return the names of the network's weights that are not in a file's state dict.

    timm renames what it reads and skips what is missing, so values are compared, not names.
    """
    by_size: dict[int, list[Tensor]] = defaultdict(list)
    for value in found.values():
        if isinstance(value, Tensor):
            by_size[value.numel()].append(value.flatten().float())
    weights = ((name, value.detach().flatten()) for name, value in network.named_parameters() if value.ndim > 1)
    return [name for name, value in weights if not any(torch.equal(value, other) for other in by_size[value.numel()])]
