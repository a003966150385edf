"""Training and testing one config several times: what ``vireid trials`` and ``vireid seeds`` share.

Each run is its own ``lightning fit`` process, which also scores the whole table, and writes to a folder of its own. A
run that has its results is skipped; one that was stopped goes on from its last checkpoint.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from vireid_lightning.errors import VIReIDError

_MOST = 1000  # runs of one command


@dataclass(frozen=True)
class Repetition:
    """What differs between the runs.

    Attributes:
        name: What the number of a run is of, such as ``trial``.
        option: The option that lists the numbers, for messages.
        settings: Returns the arguments of ``lightning fit`` that make the run of a number.
        is_run: Returns whether the content of a result file is that of the run of a number.
    """

    name: str
    option: str
    settings: Callable[[int], Sequence[str]]
    is_run: Callable[[Mapping[str, Any], int], bool]


def add_common_arguments(parser: argparse.ArgumentParser, repetition: Repetition) -> None:
    """Declare the arguments that do not depend on what is repeated."""
    parser.add_argument(
        "--config", action="append", required=True, help="config file of the experiment; may be given several times"
    )
    parser.add_argument(
        "--output",
        type=Path,
        help=f"folder for all {repetition.name}s (default: runs/<name of the first config>)",
    )
    parser.add_argument(
        "overrides",
        nargs=argparse.REMAINDER,
        help=f"further arguments of `lightning fit` for every {repetition.name}, after `--`",
    )


def run_all(arguments: argparse.Namespace, numbers: Sequence[int], repetition: Repetition) -> list[Path]:
    """Run the numbers one after another, and return the result file of each.

    Raises:
        VIReIDError: If a run fails; finished ones are kept.
    """
    output: Path = arguments.output or Path("runs") / Path(arguments.config[0]).stem
    title = repetition.name.capitalize()
    results = []
    for place, number in enumerate(numbers, start=1):
        folder = output / f"{repetition.name}_{number}"
        if (done := find_results(folder, number, repetition)) is not None:
            print(f"{title} {number} ({place} of {len(numbers)}): finished before, {done}")
            results.append(done)
            continue
        print(f"{title} {number} ({place} of {len(numbers)}): {folder}", flush=True)
        overrides = [item for item in arguments.overrides if item != "--"]
        command = build_fit_command(arguments.config, number, folder, overrides, repetition)
        if (code := subprocess.run(command, check=False).returncode) != 0:
            raise VIReIDError(
                f"{title} {number} ended with exit code {code}; its own message stands above. Mend it and run the "
                f"same command again: finished {repetition.name}s are skipped."
            )
        if (done := find_results(folder, number, repetition)) is None:
            raise VIReIDError(
                f"{title} {number} ended before its last weights were scored; leave out what ends it early "
                "(fast_dev_run)."
            )
        results.append(done)
    return results


def parse_numbers(text: str, option: str) -> list[int]:
    """Return the numbers of a text such as ``1-3,7``, sorted, each once.

    Raises:
        VIReIDError: If the text makes no sense; names the option.

    Example:
        >>> parse_numbers("1-3,7", "--trials")
        [1, 2, 3, 7]
    """
    numbers: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not _is_number(first) or (dash and not _is_number(last)):
            raise VIReIDError(f"{option} is '{text}'; give numbers such as 1-10 or 1,3,5.")
        listed = range(int(first), int(last or first) + 1)
        if len(listed) + len(numbers) > _MOST:
            raise VIReIDError(f"{option} is '{text}', more than {_MOST} runs; give fewer.")
        numbers.update(listed)
    if not numbers:
        raise VIReIDError(f"{option} is '{text}', an empty range; give numbers such as 1-10 or 1,3,5.")
    return sorted(numbers)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 19


def find_results(folder: Path, number: int, repetition: Repetition) -> Path | None:
    """Return the newest result file of a test of a run's last weights, or None.

    Results of the best weights, of other runs, of validations and those that are marked as mismatched, which may lie
    beside it, do not count.
    """
    from vireid_lightning.metrics.result_files import read_result_file

    for path in sorted(folder.glob("version_*/**/results*.json"), key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            content = read_result_file(path)
        except VIReIDError:  # cut short, or another program's
            continue
        is_finished = content.get("stage") == "test" and content.get("checkpoint_kind") == "last"
        is_mismatch = any(content.get(f"{mark}_mismatch") for mark in ("trial", "dataset", "preprocessing"))
        if is_finished and not is_mismatch and repetition.is_run(content, number):
            return path
    return None


def build_fit_command(
    configs: Sequence[str], number: int, folder: Path, overrides: Sequence[str], repetition: Repetition
) -> list[str]:
    """Return the command that trains and tests one run, going on from its newest last checkpoint if it has one."""
    logger = [{"class_path": "CSVLogger", "init_args": {"save_dir": str(folder.parent), "name": folder.name}}]
    command = [sys.executable, "-m", "vireid_lightning", "fit"]
    trainers = [content.get("trainer") for content in read_configs(configs)]
    # In place of the configs' own logger; overlays that add one (`logger+`) come after it.
    last = max(
        (place for place, trainer in enumerate(trainers) if isinstance(trainer, dict) and "logger" in trainer),
        default=len(configs) - 1,
    )
    for place, config in enumerate(configs):
        command += ["--config", config]
        if place == last:
            command.append(f"--trainer.logger={json.dumps(logger)}")
    checkpoints = sorted(folder.glob("version_*/checkpoints/last.ckpt"), key=lambda path: path.stat().st_mtime)
    if checkpoints:
        command += ["--ckpt_path", str(checkpoints[-1])]
    # Last, since a run is finished only when the table of its own number is there, whatever the config says.
    return [*command, *overrides, *repetition.settings(number), "--test_after_fit=true"]


def read_configs(configs: Sequence[str]) -> list[dict[str, Any]]:
    """Return the contents of config files.

    Raises:
        VIReIDError: If one is missing, cannot be read, or holds no settings.
    """
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
