"""What Baseline, AGW and DCLNet have in common: they train, embed, are optimised and written as their authors did."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch import Trainer
from references.batches import loss_terms, training_batch
from torch.utils.data import DataLoader

from vireid_lightning.errors import VIReIDError
from vireid_lightning.methods import AGW, Baseline, DCLNet, load_method

METHODS = {
    Baseline: ["identity", "triplet"],
    AGW: ["identity", "triplet"],
    DCLNet: ["identity", "center_cluster", "part", "pixel", "continuity", "dense"],
}


def build(method, seed=0, **arguments):
    torch.manual_seed(seed)
    return method(**{"num_classes": 3, "backbone": "resnet10t", "pretrained": False, **arguments})


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_trains_under_a_trainer_logs_each_term_and_is_rebuilt_from_its_checkpoint(method, tmp_path):
    module, batch = build(method), training_batch()
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, DataLoader([batch, batch], batch_size=None))
    assert {f"train/{term}" for term in [*METHODS[method], "loss"]} <= set(trainer.callback_metrics)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    again = load_method(tmp_path / "a.ckpt")
    assert type(again) is method
    images, modality = batch["image"], batch["modality"]
    assert torch.equal(again.embed(images, modality), module.eval().embed(images, modality))


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_few_steps_lower_the_loss(method):
    module, batch = build(method), training_batch()
    optimizer = torch.optim.Adam([p for p in module.parameters() if p.requires_grad], lr=1e-3)
    totals = []
    for _ in range(8):
        terms, weights = loss_terms(module, batch)
        total = sum(weights[name] * term for name, term in terms.items())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(total.item())
    assert totals[-1] < 0.8 * totals[0]


@pytest.mark.parametrize("method", METHODS)
def test_embeddings_are_unit_vectors_that_depend_on_the_image_alone(method):
    module, batch = build(method).eval(), training_batch()
    with torch.no_grad():
        together = module(batch["image"], batch["modality"])
        order = torch.tensor([7, 3, 9, 0])
        apart = module(batch["image"][order], batch["modality"][order])
    assert together.dtype == torch.float32
    torch.testing.assert_close(together.norm(dim=1), torch.ones(12))
    # Convolutions of other batch sizes may sum in another order: float32 rounding of unit vectors.
    torch.testing.assert_close(apart, together[order], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_learning_rates_and_weights_are_the_authors(method):
    module = build(method)
    module_groups = module.optimization.parameter_groups(module.named_parameters())
    rates = {id(p): group["lr"] for group in module_groups for p in group["params"]}
    low, high = (3.5e-4, 3.5e-3) if method is DCLNet else (0.01, 0.1)
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            expected = low if name.startswith("backbone") else high
            assert rates[id(parameter)] == pytest.approx(expected), name
    factors = [module.optimization.factor(epoch, 80) for epoch in range(80)]
    warmup, first, second = (5, 15, 27) if method is DCLNet else (10, 20, 50)
    assert factors[0] == pytest.approx(1 / warmup)
    assert factors[warmup] == 1
    assert factors[first - 1 : first + 1] == pytest.approx([1, 0.1])
    assert factors[second - 1 : second + 1] == pytest.approx([0.1, 0.01])


@pytest.mark.parametrize("method", METHODS)
def test_every_weight_is_an_argument(method):
    names = [f"{'metric' if term == 'center_cluster' else term}_weight" for term in METHODS[method]]
    values = dict(zip(names, range(2, 8)))
    assert list(build(method, **values).loss_weights.values()) == list(values.values())


@pytest.mark.parametrize("method", METHODS)
def test_without_classes_it_embeds_and_says_why_it_does_not_train(method):
    module, batch = build(method, num_classes=None), training_batch()
    assert module.eval().embed(batch["image"], batch["modality"]).shape == (12, 512)
    with pytest.raises(VIReIDError, match="num_classes"):
        module.losses(batch)


@pytest.mark.parametrize("method", METHODS)
def test_every_trainable_parameter_gets_a_gradient(method):
    module, batch = build(method), training_batch()
    terms, _ = loss_terms(module, batch)
    sum(terms.values()).backward()
    assert [name for name, p in module.named_parameters() if p.requires_grad and p.grad is None] == []


@pytest.mark.parametrize("method", METHODS)
def test_bfloat16_autocast_keeps_the_losses_finite_and_near(method):
    module, batch = build(method), training_batch()
    wanted, _ = loss_terms(module, batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms, _ = loss_terms(build(method), batch)
    for name, term in terms.items():
        assert term.dtype == torch.float32
        # A network of about 20 layers with 8 significant bits each: a few per cent. What is compared with a threshold
        # (pixel labels, the hardest triplet) may move further.
        assert term.item() == pytest.approx(wanted[name].item(), rel=0.3), name
