"""Put the results of several methods side by side: methods as rows, protocols as columns.

Result files of one method that differ in seed and trial alone are one row, with their mean and standard deviation. Rows
of drawn images, re-ranked rows, those of another trial or preprocessing than that of the training, and quoted ones say
so.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

from vireid_lightning.errors import VIReIDError
from vireid_lightning.printable import make_printable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the tool's arguments."""
    parser.add_argument(
        "results",
        nargs="+",
        metavar="RESULTS",
        help="results.json files of one dataset; NAME=FILE puts a file into a row of that name",
    )
    parser.add_argument(
        "--measures", default="rank1,mAP", help="measures of each protocol, with commas (default: %(default)s)"
    )
    parser.add_argument(
        "--protocols", help="protocols to compare, with commas (default: those of the files, which must be the same)"
    )
    parser.add_argument(
        "--quoted",
        metavar="FILE.csv",
        help="numbers from elsewhere, with the columns method,protocol,rank1,mAP; their rows are marked as quoted",
    )
    parser.add_argument(
        "--format",
        choices=("table", "markdown", "latex", "csv"),
        default="table",
        help="how the comparison is written; latex needs the package booktabs (default: %(default)s)",
    )
    parser.add_argument("--output", help="write to this file instead of the terminal")
    parser.add_argument("--overwrite", action="store_true", help="replace the output file if it exists")


def run(arguments: argparse.Namespace) -> None:
    """Compare the files and print or write the comparison.

    Raises:
        VIReIDError: For files that cannot be compared, or an output file that exists.
    """
    from rich.console import Console

    from vireid_lightning.files import atomic_write
    from vireid_lightning.metrics.comparison import compare
    from vireid_lightning.metrics.comparison_formats import FORMATS, render_comparison
    from vireid_lightning.metrics.terminal import choose_console

    output = None if arguments.output is None else Path(arguments.output)
    if output is not None and output.is_dir():
        raise VIReIDError(f"{output} is a folder; give --output the name of a file.")
    if output is not None and output.exists() and not arguments.overwrite:
        raise VIReIDError(f"{output} exists; give --overwrite to replace it, or another --output.")
    comparison = compare(
        arguments.results,
        measures=_split(arguments.measures),
        protocols=None if arguments.protocols is None else _split(arguments.protocols),
        quoted=arguments.quoted,
    )
    if arguments.format == "table":
        console = choose_console() if output is None else Console(width=120, file=io.StringIO())
        with console.capture() as captured:
            for table in render_comparison(comparison, console.width):
                console.print(table)
        text = captured.get()
    else:
        text = FORMATS[arguments.format](comparison)
    if output is None:
        print(text if arguments.format == "table" else make_printable(text, keep="\n"), end="")
    else:
        with atomic_write(output) as file:
            file.write(text.encode())
        print(f"Comparison: {output}")


def _split(text: str) -> list[str]:
    """Return the words of a text with commas between them."""
    return [word for part in text.split(",") if (word := part.strip())]
