"""Search a gallery for the persons of query images.

A rank list is a suggestion to be checked by a person, not a proof of identity.
"""

from __future__ import annotations

import argparse
import json
import sys

from vireid_lightning.cli.networks import add_network_arguments, open_embedder, require_new
from vireid_lightning.cli.numbers import Whole
from vireid_lightning.errors import VIReIDError
from vireid_lightning.printable import make_printable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the tool's arguments."""
    parser.add_argument(
        "--gallery",
        required=True,
        metavar="FILE.npz",
        help="embeddings, written by `vireid embed` or `lightning predict`",
    )
    parser.add_argument(
        "--query",
        required=True,
        nargs="+",
        metavar="IMAGE",
        help="query images: files, folders, patterns or CSV files, as for `vireid embed`",
    )
    parser.add_argument("--modality", help="visible or infrared: what all queries are of which no CSV file says it")
    parser.add_argument(
        "--among",
        metavar="MODALITY",
        help="visible or infrared: which of the gallery's images to search (default: all)",
    )
    parser.add_argument(
        "-k", type=Whole(1), default=10, help="gallery images to list for each query (default: %(default)s)"
    )
    parser.add_argument("--checkpoint", help="the network, where it is no longer where the gallery says")
    parser.add_argument("--distance", help="cosine or euclidean, for a gallery that does not say (default: cosine)")
    parser.add_argument("--index", metavar="FILE.npz", help="search by this index, which `vireid index` wrote")
    parser.add_argument("--json", action="store_true", help="print a line of JSON for each query instead of tables")
    parser.add_argument("--html", metavar="FILE.html", help="also write a page with the images; never overwritten")
    parser.add_argument(
        "--root", help="folder of the gallery's images, for --html (default: where they were when embedded)"
    )
    add_network_arguments(parser)


def run(arguments: argparse.Namespace) -> None:
    """Embed the queries, search, and print or write the rank lists."""
    page = None if arguments.html is None else require_new(arguments.html, "--html", ".html")
    from vireid_lightning.deployment import Gallery, GalleryIndex
    from vireid_lightning.deployment.image_lists import list_images, parse_modality

    list_images(arguments.query, arguments.modality)
    among = None if arguments.among is None else parse_modality(arguments.among)
    gallery = Gallery.load(arguments.gallery, distance=arguments.distance, modality=among)
    index = None if arguments.index is None else GalleryIndex.load(arguments.index, gallery)
    checkpoint = arguments.checkpoint or gallery.embeddings.about.get("checkpoint")
    if checkpoint is None:
        raise VIReIDError(f"{arguments.gallery} does not name its checkpoint; give it as --checkpoint.")
    embedder = open_embedder(checkpoint, arguments, gallery.distance)
    query = embedder.embed(arguments.query, arguments.modality)
    for problem in embedder.skipped.values():
        print(f"left out: {make_printable(problem)}", file=sys.stderr)
    found = (index or gallery).search(query, arguments.k)
    if page is not None:
        found.write_html(page, embedder.prepare, root=arguments.root)
    if arguments.json:
        for row in found.to_dicts():
            print(json.dumps(row))  # in ASCII: no name in it does anything to a terminal
    else:
        found.print()
    if page is not None:
        print(f"Page: {page}", file=sys.stderr if arguments.json else sys.stdout)
