"""Train and test one method with several seeds, to tell its mean and deviation.

Each seed runs as its own ``lightning fit`` process, which also scores the whole table, and writes to
``OUTPUT/seed_N``. A seed that has its results is skipped; one that was stopped goes on from its last checkpoint.
"""

from __future__ import annotations

import argparse
from typing import Any

from vireid_lightning.cli.repeated_runs import Repetition, add_common_arguments, parse_numbers, read_configs, run_all
from vireid_lightning.cli.tools.aggregate import aggregate_files
from vireid_lightning.errors import VIReIDError

SEEDS = Repetition(
    "seed",
    "--seeds",
    settings=lambda number: [f"--seed_everything={number}"],
    is_run=lambda content, number: (content.get("training") or {}).get("seed") == number,
)

_LARGEST = 2**32 - 1  # that NumPy takes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the tool's arguments."""
    parser.add_argument("--seeds", default="0-4", help="seeds, such as 0-4 or 1,3,5 (default: %(default)s)")
    add_common_arguments(parser, SEEDS)


def run(arguments: argparse.Namespace) -> None:
    """Run the seeds one after another and score them together.

    Raises:
        VIReIDError: If the seeds or a config cannot be read, the data has a seed of its own, or a run fails; finished
            ones are kept.
    """
    numbers = parse_numbers(arguments.seeds, "--seeds")
    if numbers[-1] > _LARGEST:
        raise VIReIDError(f"--seeds has {numbers[-1]}; give seeds up to {_LARGEST}.")
    _require_free_seed(arguments.config, read_configs(arguments.config), arguments.overrides)
    results = run_all(arguments, numbers, SEEDS)
    if len(results) > 1:
        aggregate_files(results)


def _require_free_seed(configs: list[str], contents: list[dict[str, Any]], overrides: list[str]) -> None:
    """Refuse a seed of the data's own, with which all runs would draw the same batches."""
    for config, content in zip(configs, contents):
        data = content.get("data")
        if isinstance(data, dict) and data.get("seed") is not None:
            raise VIReIDError(
                f"{config} sets data.seed to {data['seed']}, and every run would draw the same batches; leave it out."
            )
    if any(word.partition("=")[0] == "--data.seed" for word in overrides):
        raise VIReIDError("--data.seed makes every run draw the same batches; leave it out.")
