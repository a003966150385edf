"""Compare a dataset's folder with what its authors published, and say what to do about each fault.

Exit code 0: nothing wrong; 1: faults were found and are listed; 2: there is no such dataset, folder or index file.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from dataclasses import asdict
from typing import TYPE_CHECKING

from vireid_lightning.cli.datasets import open_dataset

if TYPE_CHECKING:
    from vireid_lightning.data.datasets.checks import DatasetReport


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``vireid check-dataset``."""
    names = "SYSUMM01, RegDB, LLCM, SYSUMM02, Market1501, MSMT17 or Manifest"
    parser.add_argument("dataset", metavar="DATASET", help=names)
    parser.add_argument("root", metavar="ROOT", help="the dataset's folder; of a Manifest, the CSV file")
    parser.add_argument("--trial", type=int, help="which split of RegDB, from 1 to 10 (default: 1)")
    parser.add_argument("--direction", help="the direction that a Manifest must allow, such as visible-to-infrared")
    parser.add_argument(
        "--deep", action="store_true", help="decode every image instead of only looking for empty files"
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def run(arguments: argparse.Namespace) -> None:
    """Check the dataset, print the report, and exit with 1 where something is wrong."""
    from vireid_lightning.data.datasets.checks import check_dataset

    parts = {"train": "train", "validation": "val"} if arguments.dataset == "SYSUMM01" else {}  # its three parts apart
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the report says it
        dataset = open_dataset(
            arguments.dataset, arguments.root, trial=arguments.trial, direction=arguments.direction, **parts
        )
    report = check_dataset(dataset, deep=arguments.deep)
    if arguments.json:
        print(json.dumps(asdict(report), indent=2))
    else:
        _show(report)
    if report.faults:
        sys.exit(1)


def _show(report: DatasetReport) -> None:
    """Print the report as a table and a list of faults."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    table = Table(title=f"{report.dataset} in {escape(report.root)}")
    for column in ("Split", "Count", "Camera"):
        table.add_column(column)
    for column in ("Expected", "Found"):
        table.add_column(column, justify="right")
    for count in report.counts:
        camera = "" if count.what == "identities" else {None: "all", -1: "unknown"}.get(count.camera, count.camera)
        differs = count.expected not in (None, count.found)
        table.add_row(
            count.split,
            count.what,
            str(camera),
            "" if count.expected is None else f"{count.expected:,}",
            f"{count.found:,}",
            style="red" if differs else None,
        )
    console.print(table)
    for note in report.notes:
        console.print(f"Note: {note}", markup=False)
    for number, fault in enumerate(report.faults, start=1):
        console.print(f"Fault {number}: {fault.problem}", style="red", markup=False)
        console.print(f"  To do: {fault.remedy}", markup=False)
    if report.decoded:
        console.print(f"Decoded {report.decoded:,} images.")
    if report.fingerprint:
        console.print(f"Fingerprint: {report.fingerprint}")
    console.print(f"Faults: {len(report.faults)}." if report.faults else "No faults.")
