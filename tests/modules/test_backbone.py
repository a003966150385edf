from __future__ import annotations

import copy

import huggingface_hub.constants
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from timm.layers.drop import DropPath
from timm.models.swin_transformer import PatchMerging
from timm.models.swin_transformer_v2 import PatchMerging as PatchMergingV2

from vireid_lightning.errors import VIReIDError
from vireid_lightning.modules.backbone import Backbone
from vireid_lightning.modules.last_stride import DenseMerging
from vireid_lightning.modules.modality_rows import ModalityRows
from vireid_lightning.modules.trunk import BackboneSettings

FAMILIES = [
    "resnet18",
    "resnet10t",
    "resnet50",
    "resnetblur50",
    "resnet26d",
    "mobilenetv3_small_050",
    "efficientnet_b0",
    "tf_efficientnet_lite0",
    "convnext_atto",
    "regnetx_002",
    "densenet121",
    "test_mambaout",  # maps (B, H, W, C)
    "pvt_v2_b0",  # only its stem has them
]
WINDOWED = ["swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256", "swinv2_cr_tiny_ns_224"]


def tiny(**arguments) -> Backbone:
    return Backbone("resnet10t", pretrained=False, **arguments)


@pytest.mark.parametrize("name", [*FAMILIES, *(pytest.param(name, marks=pytest.mark.slow) for name in WINDOWED)])
def test_five_maps_and_a_last_stage_of_stage_threes_size(name):
    backbone = Backbone(name, pretrained=False).eval()
    # 18 x 10 at stride 8: odd sizes below, which an even kernel without padding would shrink.
    with torch.no_grad():
        maps = backbone.features(torch.randn(2, 3, 144, 80), torch.tensor([0, 1]))
    assert [part.shape[1] for part in maps] == backbone.channels
    assert [tuple(part.shape[2:]) for part in maps[1:]] == [(36, 20), (18, 10), (9, 5), (9, 5)]
    assert [144 // part.shape[2] for part in maps] == backbone.strides
    assert bool((maps[-1] < 0).any()) == backbone.signed


@pytest.mark.slow
@pytest.mark.parametrize("name", [*FAMILIES, *WINDOWED])
def test_a_last_stride_of_two_leaves_the_network_as_timm_builds_it(name):
    torch.manual_seed(3)
    backbone = Backbone(name, pretrained=False, last_stride=2).eval()
    free = {"strict_img_size": False} if name in WINDOWED else {}
    reference = timm.create_model(name, features_only=True, pretrained=False, **free).eval()
    # Values, not names: timm lists both networks' parameters in the order of their layers.
    for ours, theirs in zip(backbone.parameters(), reference.parameters(), strict=False):
        theirs.data.copy_(ours)
    for (_, ours), (_, theirs) in zip(backbone.named_buffers(), reference.named_buffers(), strict=False):
        theirs.copy_(ours)
    images = torch.randn(1, 3, 64, 32)
    with torch.no_grad():
        maps = backbone.features(images, torch.tensor([0]))
        expected = reference(images)
    if name in ("swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256", "test_mambaout"):
        expected = [part.permute(0, 3, 1, 2) for part in expected]
    for ours, theirs in zip(maps[1:], expected[-4:], strict=True):
        # The same float32 operations, in channels_last: only the order of the sums differs.
        torch.testing.assert_close(ours.contiguous(), theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))


@pytest.mark.slow
def test_resnet50_equals_torchvisions_with_layer4_stride_1():
    reference = torchvision.models.resnet50(weights=None).double().eval()
    reference.layer4[0].conv2.stride = (1, 1)
    reference.layer4[0].downsample[0].stride = (1, 1)
    for module in reference.modules():  # running statistics other than 0 and 1, so that they count
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    backbone = Backbone("resnet50", pretrained=False)
    theirs = reference.state_dict()
    ours = {name: name.split(".", 2)[2] for name in backbone.state_dict()}
    assert set(theirs) - set(ours.values()) == {"fc.weight", "fc.bias"}
    backbone.double().load_state_dict({name: theirs[source] for name, source in ours.items()})
    backbone.eval()
    images = torch.randn(2, 3, 96, 48, dtype=torch.float64)
    with torch.no_grad():
        maps = backbone.features(images, torch.tensor([0, 1]))
        single = backbone.float().features(images.float(), torch.tensor([0, 1]))[4]
        x = reference.maxpool(reference.relu(reference.bn1(reference.conv1(images))))
        expected = [x]
        for layer in (reference.layer1, reference.layer2, reference.layer3, reference.layer4):
            x = layer(x)
            expected.append(x)
    for part, wanted in zip(maps, expected, strict=True):
        # In float64 the two differ by the order of sums: 50 layers of 2^-53 relative rounding are far below 1e-10.
        torch.testing.assert_close(part.contiguous(), wanted, rtol=1e-10, atol=1e-10 * float(wanted.abs().max()))
    # In float32, 2^-24 relative rounding a layer, sums of up to 4608 products (error growing as the root): ~50 * 4e-6.
    torch.testing.assert_close(
        single.double().contiguous(), expected[4], rtol=0, atol=2e-4 * float(expected[4].abs().max())
    )


@pytest.mark.parametrize("streams", [0, 1, 2, 5])
def test_parts_per_modality_start_from_the_same_weights_and_share_none(streams):
    backbone = tiny(two_stream_until=streams)
    state = backbone.state_dict()
    for part in range(5):
        visible = [name for name in state if name.startswith(f"stages.{part}.visible.")]
        assert bool(visible) == (part < streams)
        for name in visible:
            infrared = state[name.replace(".visible.", ".infrared.")]
            assert torch.equal(state[name], infrared)
            assert state[name].data_ptr() != infrared.data_ptr()


@pytest.mark.slow
@pytest.mark.parametrize("streams", [0, 1, 2, 5])
@pytest.mark.parametrize("modality", [[0, 0, 1, 1], [1, 1, 0, 0], [0, 1, 0, 1], [1, 0, 0, 1], [0, 0, 0, 1]])
def test_every_order_of_modalities_gives_the_same_maps(streams, modality):
    backbone = tiny(two_stream_until=streams).eval().double()
    with torch.no_grad():
        for name, parameter in backbone.named_parameters():
            if ".infrared." in name:
                parameter.mul_(1.5)
    images, modality = torch.randn(4, 3, 64, 32, dtype=torch.float64), torch.tensor(modality)
    with torch.no_grad():
        together = backbone.features(images, modality)
        for row in range(4):
            alone = backbone.features(images[row : row + 1], modality[row : row + 1])
            for one, all_rows in zip(alone, together, strict=True):
                torch.testing.assert_close(one[0], all_rows[row])


def test_rows_of_the_usual_order_are_slices_without_copies():
    rows = ModalityRows.of(torch.tensor([0, 0, 1, 1, 1]))
    assert (rows.visible, rows.infrared, rows.counts, rows.restore) == (slice(0, 2), slice(2, None), (2, 3), None)


@pytest.mark.parametrize("label", [0, 1])
def test_a_batch_of_one_modality_trains_that_modalitys_copy_alone(label):
    backbone = tiny(two_stream_until=1)
    backbone.features(torch.randn(2, 3, 64, 32), torch.full((2,), label))[-1].sum().backward()
    present, absent = (".visible.", ".infrared.")[label], (".infrared.", ".visible.")[label]
    assert all(p.grad is not None for name, p in backbone.named_parameters() if present in name)
    assert all(p.grad is None for name, p in backbone.named_parameters() if absent in name)


def test_another_modality_is_refused():
    with pytest.raises(VIReIDError, match="modality 2"):
        tiny(two_stream_until=1).features(torch.zeros(2, 3, 64, 32), torch.tensor([0, 2]))


def test_a_module_behind_a_stage_changes_its_map_and_what_follows():
    backbone = tiny().eval()
    images, modality = torch.randn(2, 3, 64, 32), torch.tensor([0, 1])
    plain = backbone.features(images, modality)
    backbone.insert_after(3, torch.nn.ReLU6())
    backbone.insert_after(4, torch.nn.Softplus())
    changed = backbone.features(images, modality)
    torch.testing.assert_close(changed[3], torch.nn.functional.relu6(plain[3]))
    expected = torch.nn.functional.softplus(backbone.stages[4](changed[3]))
    torch.testing.assert_close(changed[4], expected)
    for stage in (3, 5, -1):
        with pytest.raises(VIReIDError, match="inserted"):
            backbone.insert_after(stage, torch.nn.Identity())


def test_maps_are_not_overwritten_by_the_stage_behind():
    # Pre-activation networks begin a stage with an in-place activation on the map before.
    backbone = Backbone("nf_regnet_b0", pretrained=False).eval()
    with torch.no_grad():
        maps = backbone.features(torch.randn(1, 3, 64, 32), torch.tensor([0]))
        x = copy.deepcopy(maps[0])
        for number, stage in enumerate(backbone.stages[1:], start=1):
            x = stage(x.clone())
            torch.testing.assert_close(maps[number], x)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("coatnet_0_224", "no four stages .* images of any size"),
        ("vit_relpos_small_patch16_224", "nor is it a plain vision transformer"),
        ("deit_tiny_distilled_patch16_224", "structure of its own"),
        ("hf-hub:timm/resnet10t.c3_in1k", "give a plain name"),
        ("local-dir:/tmp/model", "give a plain name"),
        ("resnet5O", "Did you mean 'resnet50'"),
        ("resnet50.tv_in2k", "Did you mean 'resnet50.tv_in1k'"),
        ("no/such", "no model named"),
    ],
)
def test_unsuitable_names_are_refused_without_a_network(name, message):
    with pytest.raises(VIReIDError, match=message):
        Backbone(name, pretrained=True)


def test_bad_arguments_are_refused():
    with pytest.raises(VIReIDError, match="last_stride is 3"):
        tiny(last_stride=3)
    with pytest.raises(VIReIDError, match="two_stream_until is 6"):
        tiny(two_stream_until=6)


def test_weights_that_cannot_be_downloaded_are_told(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(VIReIDError, match="pretrained: false"):
        Backbone("resnet10t.c3_in1k", pretrained=True)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("name", ["resnet10t", "mobilenetv3_small_050", "convnext_atto"])
def test_weights_from_a_local_file(name, suffix, tmp_path):
    source = timm.create_model(name, pretrained=False)
    path = tmp_path / f"weights{suffix}"
    state = {key: value.contiguous() for key, value in source.state_dict().items()}
    torch.save(state, path) if suffix == ".pth" else save_file(state, path)
    backbone = Backbone(name, weights=str(path), last_stride=2, two_stream_until=1).eval()
    images = torch.randn(1, 3, 64, 32)
    with torch.no_grad():
        expected = source.eval().forward_intermediates(images, intermediates_only=True)[-1]
        for label in (0, 1):
            last = backbone.features(images, torch.tensor([label]))[-1]
            torch.testing.assert_close(last.contiguous(), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_without_pretrained_the_weights_file_is_not_read():
    Backbone("resnet10t", pretrained=False, weights="nowhere.pth")


def test_unfit_weights_files_are_told(tmp_path):
    with pytest.raises(VIReIDError, match="no weights file at 'nowhere"):
        Backbone("resnet10t", weights="nowhere.pth")
    path = tmp_path / "weights.pth"
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(VIReIDError, match="is not a checkpoint"):
        Backbone("resnet10t", weights=str(path))
    torch.save(timm.create_model("resnet18", pretrained=False).state_dict(), path)
    with pytest.raises(VIReIDError, match="looks like timm's 'resnet18'"):
        Backbone("resnet10t", weights=str(path))
    torch.save({"something": torch.zeros(3)}, path)
    with pytest.raises(VIReIDError, match="holds no weights of 'resnet10t'"):
        Backbone("resnet10t", weights=str(path))


def test_state_dict_round_trip():
    images, modality = torch.randn(2, 3, 64, 32), torch.tensor([1, 0])
    first, second = (tiny(two_stream_until=2).eval() for _ in range(2))
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(images, modality)[-1], second(images, modality)[-1])


@pytest.mark.parametrize("name", ["resnet10t", "densenet121"])
def test_stochastic_depth_where_there_is_one(name):
    if name == "densenet121":
        with pytest.raises(VIReIDError, match="no stochastic depth"):
            Backbone(name, pretrained=False, settings=BackboneSettings(drop_path=0.3))
        return
    backbone = Backbone(name, pretrained=False, settings={"drop_path": 0.3})
    rates = [part.drop_prob for part in backbone.modules() if isinstance(part, DropPath)]
    assert max(rates) == pytest.approx(0.3)
    assert rates == sorted(rates)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"token": "class"}, "token is class"),
        ({"patch_stride": 12}, "patch_stride is 12"),
        ({"drop_path": 1.0}, "drop_path is 1.0"),
        ({"token": "cls"}, "give one of pooled, class"),
        ({"last_stride": 4}, "last_stride is 4"),
    ],
)
def test_settings_without_a_meaning_are_refused(settings, message):
    with pytest.raises(VIReIDError, match=message):
        tiny(settings=settings)


@pytest.mark.parametrize("dense", [DenseMerging(PatchMerging(3, 5)), DenseMerging(PatchMergingV2(3, 5))])
def test_a_merging_without_stride_merges_the_square_at_each_pixel(dense):
    x = torch.randn(2, 5, 4, 3)
    padded = torch.nn.functional.pad(x, (0, 0, 0, 1, 0, 1))
    merged = dense(x)
    assert merged.shape == (2, 5, 4, 5)
    for row in range(5):
        for column in range(4):
            square = dense.merging(padded[:, row : row + 2, column : column + 2])
            torch.testing.assert_close(merged[:, row, column], square[:, 0, 0])


class TestHighResolution:
    """HRNet's head joins the branches; timm's own network is the reference."""

    @pytest.mark.slow
    def test_the_last_map_is_that_of_timms_head(self):
        torch.manual_seed(0)
        reference = timm.create_model("hrnet_w18_small", pretrained=False).eval()
        backbone = Backbone("hrnet_w18_small", pretrained=False, last_stride=2).eval()
        # timm lists the head's modules behind the branches, ours are in the order of use; all sizes are told by names.
        theirs = reference.state_dict()
        renamed = {
            "stages.1.increase": "incre_modules.0",
            **{f"stages.{part}.increase": f"incre_modules.{part - 1}" for part in (2, 3, 4)},
            **{f"stages.{part}.downsample": f"downsamp_modules.{part - 2}" for part in (2, 3, 4)},
            "stages.4.final": "final_layer",
            "stages.1.network.": "",
            "stages.0.": "",
        }
        state = {}
        for name in backbone.state_dict():
            ours = next(prefix for prefix in renamed if name.startswith(prefix))
            state[name] = theirs[name.replace(ours, renamed[ours], 1)]
        assert len(theirs) - len(state) == 2  # the classifier's
        backbone.load_state_dict(state)
        images = torch.randn(2, 3, 64, 96)
        with torch.no_grad():
            maps = backbone.features(images, torch.tensor([0, 1]))
            expected = reference.forward_features(images)
            branches = reference.forward_intermediates(images, intermediates_only=True)
        torch.testing.assert_close(maps[-1].contiguous(), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
        torch.testing.assert_close(maps[1].contiguous(), branches[1], rtol=1e-4, atol=1e-4)
        assert [part.shape[1] for part in maps] == backbone.channels == [64, 128, 256, 512, 2048]
        assert backbone.strides == [4, 4, 8, 16, 32]

    def test_its_images_are_multiples_of_32_and_its_stem_alone_exists_per_modality(self):
        backbone = Backbone("hrnet_w18_small", pretrained=False, two_stream_until=1).eval()
        with torch.no_grad():
            last = backbone.features(torch.randn(2, 3, 64, 32), torch.tensor([1, 0]))[-1]
        assert last.shape == (2, 2048, 4, 2)
        assert backbone.strides[-1] == 16
        with pytest.raises(VIReIDError, match="multiples of 32"):
            backbone.features(torch.randn(2, 3, 72, 36), torch.tensor([1, 0]))
        with pytest.raises(VIReIDError, match="to 1"):
            Backbone("hrnet_w18_small", pretrained=False, two_stream_until=2)


class Own(torch.nn.Module):
    """A network of a user's own."""

    def __init__(self) -> None:
        super().__init__()
        conv = torch.nn.Conv2d
        self.stages = torch.nn.ModuleList(
            [conv(3, 4, 4, 4), conv(4, 4, 1), conv(4, 6, 2, 2), conv(6, 8, 2, 2), conv(8, 8, 1)]
        )


def test_an_own_network_keeps_the_contract(tmp_path):
    backbone = Backbone(Own, two_stream_until=2)
    assert (backbone.channels, backbone.strides) == ([4, 4, 6, 8, 8], [4, 4, 8, 16, 16])
    assert backbone.signed
    maps = backbone.features(torch.randn(2, 3, 64, 32), torch.tensor([1, 0]))
    assert [tuple(part.shape[1:]) for part in maps][-1] == (8, 4, 2)
    assert backbone.name.endswith("test_backbone.Own")
    source = Own()
    torch.save(source.state_dict(), tmp_path / "own.pth")
    loaded = Backbone(Own, weights=str(tmp_path / "own.pth"))
    assert torch.equal(loaded.stages[2].weight, source.stages[2].weight)
    torch.save({"x": torch.zeros(1)}, tmp_path / "own.pth")
    with pytest.raises(VIReIDError, match="could not be loaded as weights of"):
        Backbone(Own, weights=str(tmp_path / "own.pth"))


class FourParts(Own):
    def __init__(self) -> None:
        super().__init__()
        del self.stages[4]


class Vectors(Own):
    def __init__(self) -> None:
        super().__init__()
        self.stages[4] = torch.nn.Flatten()


class Outside(Own):
    def __init__(self) -> None:
        super().__init__()
        self.head = torch.nn.Linear(8, 2)


class Demanding(Own):
    def __init__(self, width: int) -> None:
        super().__init__()


@pytest.mark.parametrize(
    ("network", "message"),
    [(FourParts, "of 5 parts"), (Vectors, "Part 4"), (Outside, "head.weight"), (Demanding, "without arguments")],
)
def test_an_own_network_that_does_not_is_refused(network, message):
    with pytest.raises(VIReIDError, match=message):
        Backbone(network)
