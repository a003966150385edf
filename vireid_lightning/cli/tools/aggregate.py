"""Compute mean and standard deviation over the result files of several trials or seeds."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vireid_lightning.errors import VIReIDError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the tool's arguments."""
    parser.add_argument("results", nargs="+", help="the results.json files of one method on one dataset")
    parser.add_argument("--output", help="also write the result to this .json file")
    parser.add_argument("--overwrite", action="store_true", help="replace the output file if it exists")


def run(arguments: argparse.Namespace) -> None:
    """Aggregate the files, print the table, and write it where ``--output`` says.

    Raises:
        VIReIDError: For files that do not belong together, or an output file that exists.
    """
    aggregate_files(arguments.results, output=arguments.output, overwrite=arguments.overwrite)


def aggregate_files(
    paths: Sequence[str | Path], *, output: str | Path | None = None, overwrite: bool = False
) -> dict[str, Any]:
    """Aggregate result files, print the table, write it to ``output`` if given, and return it.

    Raises:
        VIReIDError: If the files do not belong together, or ``output`` exists.
    """
    from vireid_lightning.metrics.aggregation import aggregate, render
    from vireid_lightning.metrics.results import write_results
    from vireid_lightning.metrics.terminal import choose_console

    output = None if output is None else Path(output)
    if output is not None and output.exists() and not overwrite:
        raise VIReIDError(f"{output} exists; give --overwrite to replace it, or another --output.")
    aggregated = aggregate(paths)
    choose_console().print(render(aggregated))
    if output is not None:
        write_results(output, aggregated)
        print(f"Results: {output}")
    return aggregated
