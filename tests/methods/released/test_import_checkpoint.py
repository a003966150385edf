"""Released checkpoints: files of the authors' names and shapes become our modules with the same outputs and losses."""

from __future__ import annotations

import json
import os
import pickle
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from layout_files import write_plan
from lightning.pytorch import Trainer
from references.batches import loss_terms, training_batch
from references.released import ReleasedAGW, ReleasedDCLNet, ReleasedMPANet, hollow, scramble
from torch.utils.data import DataLoader

from vireid_lightning.cli import lightning, vireid
from vireid_lightning.data.synthetic.layouts import plan_regdb, plan_sysu_mm01
from vireid_lightning.errors import VIReIDError
from vireid_lightning.methods import AGW, DCLNet, load_method
from vireid_lightning.tools import import_checkpoint

pytestmark = pytest.mark.slow

CLASSES = 5
RELEASED = {"mpanet": ReleasedMPANet, "dclnet": ReleasedDCLNet, "agw": ReleasedAGW}
METHODS = sorted(RELEASED)


def content(method, state):
    """MPANet's file is a bare state dict; the others lie under ``net`` beside scores, which are numpy scalars."""
    return state if method == "mpanet" else {"net": state, "mAP": np.float64(0.65), "acc": np.float32(0.7), "epoch": 80}


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """Method -> (slow reference network, its file)."""
    folder, made = tmp_path_factory.mktemp("released"), {}
    for method, network in RELEASED.items():
        torch.manual_seed(0)
        reference = scramble(network(CLASSES))
        torch.save(content(method, hollow(reference.state_dict(), network.unused)), folder / f"{method}.t")
        made[method] = (reference, folder / f"{method}.t")
    return made


def assert_close(ours, theirs):
    """Two orders of the same float32 arithmetic through 50 layers.

    Each layer rounds by about 1e-7 of its scale, 50 of them to some 1e-6; batch norms over 20 images and softmaxes of
    logits of about 10 multiply that by 10.
    """
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5 * theirs.abs().max().item())


@pytest.mark.parametrize("method", METHODS)
def test_embeddings_and_every_loss_term_equal_the_slow_reference(released, method, capsys):
    reference, path = released[method]
    module = import_checkpoint(path, method)
    assert not module.training
    account = capsys.readouterr().out
    assert f"with {CLASSES} identities" in account
    assert "missing: nothing" in account
    batch = training_batch(identities=CLASSES)
    with torch.no_grad():
        assert_close(
            module.embed(batch["image"], batch["modality"]), reference.eval().embed(batch["image"], batch["modality"])
        )
        before = {name: value.clone() for name, value in reference.state_dict().items()}
        wanted = reference.train().terms(batch)
        module.on_train_batch_start(batch, 0)
        terms, _ = loss_terms(module.train(), batch)
        reference.load_state_dict(before)
    assert list(terms) == list(wanted)
    for name, value in wanted.items():
        assert value > 0, name
        assert_close(terms[name], value.float())


@pytest.mark.parametrize(
    ("method", "ignored"),
    [
        ("mpanet", "ignored: nothing"),
        ("dclnet", "visible_module.base.layer2 .*thermal_module.base.layer4 .*shared_module.base.stem .*layer1"),
        ("agw", "visible_module.visible.layer1 .*thermal_module.thermal.layer4 .*base_resnet.base.stem"),
    ],
)
def test_the_account_names_unused_stems_and_stages(released, method, ignored, capsys):
    import_checkpoint(released[method][1], method)
    assert re.search(ignored, capsys.readouterr().out)


def test_mean_classifiers_are_loaded_as_stored_in_storage_of_their_own(released):
    reference, path = released["mpanet"]
    classifiers = import_checkpoint(path, "mpanet").modality_classifiers
    state = reference.state_dict()
    for name in ("visible", "infrared"):
        weight, mean = getattr(classifiers, name).weight, getattr(classifiers, f"{name}_mean")
        assert torch.equal(weight, state[f"{name}_classifier.weight"])
        assert torch.equal(mean, state[f"{name}_classifier_.weight"])
        assert not torch.equal(weight, mean)
        assert weight.data_ptr() != mean.data_ptr()


def test_the_number_of_pattern_maps_is_read_from_the_shapes(tmp_path):
    torch.save(hollow(ReleasedMPANet(3, maps=4).state_dict()), tmp_path / "four.pth")
    module = import_checkpoint(tmp_path / "four.pth", "mpanet")
    assert module.num_classes == 3
    assert module.patterns.masks.out_channels == 4


@pytest.mark.parametrize("method", METHODS)
def test_the_command_writes_a_checkpoint_that_lightning_tests_and_that_rebuilds_itself(
    released, method, tmp_path, capsys
):
    output = tmp_path / "new" / "folder.ckpt"
    vireid(["import-checkpoint", "--method", method, str(released[method][1]), str(output)])
    assert f"Written to {output}" in capsys.readouterr().out
    module, batch = load_method(output), training_batch(identities=CLASSES)
    with torch.no_grad():
        embeddings = module.embed(batch["image"], batch["modality"])
    assert_close(embeddings, released[method][0].eval().embed(batch["image"], batch["modality"]).detach())
    assert module.hparams["pretrained"] is False

    fresh = type(module)(num_classes=CLASSES, pretrained=False, **({"parts": 6} if method != "agw" else {}))
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
    with torch.no_grad():
        trainer.test(fresh, DataLoader([batch], batch_size=None), ckpt_path=output, weights_only=True, verbose=False)
        assert torch.equal(fresh.eval().embed(batch["image"], batch["modality"]), embeddings)

    before = output.read_bytes()
    with pytest.raises(SystemExit) as exit_code:
        vireid(["import-checkpoint", "--method", method, str(released[method][1]), str(output)])
    assert exit_code.value.code == 2
    assert "never overwritten" in capsys.readouterr().err
    assert output.read_bytes() == before
    assert [path.name for path in output.parent.iterdir()] == ["folder.ckpt"]


def test_lightning_test_scores_an_imported_checkpoint_from_a_papers_config(released, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = write_plan(plan_sysu_mm01(train=2, val=1, test=2, images_per_camera=1), tmp_path / "sysu")
    vireid(["import-checkpoint", "--method", "agw", "--image-size", "96", "48", str(released["agw"][1]), "agw.ckpt"])
    config = Path(__file__).resolve().parents[3] / "experiments" / "agw_sysu.yaml"
    arguments = ["test", "--config", str(config), "--ckpt_path", "agw.ckpt", "--data.dataset.init_args.root", str(root)]
    arguments += ["--data.image_size", "[96, 48]", "--data.num_workers", "0", "--trainer.enable_progress_bar", "false"]
    lightning([*arguments, "--trainer.accelerator", "cpu"])
    results = json.loads(Path("results.json").read_text(encoding="utf-8"))
    assert (results["method"], len(results["results"])) == ("AGW", 6)


def test_the_trial_that_weights_were_trained_on_is_kept(released, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    root = write_plan(plan_regdb(identities=4, images_per_modality=1, trials=2), tmp_path / "regdb")
    command = ["import-checkpoint", "--method", "agw", "--image-size", "96", "48"]
    command += [str(released["agw"][1]), "agw.ckpt", "--trial"]
    with pytest.raises(SystemExit):
        vireid([*command, "11"])
    assert "--trial is 11; RegDB has the trials 1 to 10" in capsys.readouterr().err
    vireid([*command, "2"])
    config = Path(__file__).resolve().parents[3] / "experiments" / "agw_regdb.yaml"
    arguments = ["--config", str(config), "--ckpt_path", "agw.ckpt", "--data.dataset.init_args.root", str(root)]
    arguments += ["--data.image_size", "[96, 48]", "--data.num_workers", "0", "--trainer.enable_progress_bar", "false"]
    with pytest.raises(SystemExit):
        lightning(["test", *arguments, "--data.dataset.init_args.trial=1"])
    assert "was trained on trial 2 of RegDB" in capsys.readouterr().err
    lightning(["test", *arguments, "--data.dataset.init_args.trial=2"])
    results = json.loads(Path("results.json").read_text(encoding="utf-8"))
    assert (results["trained_on_trial"], results["trial_mismatch"]) == (2, False)


def test_other_methods_start_from_an_imported_checkpoint(released, tmp_path):
    output = tmp_path / "mpanet.ckpt"
    vireid(["import-checkpoint", "--method", "mpanet", str(released["mpanet"][1]), str(output)])
    target = DCLNet(num_classes=9, pretrained=False)
    account = target.start_from(output)
    assert "MPANet" in account
    state = released["mpanet"][0].state_dict()
    for modality in ("visible", "infrared"):
        assert torch.equal(getattr(target.backbone.stages[0], modality).conv1.weight, state["backbone.conv1.weight"])


@pytest.mark.parametrize(
    ("method", "words", "image_size", "interpolation"),
    [
        ("mpanet", [], [384, 128], "bilinear"),
        ("mpanet", ["--trial", "3"], [256, 128], "bilinear"),
        ("dclnet", [], [288, 144], "lanczos"),
        ("agw", ["--trial", "3"], [288, 144], "lanczos"),
    ],
)
def test_the_authors_preprocessing_is_that_of_the_papers_config(
    released, method, words, image_size, interpolation, tmp_path
):
    vireid(["import-checkpoint", "--method", method, *words, str(released[method][1]), str(tmp_path / "a.ckpt")])
    stored = torch.load(tmp_path / "a.ckpt", weights_only=True)["vireid"]["preprocessing"]
    assert (stored["image_size"], stored["interpolation"], stored["resizer"]) == (image_size, interpolation, "pillow")
    dataset = "regdb" if words else "sysu"
    config = Path(__file__).resolve().parents[3] / "experiments" / f"{method}_{dataset}.yaml"
    data = yaml.safe_load(config.read_text(encoding="utf-8"))["data"]
    assert (data["image_size"], data["interpolation"]) == (image_size, interpolation)


def test_image_size_is_recorded(released, tmp_path):
    output = tmp_path / "a.ckpt"
    command = ["import-checkpoint", "--method", "agw", "--image-size", "256", "128"]
    vireid([*command, str(released["agw"][1]), str(output)])
    block = torch.load(output, weights_only=True)["vireid"]
    assert block["preprocessing"]["image_size"] == [256, 128]
    assert block["method"] == "AGW"


def test_old_files_without_batch_counters_and_wrapped_ones_load(released, tmp_path, capsys):
    state = {
        f"module.{name}": value
        for name, value in hollow(released["agw"][0].state_dict()).items()
        if not name.endswith("num_batches_tracked")
    }
    torch.save(content("agw", state), tmp_path / "old.t")
    assert isinstance(import_checkpoint(tmp_path / "old.t", "AGW"), AGW)
    assert "batch counters, which change nothing" in capsys.readouterr().out


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_numpy_scalars_of_old_and_new_numpy_are_read(tmp_path, module):
    scores = {"mAP": np.float64(0.65), "acc": np.float32(0.7), "epoch": np.int64(80), "best": np.bool_(True)}
    torch.save({"net": {"part_classifier.weight": torch.zeros(1)}, **scores}, tmp_path / "scalars.t")
    ours = np.float64(0).__reduce__()[0].__module__.encode()
    with zipfile.ZipFile(tmp_path / "scalars.t") as source, zipfile.ZipFile(tmp_path / "renamed.t", "w") as target:
        for entry in source.namelist():
            target.writestr(entry, source.read(entry).replace(ours, module.encode()))
    # That the network is recognised shows that the file was read.
    with pytest.raises(VIReIDError, match="looks like DCLNet"):
        import_checkpoint(tmp_path / "renamed.t", "agw")


def test_a_file_that_would_run_code_is_refused_and_runs_nothing(released, tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"net": hollow(released["agw"][0].state_dict()), "extra": Evil()}, tmp_path / "evil.t")
    with pytest.raises(VIReIDError, match="would run code when loaded and was refused"):
        import_checkpoint(tmp_path / "evil.t", "agw")
    with (tmp_path / "plain.pkl").open("wb") as file:
        pickle.dump(Evil(), file)
    with pytest.raises(VIReIDError, match=r"plain\.pkl"):
        import_checkpoint(tmp_path / "plain.pkl", "agw")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "no checkpoint at"),
        (lambda path: path.write_text("not a checkpoint"), "is not a checkpoint"),
        (lambda path: path.write_bytes(b""), "is not a checkpoint"),
        (lambda path: torch.save(torch.zeros(3), path), "holds no state dict"),
        (lambda path: torch.save({"net": {"a": 3}}, path), "holds no state dict"),
        (lambda path: torch.save({"state_dict": {}, "vireid": {}}, path), "vireid-lightning already"),
    ],
)
def test_files_that_are_no_released_checkpoint(make, message, tmp_path):
    make(tmp_path / "file.t")
    with pytest.raises(VIReIDError, match=message):
        import_checkpoint(tmp_path / "file.t", "agw")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["part_classifier.weight"], "looks like DCLNet .--method dclnet"),
        (["backbone.MAM3.channel_attention.0.weight"], "looks like MPANet"),
        (["conv1.weight", "layer4.0.conv1.weight"], "looks like a plain ResNet"),
        (["visible_module.visible.conv1.weight", "thermal_module.thermal.conv1.weight"], "looks like a two-stream"),
        (["encoder.weight", "decoder.weight"], "none of the released ones: .* decoder, encoder"),
    ],
)
def test_another_architecture_is_named(names, message, tmp_path):
    torch.save({name: torch.zeros(1) for name in names}, tmp_path / "other.t")
    with pytest.raises(VIReIDError, match=message):
        import_checkpoint(tmp_path / "other.t", "agw")


@pytest.mark.parametrize(
    ("method", "name", "message"),
    [
        ("mpanet", "visible_classifier_.weight", r"also needs modality_classifiers\.visible_mean"),
        ("mpanet", "spatial_attention.weight", r"lacks spatial_attention\.weight"),
        (
            "dclnet",
            "thermal_module.base.bn1.running_var",
            r"also needs backbone\.stages\.0\.infrared\.bn1\.running_var",
        ),
        ("agw", "NL_3.1.W.1.weight", r"also needs backbone\.stages\.3\.layer3\.4_non_local\.norm\.weight"),
    ],
)
def test_what_matters_must_be_there(released, method, name, message, tmp_path):
    state = hollow(released[method][0].state_dict())
    del state[name]
    torch.save(content(method, state), tmp_path / "cut.t")
    with pytest.raises(VIReIDError, match=message):
        import_checkpoint(tmp_path / "cut.t", method)


def test_other_sizes_and_deeper_networks_are_refused(released, tmp_path):
    state = hollow(released["agw"][0].state_dict())
    state["bottleneck.weight"] = torch.zeros(512)
    torch.save({"net": state}, tmp_path / "narrow.t")
    with pytest.raises(VIReIDError, match=r"bottleneck\.weight has the shape \(512,\)"):
        import_checkpoint(tmp_path / "narrow.t", "agw")
    state = hollow(released["mpanet"][0].state_dict())
    state["backbone.layer3.22.conv1.weight"] = torch.zeros(1)
    torch.save(state, tmp_path / "deep.t")
    with pytest.raises(VIReIDError, match="larger network than ResNet-50"):
        import_checkpoint(tmp_path / "deep.t", "mpanet")


def test_an_unknown_method_is_answered_with_the_known_ones(tmp_path):
    with pytest.raises(VIReIDError, match=r"mpanet, dclnet, agw.*Did you mean 'dclnet'"):
        import_checkpoint(tmp_path / "file.t", "dlcnet")
