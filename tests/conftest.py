"""Fixtures that every test may use."""

from __future__ import annotations

import os
import sys
from pathlib import Path

# Before torch is imported, and for the processes that tests start: the networks are tiny, where threads cost more than
# they save, and sums in one thread are the same on every machine.
os.environ["OMP_NUM_THREADS"] = "1"
# Logging to W&B never leaves the machine in a test.
os.environ["WANDB_MODE"] = "offline"
# Charts are drawn into memory, without a display.
os.environ["MPLBACKEND"] = "Agg"

import pytest
import torch
from references.data_folder import TEST_DATA


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    # `-m "not slow"` takes the place of the default `-m "not benchmark and not long"`, and must leave out all three.
    for item in items:
        if item.get_closest_marker("benchmark") or item.get_closest_marker("long"):
            item.add_marker("slow")


@pytest.fixture(autouse=True, scope="session")
def _elsewhere(tmp_path_factory):
    """Tests run in a folder of their own: what a Trainer without ``default_root_dir`` writes, it writes there."""
    start = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("working_folder"))
    yield
    os.chdir(start)


@pytest.fixture(autouse=True)
def _deterministic():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _no_wandb_run_is_left_open():
    yield
    # The next logger of this process would take an open run up, and W&B's own process would write below this test's
    # working folder.
    if "wandb" in sys.modules:
        sys.modules["wandb"].teardown()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with the benchmarks' real index files; tests that need it are skipped where it is absent."""
    if not TEST_DATA.is_dir():
        pytest.skip(f"{TEST_DATA} is absent; VIREID_TEST_DATA names the folder of the benchmarks' index files")
    return TEST_DATA
