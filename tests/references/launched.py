"""`lightning` in processes that something else has started: SLURM, or a test that stops them at a given step."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import torch
import torch.multiprocessing
from lightning.pytorch import Callback

from vireid_lightning.cli import lightning


class StopAt(Callback):
    """Sends its process a signal in a training step, or in the validation that follows it.

    Args:
        step: Number of steps that are done before.
        number: The signal.
        rank: Process that is sent it; the others learn of it.
        validation: Whether it comes in the validation that begins when so many steps are done.
    """

    def __init__(self, step: int, number: int, rank: int = 0, validation: bool = False) -> None:
        self.step, self.number, self.rank, self.validation = step, number, rank, validation

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        self._send(trainer, validation=False)

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0) -> None:
        self._send(trainer, validation=True)

    def _send(self, trainer, *, validation: bool) -> None:
        place = trainer.global_step, trainer.global_rank, validation
        if place == (self.step, self.rank, self.validation) and not trainer.sanity_checking:
            os.kill(os.getpid(), self.number)


def run_as_task(rank: int, tasks: int, port: int, folder: Path, arguments: list[str]) -> None:
    """Run the command line as one of several tasks on one node, with the environment that srun gives a task."""
    os.chdir(folder)
    os.environ |= {
        "SLURM_JOB_ID": "77",
        "SLURM_JOB_NAME": "vireid",
        "SLURM_NTASKS": str(tasks),
        "SLURM_NTASKS_PER_NODE": str(tasks),
        "SLURM_NODELIST": "localhost",
        "SLURM_NODEID": "0",
        "SLURM_PROCID": str(rank),
        "SLURM_LOCALID": str(rank),
        "MASTER_PORT": str(port),
    }
    torch.set_num_threads(1)
    lightning(arguments)


def run_as_rank(rank: int, processes: int, port: int, folder: Path, arguments: list[str]) -> None:
    """Run the command line as one of several processes of Lightning's own; what it says is in ``said-<rank>.txt``."""
    os.chdir(folder)
    os.environ |= {"NODE_RANK": "0", "LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    with Path(f"said-{rank}.txt").open("w", encoding="utf-8") as said:
        sys.stdout = sys.stderr = said
        lightning([*arguments, "--trainer.devices", str(processes), "--trainer.strategy", "ddp"])


def launch(function, processes: int, folder: Path, arguments: list[str]) -> list[int | None]:
    """Run one of the functions above in all of its processes, and return their exit codes; None for one that hung."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    context = torch.multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["vireid_lightning.cli.training", "timm", "sklearn.cluster", "albumentations"])
    started = [
        context.Process(target=function, args=(rank, processes, port, folder, arguments)) for rank in range(processes)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join(250)
    codes = [process.exitcode for process in started]
    for process in started:
        process.kill()
    return codes
