"""The tables of the quickstarts, each run as a user runs it: ``lightning fit --config experiments/quickstart*.yaml``.

Two tables of all protocols, of MPANet from random weights and from ImageNet's, and one of the methods side by side from
random weights: the same network, images of 96 x 48 pixels and budget, one seed. Scores are of 64 persons that training
has not seen, the last weights, in per cent. The number of threads, by default PyTorch's, changes how sums are rounded.

Run: python tests/benchmarks/quickstarts.py [--output runs/quickstarts]    (some half an hour on 2 cores)
     python tests/benchmarks/quickstarts.py --table                        (writes docs/figures/quickstart*.json)
     python tests/benchmarks/quickstarts.py --quick                        (a step of everything: does it run?)
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parents[1])]

from benchmarks.evidence import ROOT, format_table, write_table
from benchmarks.runs import Runs

#: Config and further words of every run.
RUNS: dict[str, tuple[str, list[str]]] = {
    "quickstart": ("quickstart", []),
    "quickstart_pretrained": ("quickstart_pretrained", []),
    "Baseline": ("quickstart_baseline", []),
    "AGW": ("quickstart_agw", []),
    "DCLNet": ("quickstart_dclnet", []),
}
#: Methods side by side, and the run of each.
METHODS = {"Baseline": "Baseline", "AGW": "AGW", "DCLNet": "DCLNet", "MPANet": "quickstart"}

#: What the scores stand under in ``results.json``, and the titles of the columns.
SCORES = {"rank1": "Rank-1", "rank10": "Rank-10", "rank20": "Rank-20", "mAP": "mAP", "mINP": "mINP"}
DEFAULT = "all/single/official"

QUICK = [
    *("--data.dataset.init_args.identities", "10", "--data.dataset.init_args.val_identities", "4"),
    *("--data.dataset.init_args.test_identities", "4", "--data.dataset.init_args.images", "1"),
    *("--trainer.max_epochs", "2", "--trainer.check_val_every_n_epoch", "2", "--data.steps_per_epoch", "1"),
    *("--data.images_per_modality", "1"),
]


def train(*, config: str, words: list[str], folder: Path) -> dict[str, Any]:
    """Run a quickstart in a folder and return its scores by protocol."""
    command = [
        *(sys.executable, "-m", "vireid_lightning", "fit", "--config", str(ROOT / "experiments" / f"{config}.yaml")),
        *words,
    ]
    place = folder / "-".join([config, *("".join(filter(str.isalnum, word)) for word in words)])
    place.mkdir(parents=True, exist_ok=True)
    (place / "synthetic").unlink(missing_ok=True)
    (folder / "synthetic").mkdir(exist_ok=True)
    (place / "synthetic").symlink_to(folder.resolve() / "synthetic")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\nended with {done.returncode}:\n{done.stdout}{done.stderr}")
    (found,) = place.glob("runs/*/version_0/checkpoints/results.json")
    results = json.loads(found.read_text(encoding="utf-8"))["results"]
    return {"scores": {row["protocol"]: {name: row["scores"][name] for name in SCORES} for row in results}}


def main(words: list[str] | None = None) -> Runs:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/quickstarts"))
    parser.add_argument("--table", action="store_true", help="write the tables of what is finished, and train nothing")
    parser.add_argument("--quick", action="store_true", help="a step of everything, to see that it runs")
    options = parser.parse_args(words)
    runs, found = Runs(options.output), {}
    for name, (config, more) in RUNS.items():
        settings = {"config": config, "words": [*more, *(QUICK if options.quick else [])]}
        done = runs.find(name, settings)
        if done is None and not options.table:
            done = runs.do(name, settings, train, folder=options.output)
        if done is not None:
            found[name] = done["scores"]
    about: dict[str, Any] = {
        "command": "python tests/benchmarks/quickstarts.py",
        "code": [
            "experiments",
            *(f"vireid_lightning/{part}" for part in ("methods", "modules", "losses", "data", "metrics")),
        ],
        "settings": {name: {"config": config, "words": more} for name, (config, more) in RUNS.items()},
        "formats": ".2f",
    }
    if options.quick:
        about["folder"] = options.output / "tables"
    for name in ("quickstart", "quickstart_pretrained"):
        if name in found:
            rows = {protocol: [[value] for value in scores.values()] for protocol, scores in found[name].items()}
            columns = ["Protocol", *SCORES.values()]
            print(format_table(write_table(name.replace("_", "-"), columns=columns, rows=rows, **about)))
    rows = {
        name: [[found[run][DEFAULT][score]] for score in ("rank1", "mAP")]
        for name, run in METHODS.items()
        if run in found
    }
    print(format_table(write_table("quickstart-methods", columns=["", "Rank-1", "mAP"], rows=rows, **about)))
    return runs


@pytest.mark.benchmark
def test_every_quickstart_is_scored(tmp_path):
    runs = main(["--quick", "--output", str(tmp_path)])
    assert all(runs.find(name, {"config": config, "words": words + QUICK}) for name, (config, words) in RUNS.items())


if __name__ == "__main__":
    main()
