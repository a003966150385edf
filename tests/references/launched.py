"""`lightning` in a process that SLURM would have started."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from vireid_lightning.cli import lightning


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
