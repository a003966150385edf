"""Signals that ask a run to stop: noted while it trains, so that it can save its state at the next step."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_warn

from vireid_lightning.environment import find_job

_PATIENCE = 60  # seconds that SLURM may take


class RunStopped(SystemExit):
    """A run was asked to stop by a signal; the exit code is 128 and the signal's number.

    Attributes:
        signal: The signal.
        checkpoint: The checkpoint that holds the run's state, or None where training had nothing to save.
    """

    def __init__(self, number: int, checkpoint: str | None = None) -> None:
        super().__init__(128 + number)
        self.signal, self.checkpoint = signal.Signals(number), checkpoint


class StopSignals:
    """Notes SIGTERM, SIGINT and SLURM's request to requeue while it is installed.

    A second SIGINT stops at once, and nothing is saved.
    """

    def __init__(self) -> None:
        self.received = 0
        self._earlier: dict[int, Any] = {}
        self._requeue: int | None = None

    def install(self, trainer: Trainer) -> None:
        """Take the signals over from Lightning, whose handlers save in the middle of a step or do not save at all."""
        self.received = 0
        if self._earlier or threading.current_thread() is not threading.main_thread():
            return
        numbers: list[int] = [signal.SIGTERM, signal.SIGINT]
        environment = trainer._accelerator_connector.cluster_environment
        if isinstance(environment, SLURMEnvironment) and environment.auto_requeue and environment.requeue_signal:
            self._requeue = environment.requeue_signal
            numbers.append(environment.requeue_signal)
        self._earlier = {number: signal.signal(number, self._note) for number in numbers}

    def remove(self) -> None:
        """Put the earlier handlers back."""
        for number, handler in self._earlier.items():
            signal.signal(number, handler)
        self._earlier = {}

    def agree(self, trainer: Trainer) -> int:
        """Return the signal that any process has received, 0 for none; to be called in all processes."""
        if trainer.world_size > 1:
            number = torch.tensor(self.received, device=trainer.strategy.root_device)
            torch.distributed.all_reduce(number, op=torch.distributed.ReduceOp.MAX)
            self.received = int(number)
        return self.received

    def requeue(self, trainer: Trainer) -> None:
        """Have SLURM run the job again, if that is what the signal asked for; to be called when the state is saved."""
        job = find_job()
        if self.received != self._requeue or job is None or not trainer.is_global_zero:
            return
        command = ["scontrol", "requeue", job]
        try:
            subprocess.run(command, check=True, timeout=_PATIENCE)
        except (OSError, subprocess.SubprocessError) as error:
            rank_zero_warn(f"`{' '.join(command)}` failed ({error}); submit the job again by hand.")

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received == signal.SIGINT == number:
            raise RunStopped(number)
        self.received = number


@contextmanager
def stop_at_once() -> Iterator[None]:
    """Have SIGTERM and SIGINT raise :class:`RunStopped` while the context lasts: there is nothing to save yet."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise RunStopped(number)

    earlier = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
