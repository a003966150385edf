"""Seconds from the start of a process to the end of the first training step of the quickstart, warm.

Run by hand: OMP_NUM_THREADS=1 python tests/benchmarks/start_speed.py [--runs 5].

`lightning fit --config experiments/quickstart.yaml` is started anew each time, with its drawn images and its image
cache in place, and stopped at the end of the first step. The first run draws and caches, and is not counted. The second
column is the processor time of the main process until then, which other programs disturb less.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import pytest

ROOT = Path(__file__).resolve().parents[2]

#: What the started process runs. It writes the seconds since its start at each moment that the callback sees.
PROGRAM = """
import json, os, sys, time
from vireid_lightning.cli import lightning

begun, moments = float(os.environ["STARTED"]), {}
import lightning.pytorch as pl


class Moments(pl.Callback):
    def note(self, name):
        moments[name] = time.time() - begun, time.process_time()

    def setup(self, *_, **__):
        self.note("set-up begins")

    def on_fit_start(self, *_):
        self.note("set-up ends")

    def on_train_batch_start(self, *_):
        self.note("first batch is there")

    def on_train_batch_end(self, *_):
        self.note("first step ends")
        print(json.dumps(moments), file=sys.stderr, flush=True)
        os._exit(0)


sys.modules["moments"] = sys.modules["__main__"]
lightning(["fit", *sys.argv[1:]])
"""


def start(folder: Path, words: list[str]) -> dict[str, list[float]]:
    """Start the training once; return the seconds of each moment: the clock's, and the processor's."""
    config = ["--config", str(ROOT / "experiments" / "quickstart.yaml"), "--data.cache_dir", str(folder / "cache")]
    callback = ["--trainer.callbacks+", "moments.Moments"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "VIREID_DATA": str(folder), "STARTED": str(time.time())}
    command = [sys.executable, "-c", PROGRAM, *config, *callback, *words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    moments: dict[str, list[float]] = json.loads(done.stderr.splitlines()[-1])
    return moments


def measure(runs: int, words: list[str]) -> dict[str, list[float]]:
    """Print and return the median second of each moment."""
    with tempfile.TemporaryDirectory() as folder:
        start(Path(folder), words)
        rounds = [start(Path(folder), words) for _ in range(runs)]
    medians = {name: [median(each[name][clock] for each in rounds) for clock in (0, 1)] for name in rounds[0]}
    for name, (seconds, processor) in medians.items():
        least, most = (choose(each[name][0] for each in rounds) for choose in (min, max))
        print(f"{name:22}{seconds:6.2f} s ({least:.2f} to {most:.2f}){processor:8.2f} s of the processor")
    return medians


@pytest.mark.benchmark
def test_the_first_step_ends_within_10_seconds():
    few = ["--data.dataset.init_args.identities", "12", "--data.dataset.init_args.test_identities", "4"]
    assert measure(1, few)["first step ends"][0] < 10


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="counted starts (default: %(default)s)")
    measure(parser.parse_args().runs, [])
