"""Networks of checkpoints, for tools that are given one on the command line."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from vireid_lightning.cli.numbers import Whole
from vireid_lightning.cli.own_classes import import_class
from vireid_lightning.errors import VIReIDError

if TYPE_CHECKING:
    from vireid_lightning.deployment import Embedder


def add_network_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of a tool that embeds images."""
    parser.add_argument(
        "--method",
        metavar="MODULE.CLASS",
        help="class of a method of your own, such as my_method.MyMethod; the package's are known by the checkpoint",
    )
    parser.add_argument("--device", help="where to compute, cpu or cuda (default: a GPU where there is one)")
    parser.add_argument(
        "--batch-size",
        type=Whole(1),
        default=64,
        help="images that pass through the network at once (default: %(default)s)",
    )


def open_embedder(path: str, arguments: argparse.Namespace, distance: str | None = None) -> Embedder:
    """Return the embedder of a checkpoint, as the arguments of :func:`add_network_arguments` ask for it."""
    from vireid_lightning.deployment import Embedder
    from vireid_lightning.methods import ReIDModule

    method = None if arguments.method is None else import_class(arguments.method, ReIDModule)
    return Embedder.from_checkpoint(
        path, method, distance=distance, device=arguments.device, batch_size=arguments.batch_size
    )


def require_new(path: str | Path, option: str, suffix: str) -> Path:
    """Return the path of a file to write that must not exist.

    Raises:
        VIReIDError: It exists, is a folder, or has another suffix.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        raise VIReIDError(f"{path} is a folder; give {option} the name of a {suffix} file.")
    if path.suffix != suffix:
        raise VIReIDError(f"{option} is {path}; give it a name that ends with {suffix}.")
    if path.exists():
        raise VIReIDError(f"{path} exists and is never overwritten; remove it or give {option} another name.")
    return path
