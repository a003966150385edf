"""Part-aware parsing, pixel classifiers and semantic rectification, against loops."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from vireid_lightning.errors import VIReIDError
from vireid_lightning.modules import (
    ModalityRows,
    PartAwareParsing,
    PixelClassifiers,
    predicted_mask,
    rectify_parts,
    require_part_rows,
    shrink_mask,
)


@pytest.mark.parametrize("height", [96, 192, 288, 384])
def test_heights_that_fit(height):
    require_part_rows(height, 6)


@pytest.mark.parametrize(("height", "nearest"), [(256, "192 or 288"), (64, "96 or 192"), (100, "96 or 192")])
def test_heights_that_do_not_fit_are_told_which_do(height, nearest):
    with pytest.raises(VIReIDError, match=f"height of {height} .* multiple of 96, such as {nearest}"):
        require_part_rows(height, 6)


def test_shrunk_mask_takes_every_fourth_pixel():
    mask = torch.rand(2, 24, 12, generator=torch.Generator().manual_seed(0)) < 0.3
    assert torch.equal(shrink_mask(mask, (6, 3)), mask[:, ::4, ::4])


def test_activation_mask_equals_loops_and_edges_do_not_leak():
    torch.manual_seed(0)
    parsing, maps = PartAwareParsing(5, 4, parts=3), torch.rand(2, 5, 6, 4)
    predicted, erased = torch.tensor([3, 1]), torch.zeros(2, 12, 8, dtype=torch.bool)
    erased[0, 2:4, 1:3] = True
    wanted = torch.zeros(2, 12, 8, dtype=torch.long)
    for image in range(2):
        for part in range(3):
            weights = parsing.classifier.weight[predicted[image]].view(3, 5)[part]
            activation = torch.einsum("c,chw->hw", weights, maps[image, :, part * 2 : part * 2 + 2])
            activation = F.interpolate(activation[None, None], (4, 8), mode="bilinear")[0, 0]
            wanted[image, part * 4 : part * 4 + 4] = (activation > activation.mean()).long() * (part + 1)
    wanted[erased] = 0
    assert torch.equal(parsing.activation_mask(maps, predicted, (12, 8), erased), wanted)


def test_part_logits_pool_each_stripe_and_give_the_maps_no_gradient():
    torch.manual_seed(0)
    parsing, maps = PartAwareParsing(5, 4, parts=3).eval(), torch.rand(2, 5, 6, 4, requires_grad=True)
    pooled = torch.cat([(part.pow(3).mean((2, 3)) + 1e-12) ** (1 / 3) for part in maps.chunk(3, dim=2)], dim=1)
    logits = parsing(maps)
    torch.testing.assert_close(logits, parsing.classifier(parsing.neck(pooled)))
    logits.sum().backward()
    assert maps.grad is None
    assert parsing.classifier.weight.grad is not None


@pytest.mark.parametrize("modality", [[0, 0, 1, 1], [1, 0, 1, 0], [1, 1, 1, 1]])
def test_pixel_classifiers_equal_the_stacked_maps(modality):
    torch.manual_seed(0)
    pixels, modality = PixelClassifiers([3, 4, 5], parts=6).double(), torch.tensor(modality)
    maps = [torch.rand(4, c, *size, dtype=torch.double) for c, size in ((3, (12, 6)), (4, (6, 3)), (5, (3, 2)))]
    maps[0].requires_grad_()
    stacked = torch.cat([F.interpolate(x, (12, 6), mode="bilinear") for x in maps], dim=1).permute(0, 2, 3, 1)
    wanted = torch.stack([(pixels.infrared if m else pixels.visible)(x) for x, m in zip(stacked, modality)])
    logits = pixels(maps, ModalityRows.of(modality), (12, 6))
    torch.testing.assert_close(logits, wanted.permute(0, 3, 1, 2))
    logits.square().sum().backward()
    assert maps[0].grad is None


def test_predicted_mask():
    logits = torch.zeros(1, 8, 1, 3)
    logits[0, 1, 0, 1:] = 1  # pixels 1 and 2 are foreground
    logits[0, 2 + 4, 0] = 1  # all look like part 5
    assert predicted_mask(logits, torch.tensor([[[False, False, True]]])).tolist() == [[[0, 5, 0]]]


def test_rectification_equals_loops():
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(3, 8, 12, 5, generator=generator)
    mask = torch.randint(0, 7, (3, 12, 5), generator=generator)
    mask[1][mask[1] == 4] = 0  # a part without pixels draws none
    mask[2] = torch.where(mask[2] == 6, 6, 0)  # most stripes have no part near them
    wanted = mask.clone()
    for image in range(3):
        prototypes = {
            part: maps[image][:, mask[image] == part].mean(1) for part in range(1, 7) if (mask[image] == part).any()
        }
        for row in range(12):
            near = [part for part in (row // 2, row // 2 + 1, row // 2 + 2) if part in prototypes]
            for column in range(5):
                if mask[image, row, column] and near:
                    pixel = maps[image, :, row, column]
                    wanted[image, row, column] = max(
                        near, key=lambda part: F.cosine_similarity(pixel, prototypes[part], dim=0).item()
                    )
    assert torch.equal(rectify_parts(mask, maps), wanted)
    assert (wanted != mask).any()
