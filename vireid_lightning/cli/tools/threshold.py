"""Choose the distance from which on a search says "not in the gallery", and store it with the gallery.

The threshold is measured on images of persons whose identities are known and that the network was not trained on, at a
stated rate of false positives: queries whose person is not in the gallery, and that find an image all the same. It
holds for such cameras and persons, and for a gallery of about as many images; in a larger one false positives are more
frequent.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from vireid_lightning.cli.networks import require_new
from vireid_lightning.cli.numbers import Number
from vireid_lightning.errors import VIReIDError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the tool's arguments."""
    parser.add_argument("gallery", metavar="GALLERY.npz", help="the gallery, written by `vireid embed`")
    parser.add_argument(
        "--validation",
        required=True,
        metavar="FILE.npz",
        help="embeddings with identities by the same network, from `lightning predict` or from `vireid embed` with a "
        "CSV file that has the column identity",
    )
    parser.add_argument(
        "--false-positive-rate",
        type=Number(0, 1, above=True, below=True),
        default=0.01,
        metavar="RATE",
        help="share of queries of persons not in the gallery that may find an image (default: %(default)s)",
    )
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("-o", "--output", metavar="FILE.npz", help="the gallery with its threshold; never overwritten")
    target.add_argument("--in-place", action="store_true", help="store the threshold in the gallery's own file")


def run(arguments: argparse.Namespace) -> None:
    """Choose the thresholds, print their error rates, and write the gallery."""
    in_place = arguments.in_place
    output = Path(arguments.gallery) if in_place else require_new(arguments.output, "--output", ".npz")
    from rich.console import Console

    from vireid_lightning.deployment import Gallery, choose_thresholds
    from vireid_lightning.metrics.embeddings import Embeddings
    from vireid_lightning.metrics.terminal import make_table
    from vireid_lightning.types import MODALITIES

    gallery = Gallery.load(arguments.gallery)
    validation = Embeddings.load(arguments.validation)
    gallery.require_fit(validation)
    kinds = [kind for kind in gallery.embeddings.modality.unique().tolist() if kind in (0, 1)]
    if not kinds:
        raise VIReIDError(f"{arguments.gallery} does not say its images' modalities; embed them with `vireid embed`.")
    found = choose_thresholds(
        validation, arguments.false_positive_rate, distance=gallery.distance, gallery_modalities=kinds
    )
    gallery.embeddings.about |= {"thresholds": {**found, "validation": str(Path(arguments.validation).resolve())}}
    gallery.embeddings.save(output)
    table = make_table("Not in the gallery", f"Measured on {arguments.validation}; {gallery.distance} distance")
    for name in ("Queries", "Threshold", "False pos.", "Missed", "Number", "Gallery"):
        table.add_column(name, justify="left" if name == "Queries" else "right")
    for name in MODALITIES:
        if name not in found:
            continue
        row = found[name]
        missed = "" if row["miss_rate"] is None else f"{100 * row['miss_rate']:.2f} %"
        shares = f"{row['threshold']:.4f}", f"{100 * row['false_positive_rate']:.2f} %", missed
        table.add_row(name, *shares, f"{row['queries']:,}", f"{row['gallery_images']:,}")
    Console().print(table)
    measured = max(found[name]["gallery_images"] for name in MODALITIES if name in found)
    if len(gallery) > 2 * measured:
        print(
            f"The gallery has {len(gallery):,} images, but the threshold was measured among {measured:,}: more of the "
            "queries whose person is not in it will find an image. Measure on more validation images."
        )
    print(f"Stored in {output}")
