"""Convert weights that a paper's authors released into a checkpoint of this package.

The result is tested with `lightning test --config experiments/METHOD_DATASET.yaml --ckpt_path OUTPUT.ckpt`, and other
methods start from it with `init_from`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from vireid_lightning.cli.numbers import Whole
from vireid_lightning.errors import VIReIDError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the tool's arguments."""
    parser.add_argument("file", metavar="FILE", help="the file that the authors released")
    parser.add_argument("output", metavar="OUTPUT.ckpt", help="the checkpoint to write; never overwritten")
    parser.add_argument(
        "--method",
        required=True,
        metavar="METHOD",
        help="the method that the weights belong to; an unknown name lists the possible ones",
    )
    parser.add_argument(
        "--image-size",
        nargs=2,
        type=Whole(1, 8192),
        metavar=("HEIGHT", "WIDTH"),
        help="image size that the weights were trained on (default: the authors', with --trial theirs for RegDB)",
    )
    parser.add_argument(
        "--trial",
        type=Whole(1),
        help="the trial of RegDB, from 1 to 10, that the weights were trained on; other trials then refuse them",
    )


def run(arguments: argparse.Namespace) -> None:
    """Convert one file."""
    from vireid_lightning.data.datasets.regdb import RANDOM_SPLITS
    from vireid_lightning.methods.released.catalogue import release_of
    from vireid_lightning.methods.released.importing import import_checkpoint, write_checkpoint

    output = Path(arguments.output).expanduser()
    if output.exists():
        raise VIReIDError(f"{output} exists and is never overwritten; remove it or give another name.")
    release = release_of(arguments.method)
    if arguments.trial is not None and not 1 <= arguments.trial <= RANDOM_SPLITS:
        raise VIReIDError(f"--trial is {arguments.trial}; RegDB has the trials 1 to {RANDOM_SPLITS}.")
    module = import_checkpoint(arguments.file, arguments.method)
    write_checkpoint(module, output, release, image_size=arguments.image_size, trial=arguments.trial)
    print(f"Written to {output}.")
