from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from references.report_content import make_embeddings, make_protocols, write_curves, write_images
from rich.console import Console
from torch.utils.data import DataLoader

from vireid_lightning.callbacks import RetrievalMetrics, WriteReport
from vireid_lightning.errors import VIReIDError

EMBEDDINGS = make_embeddings()


class Data(LightningDataModule):
    """The embeddings of a small report, in place of images."""

    fingerprint = "0123456789ab"

    def __init__(self, root):
        super().__init__()
        self.dataset = SimpleNamespace(
            name="Toy", distance="cosine", default_protocol="infrared-to-visible", trial=None, root=root
        )

    def eval_samples(self, stage):
        return EMBEDDINGS.samples()

    def protocols(self, stage):
        return make_protocols(EMBEDDINGS)

    def test_dataloader(self):
        rows = [{"embedding": row, "index": index} for index, row in enumerate(EMBEDDINGS.embedding)]
        return DataLoader(rows, batch_size=16)


class Method(LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))

    def test_step(self, batch, batch_idx):
        return {"embedding": self.weight * batch["embedding"], "index": batch["index"]}


class Board(TensorBoardLogger):
    """Keeps the images that it is given, so that TensorBoard need not be installed."""

    def __init__(self, folder):
        self.images = {}
        self._root_dir, self._name, self._version, self._sub_dir, self._prefix = str(folder), "board", 0, None, ""
        self._experiment = SimpleNamespace(
            add_image=lambda name, image, step, dataformats: self.images.update({name: (image, step, dataformats)})
        )

    experiment = property(lambda self: self._experiment)
    log_metrics = log_graph = save = log_hyperparams = finalize = lambda self, *_, **__: None


def run_test(tmp_path, report, logger=False, ckpt_path=None):
    write_images(tmp_path, EMBEDDINGS)
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    metrics = RetrievalMetrics(console=Console(file=io.StringIO()))
    trainer = Trainer(default_root_dir=tmp_path, callbacks=[report, metrics], logger=logger, **quiet)
    trainer.test(Method(), Data(tmp_path), verbose=False, ckpt_path=ckpt_path)
    return metrics


def test_does_and_needs_nothing_unless_told_to(tmp_path, monkeypatch):
    monkeypatch.setattr("vireid_lightning.callbacks.write_report.require_packages", None)
    board = Board(tmp_path)
    metrics = run_test(tmp_path, WriteReport(), board)
    assert not list(tmp_path.glob("*.html"))
    assert not board.images
    assert metrics.embeddings is None


def test_writes_a_page_beside_the_results(tmp_path):
    console = Console(file=io.StringIO(), width=200)
    metrics = run_test(tmp_path, WriteReport(html=True, lists=3, console=console))
    page = (tmp_path / "report.html").read_text()
    assert (tmp_path / "results.json").exists()
    assert metrics.embeddings is None  # let go
    for row in metrics.table:
        assert f"{row.mAP:.2f}" in page
    assert page.count('<li data-identity="') == 6
    assert "missing on disk" not in page
    assert f"Report: {tmp_path / 'report.html'}" in console.file.getvalue()


def test_curves_of_the_checkpoints_run_are_found(tmp_path):
    run = tmp_path / "it" / "version_0"
    run.mkdir(parents=True)
    write_curves(run / "metrics.csv")
    trainer = Trainer(default_root_dir=tmp_path, logger=False, accelerator="cpu")
    trainer.strategy.connect(Method())
    trainer.save_checkpoint(run / "checkpoints" / "last.ckpt")
    report = WriteReport(html=True, lists=1, console=Console(file=io.StringIO()))
    run_test(tmp_path, report, ckpt_path=run / "checkpoints" / "last.ckpt")
    assert 'id="training"' in (run / "checkpoints" / "report.html").read_text()


def test_figures_go_to_the_loggers_that_take_images(tmp_path):
    board = Board(tmp_path)
    run_test(tmp_path, WriteReport(log=True, lists=1), [CSVLogger(tmp_path, name="it", version=0), board])
    assert not list(tmp_path.rglob("*.html"))
    names = ["cmc", "roc", "pairs", "map", "ranks_infrared-to-visible", "ranks_visible-to-infrared"]
    assert list(board.images) == [f"test/{name}" for name in names]
    for image, step, order in board.images.values():
        assert image.dtype == np.uint8
        assert image.shape[2] == 3
        assert image.std() > 10
        assert (step, order) == (0, "HWC")


@pytest.mark.slow
def test_tensorboard_writes_the_images(tmp_path):
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed")
    run_test(tmp_path, WriteReport(log=True, lists=1), TensorBoardLogger(tmp_path, name="board"))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "board" / "version_0"))
    events.Reload()
    assert "test/ranks_infrared-to-visible" in events.Tags()["images"]


@pytest.mark.slow
def test_wandb_gets_images_and_tables_offline(tmp_path):
    pytest.importorskip("wandb").finish()  # a logger takes up a run that another test left open
    loggers = pytest.importorskip("lightning.pytorch.loggers")
    logger = loggers.WandbLogger(project="it", save_dir=tmp_path, offline=True)
    run_test(tmp_path, WriteReport(log=True, lists=2), logger)
    folder = Path(logger.experiment.dir)
    logger.experiment.finish()
    files = [path.as_posix() for path in folder.rglob("media/**/*") if path.is_file()]
    images = [name for name in files if "/images/test/" in name]
    assert sum("/cmc_" in name for name in images) == 1
    assert sum("/ranks_" in name for name in images) == 2
    tables = [name for name in files if "/table/test/" in name]
    assert sum("rank_lists_" in name for name in tables) == 2
    content = Path(next(name for name in tables if "infrared-to-visible" in name)).read_text()
    assert '"average precision"' in content
    assert '"rank 10"' in content
    assert content.count('"Image"') == 2 * 11  # what the table's preview has of an image


def test_what_cannot_be_shown_is_told_before_the_test(tmp_path, monkeypatch):
    for wrong, message in (({"lists": 0}, "report.lists is 0"), ({"max_mb": 0}, "report.max_mb is 0")):
        with pytest.raises(VIReIDError, match=message):
            WriteReport(**wrong)
    trainer = Trainer(default_root_dir=tmp_path, callbacks=[WriteReport(html=True)], logger=False, accelerator="cpu")
    with pytest.raises(VIReIDError, match="add RetrievalMetrics"):
        trainer.test(Method(), Data(tmp_path), verbose=False)
    monkeypatch.setattr("vireid_lightning.report.requirements.find_spec", lambda name: None)
    with pytest.raises(VIReIDError, match=r"vireid-lightning\[report\]"):
        trainer.test(Method(), Data(tmp_path), verbose=False)
