"""What a run says when a part of it is ended from outside: a loading process, or one of its processes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/comm").exists(), reason="processes are found in /proc, which Linux has"),
]

ROOT = Path(__file__).resolve().parents[2]
TINY = [
    *("--config", str(ROOT / "experiments" / "quickstart_baseline.yaml"), "--model.init_args.backbone", "test_resnet"),
    *("--data.image_size", "[64, 32]", "--data.num_workers", "1", "--data.steps_per_epoch", "3"),
    *("--data.identities_per_batch", "2", "--data.images_per_modality", "1"),
    *("--data.dataset.init_args.identities", "4", "--data.dataset.init_args.val_identities", "2"),
    *("--data.dataset.init_args.test_identities", "2", "--data.dataset.init_args.images", "1"),
    *("--trainer.max_epochs", "100000", "--trainer.check_val_every_n_epoch", "100000"),
    *("--trainer.enable_progress_bar", "false", "--trainer.precision", "32-true"),
]
TWO = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]


def list_children(pid: int) -> list[int]:
    """Return the processes that any thread of a process started."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*"):
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread that ended between the two looks
            found += map(int, (task / "children").read_text().split())
    return found


def is_loader(pid: int) -> bool:
    return Path(f"/proc/{pid}/comm").read_text().startswith("pt_data")


@pytest.fixture
def begin(tmp_path):
    """A function that returns a run that has trained an epoch, in a session of its own, which ends with the test."""
    started: list[subprocess.Popen] = []
    yield lambda *more: started.append(start(tmp_path, *more)) or started[-1]
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def start(folder: Path, *more: str) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-m", "vireid_lightning", "fit", *TINY, *more],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not list(folder.rglob("last.ckpt")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process


def arguments(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_text().split("\0")


def test_a_loading_process_that_is_killed_is_told(begin):
    process = begin()
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:  # an epoch's loader may just be ending by itself
        for child in list_children(process.pid):
            with suppress(FileNotFoundError, ProcessLookupError):
                if is_loader(child):
                    os.kill(child, signal.SIGKILL)
        time.sleep(0.02)
    _, error = process.communicate(timeout=10)
    assert process.returncode == 2, error
    # Where the trainer was just reading from the process, the connection ends before the signal arrives.
    assert re.search("A loading process was ended from outside|perhaps one that loads images", error.splitlines()[-1])
    assert "Traceback" not in error


def test_a_loading_process_whose_trainer_is_gone_shows_no_traceback():
    """Python's thread that hands a batch's memory over shows by this hook that nobody takes it any more."""
    code = (
        "import sys; from vireid_lightning.data.loading import start_worker; start_worker(0)\n"
        "for error in (ConnectionResetError('gone'), EOFError('gone'), ValueError('its own')):\n"
        "    sys.excepthook(type(error), error, None)"
    )
    command, environment = [sys.executable, "-c", code], {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "ValueError: its own" in done.stderr
    assert "gone" not in done.stderr


@pytest.mark.parametrize("rank", [0, pytest.param(1, marks=pytest.mark.long)])
def test_when_one_of_two_processes_is_killed_the_other_ends(begin, rank):
    process = begin(*TWO)
    (other,) = (child for child in list_children(process.pid) if "fit" in arguments(child) and not is_loader(child))
    os.kill([process.pid, other][rank], signal.SIGKILL)
    _, error = process.communicate(timeout=100)  # which waits for all that hold the pipe
    assert process.returncode != 0
    # Lightning's own launcher looks after the processes that it started, and ends all where one is gone.
    said = "Another process of this run has ended" if rank == 0 else f"PID {other} terminated with code -9"
    assert said in error
    assert "Traceback" not in error


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.long)])
def test_a_signal_to_two_processes_saves_once_and_the_run_goes_on(tmp_path, begin, number):
    process = begin(*TWO)
    os.killpg(process.pid, number)
    _, error = process.communicate(timeout=100)
    assert process.returncode == 128 + number, error
    assert f"Stopped by {number.name}. " in error
    assert error.count("The run goes on with") == 1
    (path,) = tmp_path.rglob("last.ckpt")
    assert error.splitlines()[-1].endswith(f"--ckpt_path {path.relative_to(tmp_path)}")
    step = torch.load(path, weights_only=True)["global_step"]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "vireid_lightning", "fit", *TINY, *TWO, "--ckpt_path", str(path)),
            *("--trainer.max_epochs", str(step // 3 + 2), "--test_after_fit", "false"),
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    newest = max(tmp_path.rglob("last.ckpt"), key=lambda each: each.stat().st_mtime)
    assert torch.load(newest, weights_only=True)["global_step"] == 3 * (step // 3 + 2)
