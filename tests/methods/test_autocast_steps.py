"""The losses of every method under bf16 and fp16 autocast, with maps of the scales 1e-3 to 1e3.

They are finite, and near to those of float64 on the same rounded maps. How near follows from where they are computed:

* What makes a loss of pooled features is float32 throughout (triplet and center cluster losses; all terms of CMAM).
  Sums of 96 products have a relative error of at most 96 * 2^-24, and logits of up to 64, the circle loss's scale, of
  64 * 2^-24 each; a difference of two of them in each of three streams makes it 6 times that.
* Behind a linear layer, whose operand, weight and result are rounded to u = 2^-9 (bf16) or 2^-12 (fp16) of their value,
  logits of about 1 have an error of up to 3 u, and a difference of two of them of 6 u. One rounding each for a
  normalisation before it and for a product behind it makes 8 u: of 1, or of the loss where that is larger.
* MPANet's masks and MMGL's orders saturate. Of the 192 mask values here, 12 images with two masks of 8 pixels, 192 / L
  lie where a sigmoid of logits of size L is steep, and are off by a quarter of 3 u L: 12 u in the mean over images,
  whatever L is, if as many lie there as may be expected. 32 u allow for more.

What is chosen, such as the part that a pixel shows, has no error that would shrink with u: where two parts are equally
likely, the choice is any. Float64 is therefore given the choices that were made under autocast. Losses that are float32
whatever they are given are so in the float64 run, too.
"""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from references.batches import training_batch
from references.processes import METHODS

from vireid_lightning.methods import CMAM, dclnet
from vireid_lightning.methods.cmam.schedule import Timeline
from vireid_lightning.modules.backbone import Backbone
from vireid_lightning.modules.parts import PartAwareParsing

SUPERVISED = [method for method in METHODS if method is not CMAM]
PRECISIONS = pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
SATURATED = {"separation", "permutation_recovery"}
#: Terms that no half-precision layer stands before.
FLOAT32 = {"triplet", "mutual_kl", "mutual_similarity", "contrast_rgb", "contrast_gray"}
FLOAT32 |= {"agreement_kl", "agreement_distance", "CMAM identity", "DCLNet center_cluster"}


def build(method, stage=None):
    """Return a method in training, CMAM in its stage with three clusters."""
    torch.manual_seed(0)
    module = method(backbone="test_resnet", pretrained=False, **METHODS[method]).train()
    if stage is not None:
        timeline = Timeline(module.source, module.target, steps_per_epoch=3, lr=3.5e-4)
        module.enter(next(phase for phase in timeline.phases if phase.domain == stage))
        rows = [F.normalize(torch.randn(3, module.backbone.channels[-1])) for _ in range(2)]
        module._prototypes, module._classifiers = rows, [torch.nn.Parameter(row.clone()) for row in rows]
    return module


@pytest.mark.parametrize("scale", [1e-3, 1e-2, 1.0, 1e2, 1e3])
@PRECISIONS
@pytest.mark.parametrize("method", SUPERVISED)
def test_losses_and_gradients_are_finite(method, precision, scale, monkeypatch):
    check_a_step(build(method), precision, scale, monkeypatch)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@PRECISIONS
@pytest.mark.parametrize("stage", ["source", "target"])
def test_losses_and_gradients_of_both_stages_of_cmam_are_finite(stage, precision, scale, monkeypatch):
    check_a_step(build(CMAM, stage), precision, scale, monkeypatch)


def check_a_step(module, precision, scale, monkeypatch):
    original = Backbone.features_and_token

    def scaled(self, images, modality):
        maps, token = original(self, images, modality)
        return [scale * each for each in maps], token

    monkeypatch.setattr(Backbone, "features_and_token", scaled)
    with torch.autocast("cpu", dtype=precision):
        terms = module.losses(training_batch(size=(64, 32)))
        total = sum(terms.values())
    total.backward()
    assert all(term.isfinite() for term in terms.values())
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)


class Maps:
    """Stands in for the backbones: maps of normal numbers behind a ReLU, another five for each call."""

    def __init__(self, scale: float, precision: torch.dtype, dtype: torch.dtype) -> None:
        self.scale, self.precision, self.dtype = scale, precision, dtype
        self.generator = torch.Generator().manual_seed(0)

    def __call__(self, backbone, images, modality):
        sizes = [(16, 8), (16, 8), (8, 4), (4, 2), (4, 2)]  # of the stem and the four stages, for 64 x 32 pixels
        shapes = [(len(images), channels, *size) for channels, size in zip(backbone.channels, sizes, strict=True)]
        drawn = [self.scale * torch.randn(shape, generator=self.generator).relu() for shape in shapes]
        return [each.to(self.precision).to(self.dtype) for each in drawn], None


class Choices:
    """Notes what functions return, or returns it again in the order in which it was noted."""

    def __init__(self) -> None:
        self.noted: list[torch.Tensor] = []
        self.replays = False

    def follow(self, function):
        def followed(*arguments, **named):
            if self.replays:
                return self.noted.pop(0)
            self.noted.append(function(*arguments, **named))
            return self.noted[-1]

        return followed


@pytest.mark.parametrize("scale", [1e-3, 1e-2, 1.0, 1e2, 1e3])
@PRECISIONS
@pytest.mark.parametrize(
    ("method", "stage"), [*((method, None) for method in SUPERVISED), (CMAM, "source"), (CMAM, "target")]
)
def test_losses_of_the_same_maps_are_those_of_float64(method, stage, precision, scale, monkeypatch):
    module, batch, choices = build(method, stage), training_batch(size=(64, 32)), Choices()
    exact = copy.deepcopy(module).double()
    if stage is not None:
        exact._prototypes, exact._classifiers = (
            [rows.double() for rows in each] for each in (module._prototypes, module._classifiers)
        )
    for owner, name in [(PartAwareParsing, "activation_mask"), (dclnet, "predicted_mask"), (dclnet, "rectify_parts")]:
        monkeypatch.setattr(owner, name, choices.follow(getattr(owner, name)))
    given = Maps(scale, precision, precision)
    monkeypatch.setattr(Backbone, "features_and_token", lambda *arguments: given(*arguments))
    with torch.autocast("cpu", dtype=precision):
        terms = module.losses(batch)
    given, choices.replays = Maps(scale, precision, torch.float64), True
    expected = exact.losses({**batch, "image": batch["image"].double()})
    assert terms.keys() == expected.keys()
    assert not choices.noted
    rounding = 2**-9 if precision is torch.bfloat16 else 2**-12
    for name, term in terms.items():
        value = expected[name].item()
        if FLOAT32 & {name, f"{method.__name__} {name}"}:
            bound = 96 * 2**-24 * abs(value) + 6 * 64 * 2**-24
        else:
            bound = (32 if name in SATURATED else 8) * rounding * max(1, abs(value))
        assert term.dtype is torch.float32
        assert abs(term.item() - value) <= bound, (name, term.item(), value, bound)
