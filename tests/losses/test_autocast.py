"""Losses under bf16 and fp16 autocast, at feature scales from 1e-3 to 1e3, against float64 on the same rounded inputs.

Every loss computes in float32 whatever the autocast. What the error may be follows from that:

* Logits reach about 4 * 1e3 (four standard deviations at the largest scale), where float32 is rounded to 1.2e-4; a
  softmax of them has twice that as its relative error. Cosines of 64 numbers have errors of 4e-6, times the inverse
  temperature 20 (8e-5) or the circle loss's scale 64 (3e-4). So a loss has a relative error of at most 5e-4.
* A gradient goes back through the half-precision input, which rounds it once: 2^-8 of its value in bfloat16, 2^-11 in
  float16, where values below 2^-14 are rounded to multiples of 2^-24. Sums that cancel lose relative to the largest
  entry: 1e-3 of it. The mutual mean loss alone has a gradient p (x - mean of x), which cancels to 0 where p is 0 or 1:
  what is left is float32's rounding, 2^-23, of the loss.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from vireid_lightning import losses

SCALES = [1e-3, 1e-2, 1.0, 1e2, 1e3]
PRECISIONS = [torch.bfloat16, torch.float16]
IDENTITY = torch.arange(4).repeat(4)
MODALITY = torch.arange(16) // 8
MASK = torch.arange(3).repeat(2, 4, 2)  # (2, 4, 6): background and two parts
ORDER = torch.tensor([[2, 0, 1, 3], [3, 1, 0, 2]])

#: Each loss as a scalar of its half-precision inputs, and their shapes.
LOSSES = {
    "asymmetric_kl": (losses.asymmetric_kl, [(16, 8)] * 3),
    "asymmetric_similarity": (losses.asymmetric_similarity, [(16, 64)] * 3),
    "symmetric_kl_divergence": (losses.symmetric_kl_divergence, [(16, 8)] * 2),
    "similarity_difference": (losses.similarity_difference, [(16, 64)] * 2),
    "batch_hard_triplet_loss": (lambda x: losses.batch_hard_triplet_loss(x, IDENTITY), [(16, 64)]),
    "batch_hard_triplet_loss, soft": (lambda x: losses.batch_hard_triplet_loss(x, IDENTITY, None), [(16, 64)]),
    "center_cluster_loss": (lambda x: losses.center_cluster_loss(x, IDENTITY), [(16, 64)]),
    "circle_softmax_logits": (
        lambda x, w: F.cross_entropy(losses.circle_softmax_logits(x, w, IDENTITY), IDENTITY),
        [(16, 64), (4, 64)],
    ),
    "prototype_logits": (
        lambda x: F.cross_entropy(losses.prototype_logits(x, torch.eye(4, 64)), IDENTITY),
        [(16, 64)],
    ),
    "distance_difference": (losses.distance_difference, [(16, 64)] * 2),
    "euclidean_distances": (lambda x, y: losses.euclidean_distances(x, y).mean(), [(16, 64)] * 2),
    "cycle_contrastive_loss": (losses.cycle_contrastive_loss, [(16, 64)] * 2),
    "cycle_return_loss": (losses.cycle_return_loss, [(16, 64)] * 2),
    "dense_contrastive_loss": (
        lambda v, i: losses.dense_contrastive_loss(v, i, MASK, MASK.flip(1, 2)),
        [(2, 64, 4, 6)] * 2,
    ),
    "modality_identity_loss": (lambda x: losses.modality_identity_loss(x, IDENTITY, MODALITY), [(16, 8)]),
    "mutual_mean_loss": (losses.mutual_mean_loss, [(16, 8)] * 2),
    "permutation_recovery_loss": (lambda x: losses.permutation_recovery_loss(x, ORDER), [(2, 4, 4)]),
    "sinkhorn": (lambda x: losses.sinkhorn(x).square().sum(), [(2, 4, 4)]),
    "pixel_classification_loss": (lambda x: losses.pixel_classification_loss(x, MASK), [(2, 4, 4, 6)]),
    "continuity_loss": (losses.continuity_loss, [(2, 4, 4, 6)]),
    "separation_loss": (lambda x: losses.separation_loss(x.abs()), [(2, 3, 4, 6)]),
    "weighted_regularized_triplet_loss, release": (
        lambda x: losses.weighted_regularized_triplet_loss(x, IDENTITY, form="release"),
        [(16, 64)],
    ),
    "weighted_regularized_triplet_loss, softmax": (
        lambda x: losses.weighted_regularized_triplet_loss(x, IDENTITY, form="softmax"),
        [(16, 64)],
    ),
}
#: What makes no loss by itself.
HELPERS = {"permutation_matrix", "recover_order"}


def test_every_loss_is_among_the_cases():
    assert {name.split(",")[0] for name in LOSSES} | HELPERS == set(losses.__all__)


def evaluate(loss, inputs, *, autocast=None):
    inputs = [value.clone().requires_grad_() for value in inputs]
    with torch.autocast("cpu", dtype=autocast, enabled=autocast is not None):
        value = loss(*inputs)
    value.backward()
    return value.detach(), [each.grad for each in inputs]


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("precision", PRECISIONS, ids=["bf16", "fp16"])
@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_under_autocast_is_that_of_float64(name, precision, scale):
    loss, shapes = LOSSES[name]
    generator = torch.Generator().manual_seed(0)
    inputs = [(scale * torch.randn(shape, generator=generator)).to(precision) for shape in shapes]
    value, gradients = evaluate(loss, inputs, autocast=precision)
    expected, exact = evaluate(loss, [each.double() for each in inputs])
    assert value.dtype is torch.float32
    assert value.isfinite()
    torch.testing.assert_close(value.double(), expected, rtol=5e-4, atol=1e-6)
    rounding = 2**-8 if precision is torch.bfloat16 else 2**-11
    for gradient, wanted in zip(gradients, exact, strict=True):
        assert (gradient is None) == (wanted is None)  # a fixed target
        if gradient is not None:
            assert gradient.isfinite().all()
            largest = wanted.abs().max().item()
            cancelled = 2**-23 * expected.item() if name == "mutual_mean_loss" else 0
            bound = {"rtol": rounding, "atol": 1e-3 * largest + 2**-24 + cancelled}
            torch.testing.assert_close(gradient.double(), wanted, **bound)
