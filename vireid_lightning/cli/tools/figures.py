"""Write figures for a paper: CMC and ROC curves, histograms, a map of embeddings, training curves and rank lists."""

from __future__ import annotations

import argparse
from pathlib import Path

from vireid_lightning.cli.numbers import Whole
from vireid_lightning.cli.report_source import add_source_arguments, collect_source, find_output_folder
from vireid_lightning.errors import VIReIDError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the tool's arguments."""
    add_source_arguments(parser)
    parser.add_argument("--output", help="folder of the figures (default: figures in the folder of the source)")
    parser.add_argument(
        "--figures",
        nargs="+",
        metavar="NAME",
        help="figures to write, among cmc, roc, pairs, map, training and ranks (default: all)",
    )
    parser.add_argument(
        "--formats", nargs="+", default=["pdf", "png"], metavar="FORMAT", help="pdf, png or svg (default: pdf png)"
    )
    parser.add_argument(
        "--dpi", type=Whole(30, 2400), default=300, help="dots per inch of images (default: %(default)s)"
    )
    parser.add_argument(
        "--queries", nargs="+", default=[], metavar="PATH", help="queries whose rank lists are drawn, by their paths"
    )
    parser.add_argument(
        "--lists",
        type=Whole(1),
        default=6,
        help="number of rank lists in each direction where no queries are named (default: %(default)s)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace figures that exist")


def run(arguments: argparse.Namespace) -> None:
    """Write the figures.

    Raises:
        VIReIDError: If an argument or a file does not fit.
    """
    output = Path(arguments.output) if arguments.output else find_output_folder(arguments) / "figures"
    if output.exists() and not output.is_dir():
        raise VIReIDError(f"--output is {output}, which is a file; give a folder.")
    content = collect_source(arguments, lists=arguments.lists, queries=arguments.queries)
    from vireid_lightning.report import write_figures
    from vireid_lightning.report.figures import KINDS

    written = write_figures(
        output,
        content,
        kinds=arguments.figures or KINDS,
        formats=arguments.formats,
        dpi=arguments.dpi,
        overwrite=arguments.overwrite,
    )
    for path in written:
        print(f"Figure: {path}")
