"""Train and test one model for each trial of a dataset with several splits (RegDB has ten).

Each trial runs as its own ``lightning fit`` process, which also scores the whole table, and writes to
``OUTPUT/trial_N``. A trial that has its results is skipped; one that was stopped goes on from its last checkpoint.
"""

from __future__ import annotations

import argparse
import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from vireid_lightning.cli.datasets import find_exported
from vireid_lightning.errors import VIReIDError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the tool's arguments."""
    parser.add_argument(
        "--config", action="append", required=True, help="config file of the experiment; may be given several times"
    )
    parser.add_argument(
        "--trials", default="1-10", help="numbers of the trials, such as 1-10 or 1,3,5 (default: %(default)s)"
    )
    parser.add_argument("--output", type=Path, help="folder for all trials (default: runs/<name of the first config>)")
    parser.add_argument(
        "overrides", nargs=argparse.REMAINDER, help="further arguments of `lightning fit` for every trial, after `--`"
    )


def run(arguments: argparse.Namespace) -> None:
    """Run the trials one after another and score them together.

    Raises:
        VIReIDError: If the trials' numbers or a config cannot be read, or a trial fails; finished ones are kept.
    """
    from vireid_lightning.cli.tools.aggregate import aggregate_files

    trials = parse_trials(arguments.trials)
    _require_trials(_read_configs(arguments.config))
    output: Path = arguments.output or Path("runs") / Path(arguments.config[0]).stem
    for number, trial in enumerate(trials, start=1):
        folder = output / f"trial_{trial}"
        if (done := find_results(folder, trial)) is not None:
            print(f"Trial {trial} ({number} of {len(trials)}): finished before, {done}")
            continue
        print(f"Trial {trial} ({number} of {len(trials)}): {folder}", flush=True)
        command = build_fit_command(
            arguments.config, trial, folder, [item for item in arguments.overrides if item != "--"]
        )
        if (code := subprocess.run(command, check=False).returncode) != 0:
            raise VIReIDError(
                f"Trial {trial} ended with exit code {code}; its own message stands above. Mend it and run the same "
                "command again: finished trials are skipped."
            )
        if find_results(folder, trial) is None:
            raise VIReIDError(
                f"Trial {trial} ended before its last weights were scored; leave out what ends it early (fast_dev_run)."
            )
    results = [path for trial in trials if (path := find_results(output / f"trial_{trial}", trial)) is not None]
    if len(results) > 1:
        aggregate_files(results)


def parse_trials(text: str) -> list[int]:
    """Return the trial numbers of a text such as ``1-3,7``, sorted, each once.

    Example:
        >>> parse_trials("1-3,7")
        [1, 2, 3, 7]
    """
    numbers: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise VIReIDError(f"--trials is '{text}'; give numbers such as 1-10 or 1,3,5.")
        numbers.update(range(int(first), int(last or first) + 1))
    if not numbers:
        raise VIReIDError(f"--trials is '{text}', an empty range; give numbers such as 1-10 or 1,3,5.")
    return sorted(numbers)


def find_results(folder: Path, trial: int) -> Path | None:
    """Return the newest result file of a test of a trial's last weights on that trial, or None.

    Results of the best weights, of other trials and of validations, which may lie beside it, do not count.
    """
    wanted = {"stage": "test", "checkpoint_kind": "last", "dataset_trial": trial}
    for path in sorted(folder.glob("version_*/**/results*.json"), key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:  # cut short, or another program's
            continue
        if not isinstance(content, dict):
            continue
        if all(content.get(name) == value for name, value in wanted.items()) and not content.get("trial_mismatch"):
            return path
    return None


def build_fit_command(configs: list[str], trial: int, folder: Path, overrides: list[str]) -> list[str]:
    """Return the command that trains and tests one trial, going on from its newest last checkpoint if it has one."""
    logger = [{"class_path": "CSVLogger", "init_args": {"save_dir": str(folder.parent), "name": folder.name}}]
    command = [sys.executable, "-m", "vireid_lightning", "fit"]
    trainers = [content.get("trainer") for content in _read_configs(configs)]
    # In place of the configs' own logger; overlays that add one (`logger+`) come after it.
    last = max(
        (number for number, trainer in enumerate(trainers) if isinstance(trainer, dict) and "logger" in trainer),
        default=len(configs) - 1,
    )
    for number, config in enumerate(configs):
        command += ["--config", config]
        if number == last:
            command.append(f"--trainer.logger={json.dumps(logger)}")
    command.append(f"--data.dataset.init_args.trial={trial}")
    checkpoints = sorted(folder.glob("version_*/checkpoints/last.ckpt"), key=lambda path: path.stat().st_mtime)
    if checkpoints:
        command += ["--ckpt_path", str(checkpoints[-1])]
    # Last, since a trial is finished only when its table is there, whatever the config says.
    return [*command, *overrides, "--test_after_fit=true"]


def _read_configs(configs: list[str]) -> list[dict[str, Any]]:
    """Return the contents of config files."""
    contents = []
    for config in configs:
        try:
            content = yaml.safe_load(Path(config).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise VIReIDError(
                f"There is no config file {config}; give --config the path of an existing YAML file."
            ) from None
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise VIReIDError(f"The config {config} cannot be read: {' '.join(str(error).split())}.") from error
        if not isinstance(content, dict):
            raise VIReIDError(
                f"The config {config} holds no settings; give an experiment, such as those in experiments/."
            )
        contents.append(content)
    return contents


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
