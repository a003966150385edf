"""Write one HTML page that shows what a model found: scores, curves, a map of its embeddings and rank lists."""

from __future__ import annotations

import argparse
from pathlib import Path

from vireid_lightning.cli.numbers import Number, Whole
from vireid_lightning.cli.report_source import add_source_arguments, collect_source, find_output_folder
from vireid_lightning.errors import VIReIDError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the tool's arguments."""
    add_source_arguments(parser)
    parser.add_argument("--output", help="the .html file to write (default: report.html in the folder of the source)")
    parser.add_argument(
        "--lists", type=Whole(1), default=100, help="number of rank lists in each direction (default: %(default)s)"
    )
    parser.add_argument(
        "--max-mb",
        type=Number(0, above=True),
        default=16,
        help="MiB that the page may take, images and all (default: %(default)s)",
    )


def run(arguments: argparse.Namespace) -> None:
    """Write the page; one that is there already is renamed to the next free of ``report_1.html``, ...

    Raises:
        VIReIDError: If an argument or a file does not fit.
    """
    output = Path(arguments.output) if arguments.output else find_output_folder(arguments) / "report.html"
    if output.is_dir() or output.suffix.lower() not in (".html", ".htm"):
        raise VIReIDError(f"--output is {output}; give the name of an .html file.")
    content = collect_source(arguments, lists=arguments.lists)
    from vireid_lightning.report import write_report

    kept = write_report(output, content, max_mb=arguments.max_mb)
    print(f"Report: {output}" + (f" (the earlier one: {kept.name})" if kept else ""))
