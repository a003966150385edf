"""What it is worth that a process keeps the memory that it frees (``vireid_lightning.host_memory``).

Run by hand: python tests/benchmarks/kept_memory.py [--rounds 3] [--write]. Nothing else should run on the machine. The
bare ResNet-50 embeds 32 images of 384 x 128, takes a training step of them without an optimiser, and one of three
passes before a backward pass, as CMAM's stage 1 does. Each has a process of its own, with and without, in turns.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import pytest

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

from benchmarks.evidence import FIGURES, add_write_option, format_table, name_command, write_table

SUBJECTS = {"embedding": 0, "training step": 1, "step of three passes": 3}


def measure(passes: int, keep: bool, backbone: str, size: tuple[int, int], images: int) -> dict[str, float]:
    """Return the median seconds of three steps after two, the page faults of the last and the process's peak memory."""
    import torch

    from vireid_lightning.cli.step_costs import BareBackbone, draw_batch
    from vireid_lightning.host_memory import keep_freed_memory

    if keep and not keep_freed_memory():
        raise SystemExit("Freed memory cannot be kept here: the environment says how memory is allocated, or no glibc.")
    batch = draw_batch(size, images // 4, 2, torch.device("cpu"))
    network = BareBackbone(backbone).train(passes > 0)
    seconds, faults = [], 0
    for _ in range(5):
        start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        if passes:
            sum(network.training_step(batch, 0) for _ in range(passes)).backward()
        else:
            with torch.inference_mode():
                network.training_step(batch, 0)
        seconds.append(time.perf_counter() - start)
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": median(seconds[2:]), "faults": faults, "peak": peak}


def run_apart(*arguments: object) -> dict[str, float]:
    """Measure in a process of its own."""
    command = [sys.executable, __file__, "--measure", json.dumps(arguments)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


def main(words: list[str] | None = None) -> dict[str, list[list[float]]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--size", type=int, nargs=2, default=(384, 128), help="height and width of the images")
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    add_write_option(parser)
    options = parser.parse_args(words)
    if options.measure is not None:
        print(json.dumps(measure(*json.loads(options.measure))))
        return {}
    rows: dict[str, list[list[float]]] = {}
    for name, passes in SUBJECTS.items():
        given, kept = [], []
        for _ in range(options.rounds):
            for keep, found in ((False, given), (True, kept)):
                found.append(run_apart(passes, keep, options.backbone, tuple(options.size), options.images))
        ratios = [one["seconds"] / other["seconds"] for one, other in zip(given, kept, strict=True)]
        cells = [
            median(each[key] for each in found) for key in ("seconds", "faults", "peak") for found in (given, kept)
        ]
        rows[name] = [*([cell] for cell in cells[:2]), [median(ratios)], *([cell] for cell in cells[2:])]
    table = write_table(
        "kept-memory",
        columns=["", "Given back, s", "Kept, s", "Times faster", "Page faults", "kept", "Peak, MiB", "kept"],
        rows=rows,
        formats=[".2f", ".2f", ".2f", ",.0f", ",.0f", ",.0f", ",.0f"],
        command=name_command(__file__, words),
        code=["tests/benchmarks/kept_memory.py", "vireid_lightning/host_memory.py"],
        settings={key: value for key, value in vars(options).items() if key not in ("write", "measure")},
        count=None,
        folder=FIGURES if options.write else None,
    )
    print(format_table(table))
    return rows


@pytest.mark.benchmark
def test_figures_are_printed():
    rows = main(["--rounds", "1", "--backbone", "resnet10t", "--size", "64", "32", "--images", "8"])
    assert list(rows) == list(SUBJECTS)


if __name__ == "__main__":
    main()
