"""Fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path

# Before torch is imported, and for the processes that tests start: the networks are tiny, where threads cost more than
# they save, and sums in one thread are the same on every machine.
os.environ["OMP_NUM_THREADS"] = "1"
# Logging to W&B never leaves the machine in a test.
os.environ["WANDB_MODE"] = "offline"

import pytest
import torch


@pytest.fixture(autouse=True)
def _deterministic():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with the benchmarks' real index files; tests that need it are skipped where it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent")
    return folder
