"""Whether two runs of a method are one: two threads, the same config, every logged number and every weight compared.

Each method is trained twice by ``lightning fit`` from its quickstart, cut to a few steps with a validation, with and
without ``experiments/overlays/deterministic.yaml``. Where a GPU is, ``--accelerator gpu`` trains there; with the
overlay PyTorch chooses kernels that always add in the same order.

Run: python tests/benchmarks/determinism.py [--threads 2] [--accelerator cpu] [--methods MPANet CMAM]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parents[1])]

from benchmarks.evidence import ROOT

CONFIGS = {
    "Baseline": "quickstart_baseline",
    "AGW": "quickstart_agw",
    "DCLNet": "quickstart_dclnet",
    "MPANet": "quickstart",
    "MMGL": "quickstart_mmgl",
    "CMAM": "quickstart_cmam",
}

SMALL = [
    *("--data.dataset.init_args.identities", "12", "--data.dataset.init_args.val_identities", "4"),
    *("--data.dataset.init_args.test_identities", "4", "--data.dataset.init_args.images", "2"),
    *("--data.identities_per_batch", "4", "--data.images_per_modality", "2", "--data.steps_per_epoch", "4"),
    *("--trainer.check_val_every_n_epoch", "1", "--data.cache_dir", "cache"),
]
EPOCHS = ["--trainer.max_epochs", "2"]
STAGES = [
    *("--model.init_args.source.steps", "4", "--model.init_args.source.warmup_steps", "1"),
    *("--model.init_args.source.constant_steps", "2"),
    *("--model.init_args.target.dbscan_steps", "0", "--model.init_args.target.kmeans_steps", "4"),
    *("--model.init_args.target.warmup_steps", "1", "--model.init_args.target.clusters", "6"),
    *("--data.source.dataset.init_args.identities", "12", "--data.source.dataset.init_args.images", "2"),
    *("--data.source.identities_per_batch", "4", "--trainer.max_epochs", "3"),
]


def train(method: str, folder: Path, *, threads: int, accelerator: str, deterministic: bool) -> Path:
    """Train in a folder and return the run's own."""
    overlay = ["--config", str(ROOT / "experiments/overlays/deterministic.yaml")] if deterministic else []
    command = [
        *(sys.executable, "-m", "vireid_lightning", "fit"),
        *("--config", str(ROOT / "experiments" / f"{CONFIGS[method]}.yaml"), *overlay, *SMALL),
        *(STAGES if method == "CMAM" else EPOCHS),
        *("--trainer.accelerator", accelerator),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\nended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return sorted(folder.glob("runs/*/version_*"))[-1]


def compare(first: Path, second: Path) -> dict[str, int]:
    """Return how many logged numbers and how many weights two runs have, and how many of them differ."""
    logs = [(run / "metrics.csv").read_text(encoding="utf-8").splitlines() for run in (first, second)]
    pairs = [
        (one, other) for lines in zip(*logs, strict=True) for one, other in zip(*(line.split(",") for line in lines))
    ]
    states = [
        torch.load(run / "checkpoints/last.ckpt", weights_only=True, map_location="cpu")["state_dict"]
        for run in (first, second)
    ]
    return {
        "numbers": sum(bool(one) for one, _ in pairs),
        "numbers that differ": sum(one != other for one, other in pairs),
        "weights": sum(value.numel() for value in states[0].values()),
        "weights that differ": sum(int((value != states[1][name]).sum()) for name, value in states[0].items()),
    }


def main(words: list[str] | None = None) -> dict[tuple[str, bool], dict[str, int]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2, help="threads of each run (default: 2)")
    parser.add_argument("--accelerator", default="cpu", help="cpu or gpu (default: cpu)")
    parser.add_argument("--methods", nargs="+", default=list(CONFIGS), choices=list(CONFIGS))
    options = parser.parse_args(words)
    found = {}
    print("| Method | deterministic.yaml | logged numbers | differ | weights | differ |\n|---|---|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        for method in options.methods:
            for deterministic in (False, True):
                place = Path(folder) / f"{method}-{deterministic}"
                place.mkdir()
                settings = {"threads": options.threads, "accelerator": options.accelerator}
                runs = [train(method, place, deterministic=deterministic, **settings) for _ in range(2)]
                found[method, deterministic] = row = compare(*runs)
                print(
                    f"| {method} | {'yes' if deterministic else 'no'} | {' | '.join(map(str, row.values()))} |",
                    flush=True,
                )
    return found


@pytest.mark.benchmark
def test_two_runs_are_one():
    for row in main(["--methods", "MPANet"]).values():
        assert row["numbers"] > 20
        assert row["numbers that differ"] == row["weights that differ"] == 0


if __name__ == "__main__":
    main()
