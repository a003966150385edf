"""How far losses, gradients and weights of one process and of several are from float64, for every method.

What one process makes of weights that are off by 2^-20 is the measure of what rounding may do: about as much do the
activations of these networks differ from float64 after a forward pass of some twenty roundings of 2^-24 each.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from references.fake_dataset import write_fake_dataset
from references.processes import METHODS, SIZE, run_in_processes

CASES = [(method, norm) for method in METHODS for norm in ("eval", "sync")]
#: Seeds of the changed weights that one process is measured with.
SHIFTS = range(8)


def name_case(method: type, norm: str) -> str:
    return f"{method.__name__} {norm}"


def run_float32(folder: Path, shifts: Sequence[int] = SHIFTS) -> dict[tuple[int, int], Any]:
    """Return what every process of 1, 2 and 4 makes of every case; one also in float64, and of changed weights."""
    root = write_fake_dataset(folder / "fake", SIZE).root
    cases = {name_case(*case): {"method": case[0], "root": root, "norm": case[1]} for case in CASES}
    single = {name: {**case, "dtype": torch.float32} for name, case in cases.items()}
    alone = {f"{name} exact": case for name, case in cases.items()}
    alone |= {f"{name} {shift}": {**case, "shift": shift} for name, case in single.items() for shift in shifts}
    return run_in_processes(folder, lambda processes: {**single, **(alone if processes == 1 else {})})


def measure(parts: Sequence[dict[str, Any]], exact: dict[str, Any]) -> dict[str, list[float]]:
    """Return the relative errors of a run, given each process's results, against those of float64, step by step."""
    steps = range(len(exact["terms"]))
    terms = [
        {name: torch.stack([part["terms"][step][name] for part in parts]).mean() for name in exact["terms"][step]}
        for step in steps
    ]
    return {
        "losses": [compare(terms[step], exact["terms"][step]) for step in steps],
        "gradients": [compare(parts[0]["gradients"][step], exact["gradients"][step]) for step in steps],
        "weights": [compare(parts[0]["weights"], exact["weights"])],
    }


def compare(values: dict[str, Any], exact: dict[str, Any]) -> float:
    ours, theirs = (torch.cat([each[name].double().flatten() for name in exact]) for each in (values, exact))
    return float((ours - theirs).norm() / theirs.norm())
