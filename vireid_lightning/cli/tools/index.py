"""Build an index for searching a gallery of millions of images in milliseconds.

The index is approximate: which share of the exact search's first 10 ranks it finds is measured before it is written.
Needs faiss: `pip install vireid-lightning[faiss]`.
"""

from __future__ import annotations

import argparse

from vireid_lightning.cli.networks import require_new
from vireid_lightning.cli.numbers import Number


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the tool's arguments."""
    parser.add_argument("gallery", metavar="GALLERY.npz", help="the gallery, written by `vireid embed`")
    parser.add_argument("-o", "--output", required=True, metavar="FILE.npz", help="index to write; never overwritten")
    parser.add_argument(
        "--recall",
        type=Number(0, 1, above=True),
        default=0.99,
        help="share of the exact search's first 10 ranks that must be found (default: %(default)s)",
    )
    parser.add_argument(
        "--sample",
        metavar="FILE.npz",
        help="embeddings of typical queries, on which the recall is measured (default: gallery images)",
    )


def run(arguments: argparse.Namespace) -> None:
    """Build the index, print its recall, and write it."""
    output = require_new(arguments.output, "--output", ".npz")
    from vireid_lightning.deployment import Gallery, GalleryIndex
    from vireid_lightning.metrics.embeddings import Embeddings

    gallery = Gallery.load(arguments.gallery)
    sample = None if arguments.sample is None else Embeddings.load(arguments.sample)
    index = GalleryIndex.build(gallery, recall=arguments.recall, sample=sample)
    index.save(output)
    about = index.about
    print(
        f"Index of {len(gallery):,} images in {about['lists']:,} lists, {about['probes']:,} of which are looked into: "
        f"{100 * about['recall']:.2f} % of the exact search's first 10 ranks on {about['queries']:,} queries"
    )
    print(f"Written to {output}")
