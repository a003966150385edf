from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from vireid_lightning.data.images.resizing import RESIZERS
from vireid_lightning.methods import AGW
from vireid_lightning.types import IMAGENET_MEAN, IMAGENET_STD

SIZE = (64, 32)


def write_checkpoint(path, method, interpolation="bilinear", **more):
    """Write what a run's checkpoint holds of a method and of how its images are prepared."""
    checkpoint = {
        "pytorch-lightning_version": "2.6.0", "epoch": 0, "global_step": 0, "state_dict": method.state_dict(),
    }  # fmt: skip
    method.on_save_checkpoint(checkpoint)
    checkpoint["vireid"]["preprocessing"] = {
        "image_size": list(SIZE),
        "mean": list(IMAGENET_MEAN),
        "std": list(IMAGENET_STD),
        "interpolation": interpolation,
        "resizer": RESIZERS[interpolation],
        **more,
    }
    torch.save(checkpoint, path)
    return path


def make_streams_differ(method):
    """Give the normalisations statistics as training does, and the two streams weights of their own."""
    generator = torch.Generator().manual_seed(1)
    for module in method.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    for name, parameter in method.named_parameters():
        if ".infrared." in name:
            parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    return method.eval()


@pytest.fixture(scope="session")
def network():
    torch.manual_seed(0)
    return make_streams_differ(AGW(num_classes=3, backbone="resnet10t", pretrained=False))


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
