"""Checkpoints that stand on their own: Lightning's, plus a block that rebuilds the method without its config.

The block lies under the key ``vireid``: ``method`` (class name), ``preprocessing``, ``identities`` (the dataset's
numbers in class order) and ``dataset`` (name, trial, fingerprint). Files are read with ``weights_only=True``: nothing
in a checkpoint is executed.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from vireid_lightning import __version__
from vireid_lightning.errors import VIReIDError

if TYPE_CHECKING:
    from vireid_lightning.methods.base import ReIDModule

BLOCK = "vireid"
FORMAT = 1

#: Constructor arguments that say where weights came from. A checkpoint holds the weights, so rebuilding must not look
#: for those files again.
_SOURCES = {"pretrained": False, "weights": None, "init_from": None}


def describe_run(checkpoint: dict[str, Any], module: ReIDModule) -> None:
    """Add the self-describing block to a Lightning checkpoint that is being written."""
    arguments = checkpoint.setdefault("hyper_parameters", dict(module.hparams))
    arguments.update({name: value for name, value in _SOURCES.items() if name in arguments})
    datamodule = getattr(module._trainer, "datamodule", None)
    block: dict[str, Any] = {"format": FORMAT, "version": __version__, "method": type(module).__name__}
    if datamodule is not None and hasattr(datamodule, "preprocessing"):
        dataset = datamodule.dataset
        block["preprocessing"] = dict(datamodule.preprocessing)
        block["identities"] = list(datamodule.identities)
        block["dataset"] = {"name": dataset.name, "trial": dataset.trial, "fingerprint": datamodule.fingerprint}
    checkpoint[BLOCK] = block


def load_weights_file(path: str | Path, allow: Sequence[Any] = ()) -> Any:
    """Read a torch file without executing anything in it.

    Args:
        path: The file.
        allow: Classes beyond tensors and plain values that the file may hold.

    Raises:
        VIReIDError: If there is no such file, it is no torch file, or it holds objects that would have to run code.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise VIReIDError(f"There is no checkpoint at {path}; give the path of an existing file.")
    try:
        with torch.serialization.safe_globals(list(allow)):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "Unsupported global" in str(error) or "GLOBAL" in str(error):
            raise VIReIDError(
                f"{path} holds objects that would run code when loaded and was refused; save plain tensors "
                "(a state dict) and numbers instead."
            ) from error
        raise VIReIDError(f"{path} is not a checkpoint: it is no file that torch.save writes.") from error
    except (RuntimeError, OSError, EOFError, LookupError, ValueError, TypeError, struct.error) as error:
        raise VIReIDError(f"{path} is not a checkpoint, or it is cut short: {error}") from error


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


def method_class(checkpoint: dict[str, Any], path: str | Path) -> type[ReIDModule]:
    """Return the class of the method that wrote a checkpoint."""
    from vireid_lightning import methods

    name = checkpoint[BLOCK]["method"]
    if name not in methods.__all__:
        raise VIReIDError(
            f"{path} holds the method '{name}', which is none of this package's ({', '.join(methods.__all__)}); "
            f"load it with its own class, {name}.load_from_checkpoint."
        )
    return getattr(methods, name)


def load_method(path: str | Path) -> ReIDModule:
    """Rebuild the method that a checkpoint holds, in eval mode on the CPU.

    Example:
        >>> model = load_method("runs/mpanet_sysu/checkpoints/best.ckpt")  # doctest: +SKIP
        >>> embeddings = model.embed(images, modality)  # doctest: +SKIP
    """
    checkpoint = read_checkpoint(path)
    module = method_class(checkpoint, path)(**checkpoint["hyper_parameters"])
    module.load_state_dict(checkpoint["state_dict"])
    module.on_load_checkpoint(checkpoint)
    return module.eval()
