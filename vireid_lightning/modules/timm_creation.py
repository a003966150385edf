"""timm's networks by their names, with their weights."""

from __future__ import annotations

from typing import Any

import timm
from timm.layers.drop import DropPath
from torch import nn

from vireid_lightning.errors import VIReIDError, did_you_mean
from vireid_lightning.modules.weights import read_weights


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
        weights: What :func:`~vireid_lightning.modules.weights.read_weights` takes; None is the name's tag.
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
    found = read_weights(weights, name)
    # custom_load tells the format of the tag's own weights, not of these.
    return create(
        name, pretrained=True, pretrained_cfg_overlay={"state_dict": found, "custom_load": False}, **arguments
    )
