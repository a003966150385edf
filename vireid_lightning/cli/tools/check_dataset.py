"""Compare a dataset's folder with what its authors published, and say what to do about each fault.

Exit code 0: nothing wrong; 1: faults were found and are listed; 2: there is no such dataset, folder or index file.
"""

from __future__ import annotations

import argparse
import inspect
import json
import sys
import warnings
from dataclasses import asdict
from typing import TYPE_CHECKING

from vireid_lightning.cli.datasets import add_dataset_arguments, choose_dataset, list_datasets, open_dataset

if TYPE_CHECKING:
    from vireid_lightning.data.datasets.report import DatasetReport


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``vireid check-dataset``."""
    names = f"the dataset's class: {', '.join(list_datasets())}, or one of your own with its module, my_data.MyDataset"
    parser.add_argument("dataset", metavar="DATASET", nargs="?", help=names)
    parser.add_argument("root", metavar="ROOT", nargs="?", help="the dataset's folder; for a Manifest, its CSV file")
    add_dataset_arguments(parser)
    parser.add_argument("--deep", action="store_true", help="decode every image, and find constant and duplicate ones")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def run(arguments: argparse.Namespace) -> None:
    """Check the dataset, print the report, and exit with 1 where something is wrong."""
    from vireid_lightning.data.datasets.checks import check_dataset

    cls, given = choose_dataset(arguments)
    taken = inspect.signature(cls).parameters  # a class that is derived from another may take fewer arguments
    options = {name: value for name, value in cls.check_options.items() if name in taken}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the report says the same
        # Results carry the fingerprint of the split that a config has, or that of the defaults.
        configured = open_dataset(cls, given)
        dataset = open_dataset(cls, {**given, **options}) if options else configured
    report = check_dataset(dataset, deep=arguments.deep, configured=configured)
    if arguments.json:
        print(json.dumps(asdict(report), indent=2))
    else:
        _print_report(report)
    if report.faults:
        sys.exit(1)


def _print_report(report: DatasetReport) -> None:
    """Print the report as a table and a list of faults."""
    from rich.console import Console
    from rich.table import Table

    from vireid_lightning.metrics.terminal import to_text

    console = Console()
    table = Table(title=to_text(f"{report.dataset} in {report.root}", "table.title"))
    for column in ("Split", "Count", "Camera"):
        table.add_column(column)
    for column in ("Expected", "Found"):
        table.add_column(column, justify="right")
    for count in report.counts:
        camera = "" if count.what == "identities" else {None: "all", -1: "unknown"}.get(count.camera, count.camera)
        differs = count.expected not in (None, count.found)
        table.add_row(
            *(to_text(cell) for cell in (count.split, count.what, camera)),
            "" if count.expected is None else f"{count.expected:,}",
            f"{count.found:,}",
            style="red" if differs else None,
        )
    console.print(table)
    for note in report.notes:
        console.print(to_text(f"Note: {note}"))
    for number, fault in enumerate(report.faults, start=1):
        console.print(to_text(f"Fault {number}: {fault.problem}", "red"))
        console.print(to_text(f"  To do: {fault.remedy}"))
    for modality, bits in report.bits.items():
        counts = ", ".join(f"{number} ({count:,} images)" for number, count in bits.items())
        console.print(f"Bits of {modality} values: {counts}.", highlight=False)
    if report.decoded:
        console.print(f"Decoded {report.decoded:,} images.")
    if report.fingerprint:
        console.print(f"Fingerprint: {report.fingerprint}")
    console.print(f"Faults: {len(report.faults)}." if report.faults else "No faults.")
