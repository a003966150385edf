from __future__ import annotations

import io
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from rich.console import Console
from torch.utils.data import DataLoader

from vireid_lightning.callbacks import LastAndBest, RetrievalMetrics, SaveEmbeddings
from vireid_lightning.callbacks.run_files import Provenance
from vireid_lightning.errors import VIReIDError
from vireid_lightning.methods.checkpoint import BLOCK
from vireid_lightning.metrics import Embeddings, Protocol, Trial, evaluate, score_protocols
from vireid_lightning.types import Sample

IMAGES, IDENTITIES = 23, 4


class Rows(torch.utils.data.Dataset):
    """Vectors in place of images: identity plus noise."""

    def __len__(self):
        return IMAGES

    def __getitem__(self, index):
        noise = torch.from_numpy(np.random.default_rng(index).standard_normal(8, dtype=np.float32))
        return {"image": noise + 2 * torch.eye(8)[index % IDENTITIES], "index": index}


class Data(LightningDataModule):
    fingerprint = "0123456789ab"
    dataset = SimpleNamespace(name="Toy", distance="euclidean", default_protocol="first", trial=3)

    def eval_samples(self, stage):
        return [Sample(f"{stage}/{i}.jpg", i % IDENTITIES, i % 2, 1 + i % 3) for i in range(IMAGES)]

    def protocols(self, stage):
        query, gallery = np.arange(0, IMAGES, 2), np.arange(1, IMAGES, 2)
        everything = np.arange(IMAGES)
        first = Protocol(
            "first", (Trial(query, everything), Trial(query, everything[4:])), labels={"sampling": "seeded"}
        )
        second = Protocol("second", (Trial(gallery, everything),), cmc="identity")
        return [first] if stage == "validate" else [second, first]

    def train_dataloader(self):
        return DataLoader(Rows(), batch_size=5)

    val_dataloader = test_dataloader = predict_dataloader = train_dataloader


class Method(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(8, 6)

    def training_step(self, batch, batch_idx):
        return self.layer(batch["image"]).square().mean()

    def validation_step(self, batch, batch_idx):
        return {"embedding": self.layer(batch["image"]), "index": batch["index"]}

    test_step = predict_step = validation_step

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


def run(tmp_path, *callbacks, **arguments):
    options = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False} | arguments
    return Trainer(default_root_dir=tmp_path, accelerator="cpu", callbacks=list(callbacks), **options)


def quiet():
    return Console(file=io.StringIO(), width=140)


def expected(model, protocols, distance="euclidean"):
    with torch.no_grad():
        embedding = model.eval().layer(torch.stack([Rows()[i]["image"] for i in range(IMAGES)]))
    samples = Data().eval_samples("test")
    embeddings = Embeddings(
        embedding, [s.identity for s in samples], [s.camera for s in samples], path=[s.path for s in samples]
    )
    return score_protocols(embeddings, embeddings, protocols, distance=distance)


def test_fit_logs_scores_that_checkpoints_can_follow(tmp_path):
    checkpoint = ModelCheckpoint(dirpath=tmp_path, monitor="val/mAP", mode="max", save_last=True)
    metrics, model = RetrievalMetrics(console=quiet()), Method()
    trainer = run(tmp_path, metrics, checkpoint, max_epochs=2)
    trainer.fit(model, Data())
    row = expected(model, Data().protocols("validate"))[0]
    for score in ("rank1", "mAP", "mINP"):
        assert trainer.callback_metrics[f"val/{score}"].item() == pytest.approx(row.mean(score), rel=1e-6)
    assert checkpoint.best_model_score is not None
    assert not (tmp_path / "results.json").exists()  # validation within training writes no file
    assert metrics.console.file.getvalue() == ""


def test_a_test_prints_writes_and_logs_the_whole_table(tmp_path):
    metrics, model = RetrievalMetrics(console=quiet()), Method()
    trainer = run(tmp_path, metrics)
    trainer.test(model, Data(), verbose=False)
    rows = expected(model, Data().protocols("test"))

    content = json.loads((tmp_path / "results.json").read_text())
    about = {"dataset": "Toy", "fingerprint": "0123456789ab", "dataset_trial": 3, "method": "Method", "stage": "test"}
    assert {key: content[key] for key in about} == about
    assert content["checkpoint"] is None
    assert [result["protocol"] for result in content["results"]] == ["second", "first"]
    first = content["results"][1]
    assert first["scores"]["mAP"] == pytest.approx(rows[1].mAP, rel=1e-6)
    assert first["trials"] == 2
    assert first["gallery_images"] == [IMAGES, IMAGES - 4]
    assert (first["queries"], first["valid_queries"], first["embedding_size"]) == (12, 12, 6)
    assert (first["distance"], first["reranking"], first["sampling"]) == ("euclidean", None, "seeded")
    assert first["gallery_hash"] == rows[1].gallery_hash

    logged = trainer.callback_metrics
    assert logged["test/second/rank1"].item() == pytest.approx(rows[0].rank1, rel=1e-6)
    assert logged["test/mAP"] == logged["test/first/mAP"]
    printed = metrics.console.file.getvalue()
    for text in (
        "Toy, trial 3: Method",
        f"{rows[1].mAP:.2f}",
        f"±{rows[1].deviation('mAP'):.2f}",
        "2 trials",
        "results.json",
    ):
        assert text in printed
    assert rows[1].gallery_hash in printed


def test_earlier_results_are_kept(tmp_path):
    for _ in range(3):
        metrics = RetrievalMetrics(console=quiet())
        run(tmp_path, metrics).test(Method(), Data(), verbose=False)
    assert sorted(path.name for path in tmp_path.glob("results*.json")) == [
        "results.json",
        "results_1.json",
        "results_2.json",
    ]
    assert "results_2.json" in metrics.console.file.getvalue()


def test_results_of_a_checkpoint_lie_beside_it_and_name_it(tmp_path):
    folder = tmp_path / "checkpoints"
    checkpoint = ModelCheckpoint(dirpath=folder, filename="{epoch}", monitor="val/mAP", mode="max", save_last=True)
    run(tmp_path, RetrievalMetrics(console=quiet()), checkpoint, max_epochs=2).fit(Method(), Data())

    for path, kind in ((checkpoint.best_model_path, "best"), (checkpoint.last_model_path, "last")):
        metrics = RetrievalMetrics(console=quiet())
        run(tmp_path / "elsewhere", metrics).test(Method(), Data(), ckpt_path=path, verbose=False)
        content = json.loads((folder / "results.json").read_text())
        assert content["checkpoint"] == path
        assert content["checkpoint_kind"] == kind
        assert content["epoch"] == torch.load(path, weights_only=True)["epoch"] + 1
        assert f"({kind} checkpoint)" in metrics.console.file.getvalue()


def test_validate_prints_and_writes(tmp_path):
    run(tmp_path, RetrievalMetrics("cosine", console=quiet())).validate(Method(), Data(), verbose=False)
    content = json.loads((tmp_path / "results.json").read_text())
    assert content["stage"] == "validate"
    assert content["results"][0]["distance"] == "cosine"


def test_sanity_check_is_not_scored(tmp_path):
    metrics = RetrievalMetrics(console=quiet())
    trainer = run(tmp_path, metrics, max_epochs=1, num_sanity_val_steps=1, limit_val_batches=0.9, max_steps=0)
    trainer.fit(Method(), Data())
    assert metrics.table is None


def test_predict_writes_embeddings_that_score_the_same(tmp_path):
    model, console = Method(), quiet()
    (tmp_path / "embeddings.npz").write_bytes(b"earlier")
    run(tmp_path, SaveEmbeddings(console=console)).predict(model, Data(), return_predictions=False)
    assert (tmp_path / "embeddings_1.npz").read_bytes() == b"earlier"
    assert "embeddings.npz" in console.file.getvalue()
    saved = Embeddings.load(tmp_path / "embeddings.npz")
    assert saved.samples() == Data().eval_samples("test")
    known = {"dataset": "Toy", "dataset_trial": 3, "method": "Method", "checkpoint": None, "trial_mismatch": False}
    assert saved.about.items() >= known.items()
    protocol = Data().protocols("test")[0]
    found = evaluate(saved, saved, protocol, distance="euclidean")
    assert found.to_dict() == expected(model, [protocol])[0].to_dict()


def test_plain_dataloaders_are_a_clear_error(tmp_path):
    with pytest.raises(VIReIDError, match="from the datamodule"):
        run(tmp_path, RetrievalMetrics(console=quiet())).test(Method(), Data().test_dataloader(), verbose=False)
    trainer = run(tmp_path, max_epochs=1)
    trainer.fit(Method(), Data())
    trainer.save_checkpoint(tmp_path / "some.ckpt")
    for path in (None, tmp_path / "some.ckpt"):
        with pytest.raises(VIReIDError, match="from the datamodule"):
            run(tmp_path, SaveEmbeddings(console=quiet())).predict(
                Method(), Data().test_dataloader(), ckpt_path=path, return_predictions=False
            )


def test_last_is_the_last_epoch_and_best_survives_a_new_folder(tmp_path):
    """Lightning alone leaves last.ckpt at the epoch that was best, and forgets the best score in another folder."""

    class Worse(Method):
        def on_validation_epoch_end(self):
            self.log("score", torch.tensor(float(-self.current_epoch)))

    def keep(folder):
        arguments = {"filename": "best", "save_last": True, "enable_version_counter": False}
        return LastAndBest(tmp_path / folder, monitor="score", mode="max", **arguments)

    first, second = keep("first"), keep("second")
    run(tmp_path, first, max_epochs=3).fit(Worse(), Data())
    epochs = [torch.load(path, weights_only=True)["epoch"] for path in (first.best_model_path, first.last_model_path)]
    assert epochs == [0, 2]
    run(tmp_path, second, max_epochs=4).fit(Worse(), Data(), ckpt_path=first.last_model_path)
    assert second.best_model_path == first.best_model_path
    assert second.best_model_score == 0
    assert torch.load(second.last_model_path, weights_only=True)["epoch"] == 3
    # Nothing was left to train: both are those of the run before.
    third = keep("third")
    run(tmp_path, third, max_epochs=3).fit(Worse(), Data(), ckpt_path=first.last_model_path)
    assert (third.best_model_path, third.last_model_path) == (first.best_model_path, first.last_model_path)


def test_weights_of_another_dataset_have_no_trial_of_this_one():
    def loading(dataset, trial):
        data = SimpleNamespace(dataset=SimpleNamespace(name=dataset, trial=trial), protocols=None)
        return SimpleNamespace(ckpt_path="weights.ckpt", datamodule=data, state=SimpleNamespace(fn="test"))

    provenance = Provenance()
    checkpoint = {"epoch": 0, BLOCK: {"dataset": {"name": "RegDB", "trial": 3}}}
    found = {}
    for dataset, trial in (("SYSU-MM01", None), ("RegDB", 3), ("RegDB", 2)):
        provenance.note_checkpoint(loading(dataset, trial), checkpoint)
        found[dataset, trial] = (provenance.loaded["trained_on_trial"], provenance.loaded["trial_mismatch"])
    assert found == {("SYSU-MM01", None): (None, False), ("RegDB", 3): (3, False), ("RegDB", 2): (3, True)}


def test_a_mismatch_is_refused_again_and_again(tmp_path):
    class Other(Data):
        dataset = SimpleNamespace(name="Toy", distance="euclidean", default_protocol="first", trial=4)

    trainer = run(tmp_path, max_steps=0)
    trainer.fit(Method(), Data())
    trainer.save_checkpoint(tmp_path / "weights.ckpt", weights_only=True)
    content = torch.load(tmp_path / "weights.ckpt", weights_only=True)
    content[BLOCK] = {"dataset": {"name": "Toy", "trial": 3}}
    torch.save(content, tmp_path / "weights.ckpt")
    tester = run(tmp_path, RetrievalMetrics(console=quiet()))
    for _ in range(2):
        with pytest.raises(VIReIDError, match="was trained on trial 3 of Toy, but the data is trial 4"):
            tester.test(Method(), Other(), ckpt_path=tmp_path / "weights.ckpt", verbose=False)
    tester.test(Method(), Data(), ckpt_path=tmp_path / "weights.ckpt", verbose=False)
    with pytest.raises(VIReIDError, match="was trained on trial 3"):
        tester.test(Method(), Other(), ckpt_path=tmp_path / "weights.ckpt", verbose=False)


def test_details_lie_beside_the_results_and_nothing_is_overwritten(tmp_path):
    for _ in range(2):
        metrics = RetrievalMetrics(details=True, console=quiet())
        run(tmp_path, metrics).test(Method(), Data(), verbose=False)
    assert (tmp_path / "results_1_details.npz").is_file()
    with np.load(tmp_path / "results_details.npz") as file:
        for row in metrics.table:
            values = [file[f"{row.name}/trial_{number}/measures/mAP"] for number in range(1, len(row.trials) + 1)]
            assert 100 * np.mean([np.nanmean(each) for each in values]) == pytest.approx(row.mAP, rel=2**-45)
