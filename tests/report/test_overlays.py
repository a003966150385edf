from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from vireid_lightning.errors import VIReIDError
from vireid_lightning.methods import AGW, CMAM, MMGL, Baseline, DCLNet, MPANet
from vireid_lightning.report.charts import plain_style
from vireid_lightning.report.overlays import draw_overlays, lay_over, measure_similarity

PREPROCESSING = {"image_size": [96, 48], "interpolation": "bilinear"}


@pytest.fixture
def pair(tmp_path):
    for name in ("query.png", "gallery.png"):
        cv2.imwrite(str(tmp_path / name), np.random.default_rng(0).integers(0, 256, (40, 20, 3), dtype=np.uint8))
    return [(tmp_path / "query.png", 1), (tmp_path / "gallery.png", 0)]


def test_similarity_is_that_of_a_place_with_the_other_image():
    maps = torch.randn(2, 5, 4, 3, generator=torch.Generator().manual_seed(0))
    found = measure_similarity(maps)
    for row, column in ((0, 0), (3, 2)):
        for image in (0, 1):
            other = maps[1 - image].mean(dim=(1, 2))
            expected = torch.nn.functional.cosine_similarity(maps[image, :, row, column], other, dim=0)
            assert found[image, row, column].item() == pytest.approx(expected.item(), abs=1e-6)


def test_a_map_of_zero_leaves_the_image_in_gray_and_one_colours_it():
    image = np.random.default_rng(0).integers(0, 256, (8, 4, 3), dtype=np.uint8)
    plain = lay_over(image, torch.zeros(2, 2))
    assert np.abs(plain - image.mean(axis=2, keepdims=True)).max() <= 0.5
    half = lay_over(image, torch.tensor([[1.0, 0.0]]))
    assert np.ptp(half[:, 0].astype(int), axis=1).min() > 30
    assert np.ptp(half[:, 3].astype(int), axis=1).max() == 0


@pytest.mark.parametrize(
    ("method", "names"),
    [
        (Baseline, []),
        (AGW, []),
        (MMGL, []),
        (CMAM, []),
        (MPANet, [f"pattern {number}" for number in range(1, 7)]),
        (DCLNet, [f"{kind} part {number}" for kind in ("predicted", "parsed") for number in range(1, 7)]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_every_method_can_be_looked_at(method, names, pair):
    torch.manual_seed(0)
    classes = {} if method.batches != "identity" else {"num_classes": 4}
    model = method(backbone="resnet10t", pretrained=False, **classes).eval()
    with plain_style():
        figure = draw_overlays(model, PREPROCESSING, pair)
    titles = [axes.get_title().replace("\n", " ") for axes in figure.axes[1 : len(figure.axes) // 2]]
    assert titles == ["similarity", *names]
    for axes in figure.axes:
        assert axes.images[0].get_array().shape == (96, 48, 3)
    images, modality = torch.randn(3, 3, 96, 48), torch.tensor([1, 0, 1])
    with torch.no_grad():
        for maps in model.list_overlays(images, modality).values():
            assert maps.shape[:2] == (3, 6)
            assert maps.min() >= 0
            assert maps.max() <= 1
        # In whichever order the modalities come, a map is that of its image.
        turned = model.list_overlays(images.flip(0), modality.flip(0))
        for name, maps in model.list_overlays(images, modality).items():
            torch.testing.assert_close(turned[name].flip(0), maps, atol=1e-4, rtol=0)


def test_parts_do_not_overlap():
    torch.manual_seed(0)
    model = DCLNet(num_classes=4, backbone="resnet10t", pretrained=False).eval()
    with torch.no_grad():
        for maps in model.list_overlays(torch.randn(2, 3, 96, 48), torch.tensor([0, 1])).values():
            assert set(maps.unique().tolist()) <= {0.0, 1.0}
            assert maps.sum(dim=1).max() <= 1
    bare = DCLNet(backbone="resnet10t", pretrained=False).eval()
    assert bare.list_overlays(torch.randn(2, 3, 96, 48), torch.tensor([0, 1])) == {}


def test_a_checkpoint_without_preprocessing_is_refused(pair):
    model = Baseline(num_classes=4, backbone="resnet10t", pretrained=False).eval()
    with pytest.raises(VIReIDError, match="does not say how its images are prepared"):
        draw_overlays(model, {}, pair)
