"""Train and test one model for each trial of a dataset with several splits (RegDB has ten).

Each trial runs as its own ``lightning fit`` process, which also scores the whole table, and writes to
``OUTPUT/trial_N``. A trial that has its results is skipped; one that was stopped goes on from its last checkpoint.
"""

from __future__ import annotations

import argparse
import inspect
from typing import Any

from vireid_lightning.cli.datasets import find_exported
from vireid_lightning.cli.repeated_runs import Repetition, add_common_arguments, parse_numbers, read_configs, run_all
from vireid_lightning.cli.tools.aggregate import aggregate_files
from vireid_lightning.errors import VIReIDError

TRIALS = Repetition(
    "trial",
    "--trials",
    settings=lambda number: [f"--data.dataset.init_args.trial={number}"],
    is_run=lambda content, number: content.get("dataset_trial") == number,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the tool's arguments."""
    parser.add_argument(
        "--trials", default="1-10", help="numbers of the trials, such as 1-10 or 1,3,5 (default: %(default)s)"
    )
    add_common_arguments(parser, TRIALS)


def run(arguments: argparse.Namespace) -> None:
    """Run the trials one after another and score them together.

    Raises:
        VIReIDError: If the trials' numbers or a config cannot be read, or a trial fails; finished ones are kept.
    """
    numbers = parse_numbers(arguments.trials, "--trials")
    _require_trials(read_configs(arguments.config))
    results = run_all(arguments, numbers, TRIALS)
    if len(results) > 1:
        aggregate_files(results)


def _require_trials(contents: list[dict[str, Any]]) -> None:
    """Refuse a dataset of this package that has one split only."""
    for content in reversed(contents):
        data_settings = content.get("data")
        dataset = data_settings.get("dataset") if isinstance(data_settings, dict) else None
        path = dataset.get("class_path") if isinstance(dataset, dict) else dataset
        if path:
            name = str(path).split(".")[-1]
            known = find_exported().get(name)
            if known is not None and "trial" not in inspect.signature(known).parameters:
                raise VIReIDError(
                    f"{name} has one split only, and trials are several splits, as RegDB has them; train it with "
                    "`lightning fit`."
                )
            return
