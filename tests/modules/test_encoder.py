"""The encoder that methods share, and how a method takes it over."""

from __future__ import annotations

import copy

import torch
from torch import nn

from vireid_lightning.methods import AGW, CMAM, Baseline, DCLNet
from vireid_lightning.modules import Encoder, GeM, encode

IMAGES, MODALITY = torch.randn(4, 3, 64, 32), torch.tensor([0, 1, 1, 0])


def test_pooled_and_z_are_those_of_the_last_map():
    encoder = Encoder("resnet10t", pretrained=False, two_stream_until=1, pool=GeM(2.0)).eval()
    maps, pooled, z = encoder(IMAGES, MODALITY)
    expected = encoder.backbone.features(IMAGES, MODALITY)
    assert all(torch.equal(a, b) for a, b in zip(maps, expected, strict=True))
    torch.testing.assert_close(pooled, expected[-1].square().mean((2, 3)).sqrt(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(z, pooled / (1 + 1e-5) ** 0.5)  # the neck of an untrained encoder in eval mode
    for ours, theirs in zip(encode(encoder.backbone, encoder.pool, encoder.neck, IMAGES, MODALITY)[1:], (pooled, z)):
        assert torch.equal(ours, theirs)


def test_methods_keep_the_names_that_checkpoints_have():
    arguments = {"backbone": "test_resnet", "pretrained": False}
    for module in (Baseline(num_classes=3, **arguments), AGW(num_classes=3, **arguments), CMAM(**arguments)):
        roots = {name.split(".")[0] for name in module.state_dict()}
        assert {"backbone", "neck"} <= roots <= {"backbone", "neck", "pool", "classifier", "gray"}
    assert {"gray.backbone", "gray.pool", "gray.neck"} == {
        ".".join(name.split(".")[:2]) for name in CMAM(**arguments).state_dict() if name.startswith("gray")
    }


def test_a_part_that_is_replaced_is_the_one_that_is_used():
    """As the conversion to synchronised batch normalisation does, which replaces children by their names."""
    module = DCLNet(num_classes=3, backbone="test_resnet", pretrained=False).eval()
    module.neck = nn.Identity()
    encoding = module.encode(IMAGES, MODALITY)
    assert encoding.z is encoding.pooled
    assert not [name for name, part in copy.deepcopy(module).named_modules() if isinstance(part, Encoder)]
