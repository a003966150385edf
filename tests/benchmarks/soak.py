"""Whether memory stays flat over a long training: resident memory of the trainer and of the processes that load.

Trains as a user does, by ``lightning fit``, on synthetic pedestrians with a tiny network, validating every fifth epoch,
for ``--minutes``. Every two seconds the resident memory of each process is read (/proc, Linux alone). Shown are medians
over tenths of the time. The first two tenths are the warm-up; from there to the end a process is flat if it grows by
less than 1 % and 8 MiB: libraries keep pools that grow by a block now and then, a leak grows with every step.

Run: python tests/benchmarks/soak.py [--minutes 30] [--method MPANet]
     python tests/benchmarks/soak.py --quick      (a minute: does it run?)
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

PAGE_MIB = os.sysconf("SC_PAGE_SIZE") / 2**20 if hasattr(os, "sysconf") else 0.0

#: Largest growth after the warm-up that counts as flat: a share of the memory, and MiB.
GROWTH_SHARE, GROWTH_MIB = 0.01, 8.0

#: Config and arguments of a method that does not train by `quickstart.yaml`. CMAM has ten epochs of stage 1, and then
#: stage 2.
CONFIGS = {
    "CMAM": (
        "quickstart_cmam.yaml",
        [
            *("--model.source.steps", "200", "--model.source.kl_weights", "[0.02]", "--model.target.clusters", "40"),
            *("--model.target.kmeans_steps", "2000000", "--trainer.max_epochs", "100010"),
        ],
    )
}


def read_memory(pid: int) -> dict[str, float]:
    """Return the resident MiB of a process, and of each process that it started, largest first."""
    resident = {}
    for name, number in [("trainer", pid), *((f"loader {k}", child) for k, child in enumerate(list_children(pid), 1))]:
        try:
            resident[name] = int(Path(f"/proc/{number}/statm").read_text().split()[1]) * PAGE_MIB
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended between the two looks
    return resident


def list_children(pid: int) -> list[int]:
    """Return the processes that any thread of a process started."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*"):
        try:
            found += map(int, (task / "children").read_text().split())
        except (FileNotFoundError, ProcessLookupError):
            continue
    return sorted(found)


def sample(method: str, minutes: float, folder: Path) -> list[tuple[float, dict[str, float]]]:
    """Train for so many minutes; return the seconds and the memory of every look."""
    config, more = CONFIGS.get(method, ("quickstart.yaml", ["--trainer.max_epochs", "-1"]))
    command = [
        *(sys.executable, "-m", "vireid_lightning", "fit", "--config", str(ROOT / "experiments" / config)),
        *("--model", method, "--model.backbone", "test_resnet", "--model.pretrained", "false"),
        *("--model.optimization.schedule", "constant", "--model.optimization.warmup_epochs", "0"),
        *("--data.image_size", "[96, 48]", "--data.num_workers", "2", "--data.steps_per_epoch", "20"),
        *("--data.dataset.init_args.identities", "40", "--data.dataset.init_args.test_identities", "8"),
        *(*more, "--trainer.check_val_every_n_epoch", "5"),
        *("--trainer.max_time", f"00:{int(minutes // 60):02d}:{int(minutes % 60):02d}:{int(minutes * 60 % 60):02d}"),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    looks, begun = [], time.perf_counter()
    with (folder / "output.txt").open("w") as output:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=output)
        # What follows the training, its test, is not part of it.
        while process.poll() is None and (spent := time.perf_counter() - begun) < 60 * minutes:
            looks.append((spent, read_memory(process.pid)))
            time.sleep(2)
        process.wait()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}\n{(folder / 'output.txt').read_text()}")
    return looks


def tabulate(looks: list[tuple[float, dict[str, float]]]) -> dict[str, list[float]]:
    """Return the median memory of every process in each tenth of the time; none where it was not there."""
    length = looks[-1][0] + 1e-9
    rows: dict[str, list[list[float]]] = {}
    for spent, memory in looks:
        for name, value in memory.items():
            rows.setdefault(name, [[] for _ in range(10)])[int(10 * spent / length)].append(value)
    return {name: [statistics.median(part) if part else float("nan") for part in parts] for name, parts in rows.items()}


def is_flat(medians: list[float]) -> bool:
    """Return whether a process grows by no more than a pool does, from the third tenth of the time to the last."""
    kept = [value for value in medians[2:] if value == value]
    return not kept or kept[-1] - kept[0] < max(GROWTH_SHARE * kept[0], GROWTH_MIB)


def main(words: list[str] | None = None) -> dict[str, list[float]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--method", default="MPANet")
    parser.add_argument("--quick", action="store_true", help="a minute, to see that it runs")
    options = parser.parse_args(words)
    if not Path("/proc/self/statm").exists():
        raise SystemExit("The memory of processes is read from /proc, which this system does not have.")
    with tempfile.TemporaryDirectory() as folder:
        looks = sample(options.method, 1.0 if options.quick else options.minutes, Path(folder))
    rows = tabulate(looks)
    print(f"{options.method}, {looks[-1][0] / 60:.0f} minutes, MiB in each tenth of the time\n")
    print("| Process |" + "".join(f" {number} |" for number in range(1, 11)) + " |\n|---|" + "---:|" * 10 + "---|")
    for name, medians in rows.items():
        values = "".join(f" {value:.0f} |" for value in medians)
        print(f"| {name} |{values} {'flat' if is_flat(medians) else 'GROWS'} |")
    return rows


def test_a_leak_is_told_from_a_pool():
    assert is_flat([100.0, 400.0, 500.0, 500.5, 501.0, 500.0, 502.0, 503.0, 503.0, 504.0])
    assert not is_flat([100.0, 400.0, 500.0, 504.0, 508.0, 512.0, 516.0, 520.0, 524.0, 528.0])


@pytest.mark.benchmark
def test_memory_is_read():
    assert main(["--quick"])["trainer"][-1] > 100


if __name__ == "__main__":
    main()
