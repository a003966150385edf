"""Embed images with a checkpoint's network, for searching.

Images are prepared as the network's training images were, which the checkpoint says. The file that is written is a
gallery for `vireid search`, and is read from Python by `Embeddings.load`.
"""

from __future__ import annotations

import argparse
import sys

from vireid_lightning.cli.networks import add_network_arguments, open_embedder, require_new
from vireid_lightning.printable import make_printable

#: How many files that could not be read are named; the others are counted.
_NAMED = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the tool's arguments."""
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="the network, a file that `lightning fit` wrote")
    parser.add_argument(
        "images",
        metavar="IMAGES",
        nargs="+",
        help="image files, folders with all that is in them, patterns such as 'camera3/*.jpg', or CSV files with the "
        "column path and, if wanted, modality, camera and identity",
    )
    parser.add_argument("-o", "--output", required=True, metavar="FILE.npz", help="file to write; never overwritten")
    parser.add_argument(
        "--modality", help="visible or infrared: what all images are of which no CSV file says it (rgb, ir, thermal)"
    )
    parser.add_argument(
        "--distance",
        help="distance that the embeddings will be compared by, cosine or euclidean (default: that of the dataset that "
        "the network was trained on)",
    )
    parser.add_argument("--quiet", action="store_true", help="show no progress bar")
    add_network_arguments(parser)


def run(arguments: argparse.Namespace) -> None:
    """Embed the images, name those that cannot be read, and write the file."""
    output = require_new(arguments.output, "--output", ".npz")
    from vireid_lightning.deployment.image_lists import list_images

    list_images(arguments.images, arguments.modality)  # before the network is loaded
    embedder = open_embedder(arguments.checkpoint, arguments, arguments.distance)
    embeddings = embedder.embed(arguments.images, arguments.modality, progress=not arguments.quiet)
    embeddings.save(output)
    skipped = list(embedder.skipped.values())
    for problem in skipped[:_NAMED]:
        print(f"left out: {make_printable(problem)}", file=sys.stderr)
    if skipped[_NAMED:]:
        print(f"left out: {len(skipped) - _NAMED} more images that cannot be read", file=sys.stderr)
    print(f"Embeddings of {len(embeddings):,} images, {embeddings.size:,} values each: {output}")
    if skipped:
        print(f"Left out, as they cannot be read: {len(skipped):,} of {len(embeddings) + len(skipped):,} images.")
