"""Plain vision transformers: their maps and tokens are timm's, at any size of image."""

from __future__ import annotations

import pytest
import timm
import torch
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import nn

from vireid_lightning.errors import VIReIDError
from vireid_lightning.modules import Backbone, BackboneSettings
from vireid_lightning.modules.plain_transformer import PositionEmbedding, cut_transformer, resample_positions
from vireid_lightning.modules.trunk import Carried

SMALL = {"embed_dim": 48, "depth": 5, "num_heads": 2}

#: timm's networks of each family, made small: a class token and none, registers, CLIP's norm before the blocks,
#: pooling by attention and by the mean with the norm behind it, layer scale, positions added, rotated, and rotated by
#: learnt angles.
NETWORKS = {
    "test_vit": {},
    "test_vit2": {},
    "test_vit3": {},
    "test_vit4": {},
    "deit3_small_patch16_224": SMALL,
    "vit_small_patch14_dinov2": SMALL,
    "vit_small_patch14_reg4_dinov2": SMALL,
    "vit_base_patch16_clip_224": SMALL,
    "vit_base_patch16_siglip_224": SMALL,
    "eva_large_patch14_196": SMALL,
    "eva02_tiny_patch14_224": SMALL,
    "vit_small_patch16_dinov3": SMALL,
    "vit_small_patch16_rope_mixed_224": SMALL,
}


def create(name: str, **arguments) -> nn.Module:
    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=0, dynamic_img_size=True, **NETWORKS.get(name, {}), **arguments)
    with torch.no_grad():
        for parameter in network.parameters():  # no token, bias or scale is left at what it starts from
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network.eval()


def run(parts, images: torch.Tensor) -> list[Carried]:
    outputs, x = [], images
    for part in parts:
        x = part(x)
        outputs.append(x)
    return outputs


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("own_size", [True, False])
def test_maps_and_tokens_are_timms(name, own_size):
    reference, network = create(name), create(name)
    patch = network.patch_embed.patch_size[0]
    images = torch.randn(
        2, 3, *((side for side in network.patch_embed.img_size) if own_size else (5 * patch, 3 * patch))
    )
    ends = [round(len(network.blocks) * quarter / 4) - 1 for quarter in range(1, 5)]
    trunk = cut_transformer(network)
    with torch.no_grad():
        outputs = run(trunk.parts, images)
        expected = reference.forward_intermediates(
            images, indices=ends, return_prefix_tokens=True, intermediates_only=True
        )
        if not reference.num_prefix_tokens:
            expected = [(part, torch.zeros(2, 0, part.shape[1])) for part in expected]
        final = reference.forward_features(images)
        if isinstance(reference.norm, nn.Identity):
            final = reference.fc_norm(final)
    # The same float32 operations in the same order, but for the sum of a token and its position.
    for ours, (patches, prefix) in zip(outputs[1:4], expected[:3], strict=True):
        torch.testing.assert_close(ours.map, patches, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(ours.rest[0], prefix, rtol=1e-4, atol=1e-4)
    last = outputs[4]
    tokens = torch.cat([last.rest[0], last.map.flatten(2).transpose(1, 2)], dim=1)
    torch.testing.assert_close(tokens, final, rtol=1e-4, atol=1e-4)
    assert trunk.strides == [patch] * 5
    assert trunk.channels == [outputs[0].shape[1]] * 5


def test_the_whole_network_through_the_backbone():
    backbone = Backbone("test_vit", pretrained=False, settings=BackboneSettings(token="class")).eval()
    images, modality = torch.randn(2, 3, 64, 32), torch.tensor([0, 1])
    maps, token = backbone.features_and_token(images, modality)
    assert [tuple(part.shape) for part in maps] == [(2, 64, 4, 2)] * 5
    outputs = run(backbone.stages, images)
    assert torch.equal(token, outputs[-1].rest[0][:, 0])
    assert backbone.signed
    assert Backbone("test_vit", pretrained=False).features_and_token(images, modality)[1] is None


def test_positions_are_resampled_as_timm_does_and_kept_once_fitted():
    backbone = Backbone("test_vit", pretrained=False).eval()
    position = backbone.stages[1].embedding.position
    native = position.grid.detach().clone()
    flat = native.flatten(2).transpose(1, 2)
    wanted = resample_abs_pos_embed(flat, [18, 9], old_size=[10, 10], num_prefix_tokens=0)
    images, modality = torch.randn(2, 3, 288, 144), torch.tensor([0, 1])
    with torch.no_grad():
        before = backbone.features(images, modality)[-1]
        backbone.fit((288, 144))
        assert torch.equal(backbone.features(images, modality)[-1], before)
    torch.testing.assert_close(position.grid.flatten(2).transpose(1, 2), wanted)
    # A state dict keeps the size, and whoever loads it takes it over without a word about sizes.
    other = Backbone("test_vit", pretrained=False).eval()
    parameter = other.stages[1].embedding.position.grid
    other.load_state_dict(backbone.state_dict())
    assert other.stages[1].embedding.position.grid is parameter
    assert parameter.shape == (1, 64, 18, 9)
    with torch.no_grad():
        assert torch.equal(other.features(images, modality)[-1], before)


def test_positions_of_their_own_size_are_not_touched():
    grid = torch.randn(1, 4, 3, 2)
    assert resample_positions(grid, (3, 2)) is grid
    embedding = PositionEmbedding(grid)
    with pytest.raises(RuntimeError, match="size mismatch"):
        embedding.load_state_dict({"grid": torch.zeros(1, 5, 3, 2)})


def test_overlapping_patches():
    backbone = Backbone("test_vit", pretrained=False, settings=BackboneSettings(patch_stride=12)).eval()
    images, modality = torch.randn(1, 3, 64, 44), torch.tensor([0])
    first = backbone.features(images, modality)[0]
    assert first.shape == (1, 64, 5, 3)  # (64 - 16) / 12 + 1, and 4 columns of pixels left out
    proj = backbone.stages[0].proj
    patch = (images[0, :, 12:28, 24:40] * proj.weight).sum((1, 2, 3)) + proj.bias
    torch.testing.assert_close(first[0, :, 1, 2], patch, rtol=1e-4, atol=1e-5)
    assert (backbone.strides, backbone.map_rows(64)) == ([12] * 5, 5)
    backbone.fit((64, 44))
    assert backbone.stages[1].embedding.position.grid.shape[2:] == (5, 3)


def test_a_patch_embedding_for_each_modality():
    backbone = Backbone("test_vit", pretrained=False, two_stream_until=1).eval()
    assert {"stages.0.visible.proj.weight", "stages.0.infrared.proj.weight"} <= set(backbone.state_dict())
    with torch.no_grad():
        backbone.stages[0].infrared.proj.weight.mul_(1.5)
        images = torch.randn(1, 3, 32, 32).expand(2, -1, -1, -1)
        visible, infrared = backbone.features(images, torch.tensor([0, 1]))[0]
        turned = backbone.features(images, torch.tensor([1, 0]))[-1]
        straight = backbone.features(images, torch.tensor([0, 1]))[-1]
    assert not torch.allclose(visible, infrared)
    torch.testing.assert_close(turned, straight.flip(0))
    backbone.fit((48, 32))
    assert backbone.stages[1].embedding.position.grid.shape[2:] == (3, 2)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("test_vit3", {"settings": {"token": "class"}}, "no class token"),
        ("test_vit", {"settings": {"patch_stride": 17}}, "leaves out pixels"),
        ("test_vit", {"settings": {"last_stride": 2}}, "last_stride is 2"),
        ("test_vit", {"two_stream_until": 2}, "give 0 .* to 1"),
        ("test_vit", {"stage1_for": "It wants pixels"}, r"It wants pixels.* stride of 4; that of 'test_vit' has 16"),
        ("test_vit", {"weights": "nowhere.pth", "pretrained": True}, "no weights file"),
    ],
)
def test_what_does_not_fit_is_told(name, arguments, message):
    with pytest.raises(VIReIDError, match=message):
        Backbone(name, **{"pretrained": False, **arguments})


def test_images_that_patches_do_not_fill_are_told():
    backbone = Backbone("test_vit", pretrained=False)
    for refuse in (
        lambda: backbone.features(torch.zeros(1, 3, 70, 32), torch.tensor([0])),
        lambda: backbone.fit((70, 32)),
    ):
        with pytest.raises(VIReIDError, match=r"70 x 32 .* \[64, 32\] or \[80, 48\]"):
            refuse()


def test_weights_from_a_local_file(tmp_path):
    source = timm.create_model("test_vit", pretrained=False).eval()
    torch.save(source.state_dict(), tmp_path / "vit.pth")
    backbone = Backbone("test_vit", weights=str(tmp_path / "vit.pth")).eval()
    images = torch.randn(1, 3, 160, 160)
    with torch.no_grad():
        last = backbone.features(images, torch.tensor([0]))[-1]
        torch.testing.assert_close(
            last.flatten(2).transpose(1, 2), source.forward_features(images)[:, 1:], rtol=1e-4, atol=1e-4
        )
    with pytest.raises(VIReIDError, match=r"vit.pth holds no weights of 'test_vit2'"):
        Backbone("test_vit2", weights=str(tmp_path / "vit.pth"))


def test_layers_count_from_the_images():
    backbone = Backbone("test_vit", pretrained=False, two_stream_until=1)  # 6 blocks
    numbers, count = backbone.layer_numbers()
    assert count == 7
    assert numbers["stages.0.infrared.proj.weight"] == numbers["stages.1.embedding.position.grid"] == 0
    blocks = [number for name, number in numbers.items() if name.endswith("attn.qkv.weight")]
    assert blocks == [1, 2, 3, 4, 5, 6]
    assert set(dict(backbone.named_parameters())) - set(numbers) == {"stages.4.norm.weight", "stages.4.norm.bias"}
    numbers, count = Backbone("resnet10t", pretrained=False).layer_numbers()
    assert (count, sorted(set(numbers.values()))) == (5, [0, 1, 2, 3, 4])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["test_vit", "swin_tiny_patch4_window7_224"])
def test_exports_with_any_number_of_images(name):
    backbone = Backbone(name, pretrained=False).eval()
    size = (64, 32)
    batch = torch.export.Dim("batch", min=1, max=64)
    arguments = torch.randn(2, 3, *size), torch.tensor([0, 1])
    program = torch.export.export(backbone, arguments, dynamic_shapes=({0: batch}, {0: batch})).module()
    images, modality = torch.randn(3, 3, *size), torch.zeros(3, dtype=torch.int64)
    with torch.no_grad():
        torch.testing.assert_close(program(images, modality)[-1], backbone(images, modality)[-1])
