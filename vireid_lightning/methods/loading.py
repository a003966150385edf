"""Rebuild a method from its checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar, overload

import torch
from torch import Tensor, nn

from vireid_lightning.errors import VIReIDError
from vireid_lightning.methods.arguments import argument_names
from vireid_lightning.methods.base import ReIDModule
from vireid_lightning.methods.checkpoint import BLOCK, read_checkpoint
from vireid_lightning.modules.own_network import import_path
from vireid_lightning.modules.timm_creation import is_own

_Method = TypeVar("_Method", bound=ReIDModule)


@overload
def load_method(path: str | Path, *, backbone: type[nn.Module] | None = None) -> ReIDModule: ...
@overload
def load_method(path: str | Path, method: type[_Method], *, backbone: type[nn.Module] | None = None) -> _Method: ...


def load_method(
    path: str | Path, method: type[ReIDModule] | None = None, *, backbone: type[nn.Module] | None = None
) -> ReIDModule:
    """Rebuild the method that a checkpoint holds, in eval mode on the CPU.

    Args:
        path: The checkpoint.
        method: Class of the method; needed for one that is not of this package. A checkpoint never decides what is
            imported: by its name alone only the methods of this package are found.
        backbone: Class of the backbone; needed for one of your own, and only then.

    Raises:
        VIReIDError: If the file is no checkpoint of this package, or it holds another method or another backbone.

    Example:
        >>> model = load_method("runs/quickstart/version_0/checkpoints/best.ckpt")  # doctest: +SKIP
        >>> mine = load_method("runs/mine/checkpoints/best.ckpt", method=MyMethod)  # doctest: +SKIP
        >>> embeddings = model.embed(images, modality)  # doctest: +SKIP
    """
    checkpoint = read_checkpoint(path)
    name = checkpoint[BLOCK]["method"]
    if method is None:
        known = _find_own_methods()
        # Checkpoints of earlier versions do not say the module.
        if name not in known or checkpoint[BLOCK].get("module", known[name].__module__) != known[name].__module__:
            raise VIReIDError(
                f"{path} holds the method '{name}', which is none of this package's ({', '.join(known)}); import its "
                f"class and load it with load_method(path, method={name})."
            )
        method = known[name]
    elif method.__name__ != name:
        raise VIReIDError(f"{path} holds the method '{name}', not {method.__name__}; give method={name}.")
    if "hyper_parameters" not in checkpoint:
        raise VIReIDError(f"{path} does not hold the arguments of {name}, which rebuild it; give another file.")
    arguments = dict(method.upgrade_arguments(checkpoint["hyper_parameters"]))
    accepted = argument_names(method)
    if unknown := [argument for argument in arguments if argument not in accepted]:
        raise VIReIDError(
            f"{path} holds the argument '{unknown[0]}', which {name} does not have; load it as it was written."
        )
    if backbone is not None:
        if arguments.get("backbone") != import_path(backbone):
            raise VIReIDError(
                f"{path} holds the backbone '{arguments.get('backbone')}', not {import_path(backbone)}; give its own "
                "class, or none where it is timm's."
            )
        arguments["backbone"] = backbone
    elif is_own(name := arguments.get("backbone")):
        raise VIReIDError(
            f"{path} holds the backbone '{name}', which is none of timm's; import its class and load the checkpoint "
            f"with load_method(path, backbone={str(name).rpartition('.')[2]})."
        )
    if backbone is None and not isinstance(arguments.get("backbone", ""), str):
        raise VIReIDError(f"{path} holds a backbone without a name; give the file as training left it.")
    try:
        module = method(**arguments)
    except VIReIDError as error:
        raise VIReIDError(f"{path} cannot be rebuilt: {error}") from error
    _load_state(path, module, checkpoint["state_dict"])
    module.on_load_checkpoint(checkpoint)
    return module.eval()


def _find_own_methods() -> dict[str, type[ReIDModule]]:
    """Return the methods of this package, all of which are imported with it, by the names of their classes."""
    package = __name__.rpartition(".")[0]
    found = [cls for cls in ReIDModule.__subclasses__() if cls.__module__.startswith(f"{package}.")]
    return {cls.__name__: cls for cls in found}


def _load_state(path: str | Path, module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load a state dict into a module that it fits by name, shape and kind of its tensors.

    Raises:
        VIReIDError: Names the file and the first tensor that does not fit.
    """
    target = module.state_dict()
    problem = None
    for name, value in state.items():
        if not isinstance(name, str):
            problem = f"holds the tensor {name}, which is none of it"
            break
        if (wanted := target.get(name)) is None:
            continue
        is_kind = value.layout == torch.strided and not value.is_meta and not value.is_complex()
        is_whole = is_kind and value.numel() * value.element_size() <= value.untyped_storage().nbytes()
        if not is_whole or value.is_floating_point() != wanted.is_floating_point():
            problem = f"has {name} as {value.dtype} of shape {tuple(value.shape)}, not {tuple(wanted.shape)}"
            break
        if (
            value.is_floating_point()
            and not bool(torch.isfinite(value.float().sum()))
            and not bool(value.isfinite().all())
        ):
            problem = f"has values in {name} that are NaN or infinite"
            break
    if problem is None:
        # Modules may take the state dict of an older version, or of other shapes: what does not fit, they say.
        try:
            missing, unexpected = module.load_state_dict(state, strict=False)
        except RuntimeError as error:
            problem = "has other shapes: " + str(error).splitlines()[-1].strip().rstrip(".")
        else:
            if missing:
                problem = f"lacks the tensor {missing[0]}"
            elif unexpected:
                problem = f"holds the tensor {unexpected[0]}, which is none of it"
    if problem:
        raise VIReIDError(
            f"{path} does not fit {type(module).__name__}: it {problem}; give the file as training left it."
        )
