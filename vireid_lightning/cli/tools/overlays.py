"""Draw what a method sees in a query and a gallery image: their similarity, and the method's own parts or patterns."""

from __future__ import annotations

import argparse
from pathlib import Path

from vireid_lightning.cli.numbers import Whole
from vireid_lightning.errors import VIReIDError
from vireid_lightning.types import MODALITIES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the tool's arguments."""
    parser.add_argument("checkpoint", help="a checkpoint of a training run, of a method of this package")
    for side in ("query", "gallery"):
        parser.add_argument(
            f"--{side}",
            nargs=2,
            required=True,
            metavar=("MODALITY", "IMAGE"),
            help=f"modality and file of the {side} image, such as infrared a.jpg",
        )
    parser.add_argument("--output", required=True, help="the .png, .pdf or .svg file to write")
    parser.add_argument(
        "--dpi", type=Whole(30, 2400), default=300, help="dots per inch of images (default: %(default)s)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the file to write where it exists")


def run(arguments: argparse.Namespace) -> None:
    """Write the figure.

    Raises:
        VIReIDError: If an argument or a file does not fit.
    """
    output = Path(arguments.output)
    if output.suffix.lower() not in (".png", ".pdf", ".svg"):
        raise VIReIDError(f"--output is {output}; give the name of a .png, .pdf or .svg file.")
    if output.exists() and not arguments.overwrite:
        raise VIReIDError(f"{output} exists; give --overwrite to replace it, or another --output.")
    pair = []
    for side in ("query", "gallery"):
        modality, path = getattr(arguments, side)
        if modality not in MODALITIES:
            raise VIReIDError(f"--{side} names the modality '{modality}'; give {' or '.join(MODALITIES)}.")
        pair.append((path, MODALITIES.index(modality)))
    from vireid_lightning.report.requirements import require_packages

    require_packages("matplotlib")
    from vireid_lightning.files import atomic_write
    from vireid_lightning.methods import load_method
    from vireid_lightning.methods.checkpoint import BLOCK, read_checkpoint
    from vireid_lightning.report.charts import plain_style
    from vireid_lightning.report.overlays import draw_overlays

    preprocessing = read_checkpoint(arguments.checkpoint)[BLOCK].get("preprocessing") or {}
    with plain_style():
        figure = draw_overlays(load_method(arguments.checkpoint), preprocessing, pair)
        with atomic_write(output) as file:
            figure.savefig(file, format=output.suffix[1:].lower(), dpi=arguments.dpi)
    print(f"Figure: {output}")
