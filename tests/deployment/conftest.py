"""A tiny network in a checkpoint, and images of two cameras."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from references.deployment import make_streams_differ, write_checkpoint

from vireid_lightning.methods import AGW


@pytest.fixture(scope="session")
def network():
    torch.manual_seed(0)
    return make_streams_differ(AGW(num_classes=3, backbone="test_resnet", pretrained=False))


@pytest.fixture(scope="session")
def checkpoint(network, tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("run") / "last.ckpt", network)


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    """A folder with camera1 (12 visible) and camera3 (6 infrared) images of different sizes."""
    root = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for camera, count, channels in (("camera1", 12, 3), ("camera3", 6, 1)):
        (root / camera).mkdir()
        for number in range(count):
            height, width = 60 + 7 * number, 30 + 3 * number
            small = generator.integers(0, 256, (8, 4, channels), dtype=np.uint8).squeeze()
            Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).save(
                root / camera / f"{number:02d}.png"
            )
    return root
