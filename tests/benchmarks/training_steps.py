"""The table of what training steps cost, at the papers' size or another, from ``vireid benchmark``.

Run by hand: python tests/benchmarks/training_steps.py [--precisions float32 bfloat16] [--loop] [--write]; it hands all
but ``--write`` on to ``vireid benchmark --size paper``. Nothing else should run on the machine. A table for each
precision, ``steps-PRECISION``, with the options of a step in its name and another size, and one with the profile of
every method: the operators that take at least 1 % of a bare step more than in as many bare passes.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

from benchmarks.evidence import FIGURES, add_write_option, format_table, name_command, write_table

from vireid_lightning.cli import vireid

COLUMNS = ["Step", "Seconds", "Passes", "To bare", "Processor time, to bare", "Memory, MiB", "To bare", "Waits"]
OPTIONS = ("images_per_pass", "gradient_checkpointing", "compile")
CODE = ["methods", "modules", "losses", "cli/step_costs.py", "cli/loop_costs.py", "cli/tools/benchmark.py"]


def tabulate(measured: dict[str, Any]) -> tuple[list[str], dict[str, list[list[float] | str]], list[str]]:
    """Return columns, rows and formats of one precision."""
    looped = any("loop_ratio" in row for row in measured["rows"])
    rows = {}
    for row in measured["rows"]:
        loop = [[row["loop_seconds"]], [row["loop_ratio"]]] if "loop_ratio" in row else [[], []]
        cells = [row["seconds"], row["bare_passes"], row["ratio"], row["cpu_ratio"], row["memory_mib"]]
        cells += [row["memory_ratio"], sum(row["waits"].values())]
        rows[row["name"]] = [*([cell] for cell in cells), *(loop if looped else [])]
    formats = [".2f", ".0f", ".2f", ".2f", ",.0f", ".2f", ".0f", *([".2f", ".2f"] if looped else [])]
    return [*COLUMNS, *(["Loop, s", "To the step"] if looped else [])], rows, formats


def tabulate_profile(measured: dict[str, Any]) -> dict[str, list[list[float] | str]]:
    """Return, for each method, which operators take at least 1 % of a bare step beyond as many bare passes."""
    rows: dict[str, list[list[float] | str]] = {}
    for row in measured["rows"][1:]:
        whole = row["bare_profiled_seconds"]
        shares = {name: 100 * seconds / whole for name, seconds in row["beyond_bare"].items()}
        told = [f"{name.removeprefix('aten::')} {share:+.1f}" for name, share in shares.items() if abs(share) >= 1]
        rows[row["name"]] = [[sum(shares.values())], ", ".join(told) or "none"]
    return rows


def main(words: list[str] | None = None) -> list[dict[str, Any]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_write_option(parser)
    options, rest = parser.parse_known_args(words)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "figures.json"
        vireid(["benchmark", "--size", "paper", *rest, "--output", str(path)])
        found = json.loads(path.read_text(encoding="utf-8"))
    tables = []
    for measured in found["measurements"]:
        about: dict[str, Any] = {
            "command": name_command(__file__, words),
            "code": ["tests/benchmarks/training_steps.py", *(f"vireid_lightning/{part}" for part in CODE)],
            "settings": {key: value for key, value in measured.items() if key != "rows"},
            "count": None,
            "folder": FIGURES if options.write else None,
        }
        columns, rows, formats = tabulate(measured)
        used = [option.replace("_", "-") for option in OPTIONS if measured[option]]
        used += [measured["size"]] if measured["size"] != "paper" else []
        name = "-".join(["steps", measured["precision"], *used])
        tables.append(write_table(name, columns=columns, rows=rows, formats=formats, **about))
        columns = ["Step", "All operators, % of a bare step", "Of these, each 1 % or more"]
        profile = tabulate_profile(measured)
        tables.append(write_table(f"{name}-profile", columns=columns, rows=profile, formats=["+.1f", ""], **about))
    for table in tables:
        print(format_table(table))
    return tables


@pytest.mark.benchmark
def test_steps_and_profiles_are_tabulated():
    small = ["--backbone", "resnet10t", "--image-size", "96", "32", "--batch", "8", "--rounds", "1", "--warmup", "1"]
    steps, profile = main([*small, "--methods", "Baseline", "CMAM", "--precisions", "float32"])
    assert list(steps["rows"]) == ["bare backbone", "Baseline", "CMAM, stage 1", "CMAM, stage 2"]
    assert list(profile["rows"]) == list(steps["rows"])[1:]


if __name__ == "__main__":
    main()
