"""Checkpoints are whole at every moment: on a full disk, and where the process is killed while it writes."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.plugins import AsyncCheckpointIO

from vireid_lightning.errors import VIReIDError
from vireid_lightning.methods.checkpoint_io import DurableCheckpointIO, use_durable_checkpoints

REPOSITORY = Path(__file__).resolve().parents[2]


def write(path: Path, size: int = 4) -> dict[str, torch.Tensor]:
    content = {"weights": torch.arange(size)}
    DurableCheckpointIO().save_checkpoint(content, path)
    return content


def test_a_checkpoint_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "new" / "last.ckpt"
    content = write(path)
    read = DurableCheckpointIO().load_checkpoint(path, weights_only=True)
    assert torch.equal(read["weights"], content["weights"])
    assert [each.name for each in path.parent.iterdir()] == ["last.ckpt"]


def test_it_is_on_the_disk_before_it_takes_its_name_and_never_elsewhere(tmp_path, monkeypatch):
    calls = []
    for name in ("fsync", "replace", "rename"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *args, name=name, real=real, **kw: calls.append(name) or real(*args, **kw))
    monkeypatch.setenv("TMPDIR", "/nonexistent")
    write(tmp_path / "last.ckpt")
    assert calls[0] == "fsync"
    assert calls[1] in ("replace", "rename")
    assert calls[2] == "fsync"  # the folder's


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="the system has no limit on the size of files")
def test_a_full_disk_leaves_the_earlier_file_and_one_sentence(tmp_path):
    """A limit on the size of files stands in for the full disk; the system refuses to write beyond it."""
    path = tmp_path / "last.ckpt"
    content = write(path)
    code = f"""
import resource, signal, sys, torch
sys.path.insert(0, {str(REPOSITORY)!r})
from vireid_lightning.methods.checkpoint_io import DurableCheckpointIO
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
DurableCheckpointIO().save_checkpoint({{"weights": torch.zeros(100_000)}}, {str(path)!r})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "VIReIDError" in done.stderr
    assert "The checkpoint" in done.stderr.splitlines()[-1]
    assert "could not be written: File too large. An earlier file of this name is as it was" in done.stderr
    assert torch.equal(torch.load(path, weights_only=True)["weights"], content["weights"])
    assert [each.name for each in tmp_path.iterdir()] == ["last.ckpt"]


def test_no_space_is_named(tmp_path, monkeypatch):
    def refuse(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "best.ckpt"
    write(path)
    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(VIReIDError, match="No space left on device"):
        write(path, 9)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["best.ckpt"]


def test_what_a_killed_process_left_is_overwritten(tmp_path):
    (tmp_path / "last.ckpt.part").write_bytes(b"half")
    write(tmp_path / "last.ckpt")
    assert [each.name for each in tmp_path.iterdir()] == ["last.ckpt"]


def test_another_plugin_stays():
    plain, chosen = Trainer(accelerator="cpu", logger=False), AsyncCheckpointIO()
    given = Trainer(accelerator="cpu", logger=False, plugins=[chosen])
    for trainer in (plain, given):
        use_durable_checkpoints(trainer)
    assert isinstance(plain.strategy.checkpoint_io, DurableCheckpointIO)
    assert given.strategy.checkpoint_io is chosen
