"""One training objective: 1, 2 and 4 processes have the same losses, gradients and weights."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from references.fake_dataset import write_fake_dataset
from references.processes import METHODS, SIZE, STEPS, run_in_processes
from torch import nn

from vireid_lightning.callbacks.run_summary import _describe_shares
from vireid_lightning.data.samplers.identity import IdentitySampler
from vireid_lightning.errors import VIReIDError
from vireid_lightning.methods import CMAM, MMGL, Baseline, MPANet
from vireid_lightning.methods.global_batch import find_places
from vireid_lightning.modules.synced_batch_norm import BatchNormSync
from vireid_lightning.types import Sample

CASES = [(method, norm) for method in METHODS for norm in ("eval", "sync")]
#: Sums in another order, in float64; the losses that are computed in float32 differ by 1e-7.
TOLERANCE = {"rtol": 0, "atol": 1e-6}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """What every process of 1, 2 and 4 made of every case: a dictionary by (processes, rank)."""
    folder = tmp_path_factory.mktemp("processes")
    root = write_fake_dataset(folder / "fake", SIZE).root
    cases = {f"{method.__name__} {norm}": {"method": method, "root": root, "norm": norm} for method, norm in CASES}
    cases["apart"] = {"method": Baseline, "root": root, "norm": "eval", "gather": False}
    settings = Baseline(num_classes=6, backbone="test_resnet", pretrained=False).optimization
    cases["passes"] = {
        "method": Baseline,
        "root": root,
        "norm": "eval",
        "optimization": replace(settings, images_per_pass=2),
    }
    return run_in_processes(folder, lambda processes: cases, others=True)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
@pytest.mark.parametrize(("method", "norm"), CASES)
def test_losses_gradients_and_weights_are_those_of_one_process(runs, method, norm, processes):
    case = f"{method.__name__} {norm}"
    one, many = runs[1, 0][case], [runs[processes, rank][case] for rank in range(processes)]
    assert len(one["terms"]) == STEPS * (2 if method is CMAM else 1)
    for step, terms in enumerate(one["terms"]):
        for name, term in terms.items():
            mean = torch.stack([each["terms"][step][name] for each in many]).mean()
            torch.testing.assert_close(mean, term, **TOLERANCE)
    for each in many:
        for theirs, ours in zip(each["gradients"], one["gradients"], strict=True):
            torch.testing.assert_close(theirs, ours, **TOLERANCE)
        torch.testing.assert_close(each["weights"], one["weights"], **TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2, 4])
def test_several_passes_in_each_process_are_one_process_with_one(runs, processes):
    one = runs[1, 0]["Baseline eval"]
    for rank in range(processes):
        own = runs[processes, rank]["passes"]
        for theirs, ours in zip(own["gradients"], one["gradients"], strict=True):
            torch.testing.assert_close(theirs, ours, **TOLERANCE)
        torch.testing.assert_close(own["weights"], one["weights"], **TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_without_gathering_each_process_compares_its_own_images(runs, processes):
    one, other = runs[1, 0]["apart"], [runs[processes, rank]["apart"] for rank in range(processes)]
    together = runs[1, 0]["Baseline eval"]
    assert one["terms"][0] == together["terms"][0]  # one process has nothing to gather
    triplets = torch.stack([each["terms"][0]["triplet"] for each in other])
    assert abs(triplets.mean() - one["terms"][0]["triplet"]) > 1e-3
    # A mean over images needs no gathering.
    identity = torch.stack([each["terms"][0]["identity"] for each in other]).mean()
    torch.testing.assert_close(identity, one["terms"][0]["identity"], **TOLERANCE)


@pytest.mark.slow
def test_losses_that_never_gather_and_uneven_batches_are_remarked_on(runs):
    warned, refused = runs[2, 0]["said"]
    assert "Own.losses does not call self.gather" in warned  # once, and not with gather: false
    assert "The processes have batches of 6 to 12 images" in refused
    assert runs[2, 1]["said"] == [refused]


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_scores_are_those_of_one_process_to_the_bit(runs, processes):
    for rank in range(processes):
        for ours, theirs in zip(runs[1, 0]["scores"], runs[processes, rank]["scores"], strict=True):
            first, other = ours["first"], theirs["first"]
            assert all(np.array_equal(*pair) for pair in zip(first, other, strict=True))
            assert {**ours, "first": None} == {**theirs, "first": None}


@pytest.mark.slow
def test_layers_are_as_before_when_training_ends(runs):
    synced = runs[2, 1]["Baseline sync"]
    assert synced["types"] == runs[1, 0]["Baseline sync"]["types"]
    assert nn.BatchNorm2d in synced["types"]


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_synchronised_batch_normalisation_is_that_of_the_whole_batch(runs, processes):
    for layer, (output, grad, gradients, state, evaluated) in enumerate(runs[1, 0]["norms"]):
        parts = [runs[processes, rank]["norms"][layer] for rank in range(processes)]
        assert len({len(part[0]) for part in parts}) > 1  # of uneven shares
        torch.testing.assert_close(torch.cat([part[0] for part in parts]), output, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(torch.cat([part[1] for part in parts]), grad, rtol=1e-9, atol=1e-9)
        if evaluated is not None:
            torch.testing.assert_close(torch.cat([part[4] for part in parts]), evaluated, rtol=1e-9, atol=1e-9)
        for part in parts:
            torch.testing.assert_close(part[3], state, rtol=1e-9, atol=1e-9)
        for number, gradient in enumerate(gradients):
            added = torch.stack([part[2][number] for part in parts]).sum(0)
            torch.testing.assert_close(added, gradient, rtol=1e-9, atol=1e-9)


def test_batch_normalisation_is_refused_where_it_cannot_be_synchronised():
    with pytest.raises(VIReIDError, match=r"trainer.sync_batchnorm works on GPUs and on the CPU, not on mps"):
        BatchNormSync(torch.device("mps"))


def test_on_a_gpu_the_layers_are_torchs_own_and_keep_parameters_and_names():
    module = MPANet(num_classes=4, backbone="test_efficientnet", pretrained=False)  # timm's activate within
    before, parameters = set(module.state_dict()), [id(p) for p in module.parameters()]
    types = [type(child) for child in module.modules()]
    sync = BatchNormSync(torch.device("cuda"))
    sync.apply(module)
    synced = [child for child in module.modules() if isinstance(child, nn.SyncBatchNorm)]
    assert synced
    assert any(hasattr(child, "act") for child in synced)
    assert not module.neck.bias.requires_grad
    assert set(module.state_dict()) == before
    sync.revert(module)
    assert [type(child) for child in module.modules()] == types
    assert [id(p) for p in module.parameters()] == parameters


def test_a_process_s_images_lie_where_one_process_has_them():
    samples = [Sample(f"{i}-{m}-{k}.jpg", i, m, 1) for i in range(8) for m in (0, 1) for k in range(3)]
    options = {"identities_per_batch": 4, "images_per_modality": 2, "steps_per_epoch": 1}
    whole = list(IdentitySampler(samples, **options))
    for processes in (1, 2, 4):
        for rank in range(processes):
            own = list(IdentitySampler(samples, **options, num_replicas=processes, rank=rank))
            modality = torch.tensor([samples[draw.index].modality for draw in own])
            assert [whole[place] for place in find_places(modality, processes, rank)] == own


def test_one_modality_has_places_too():
    assert find_places(torch.zeros(3, dtype=torch.int64), 2, 1).tolist() == [3, 4, 5]
    assert find_places(torch.ones(3, dtype=torch.int64), 2, 1).tolist() == [3, 4, 5]


def test_outside_of_training_nothing_is_gathered():
    module = MMGL(backbone="test_resnet", stripes=2)
    rows = torch.ones(2, 3)
    assert module.gather(rows) is rows
    first, second = module.gather(rows, 2 * rows)
    assert first is rows
    assert torch.equal(second, 2 * rows)
    assert module.mean_count(torch.tensor(4)) == 4
    draws = module.draw(torch.tensor([0, 1]), lambda count, key: torch.from_numpy(np.arange(count)))
    assert draws.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("processes", "gathers", "synced", "expected"),
    [
        (1, True, False, "batch normalisation over 64 (32 in layers of one modality); 128 images in an update"),
        (
            4,
            True,
            False,
            "16 images (2 identities) on each of 4 processes; losses compare all 64; batch normalisation over 16 (8 in "
            "layers of one modality); all of them with trainer.sync_batchnorm; 128 images in an update",
        ),
        (2, False, True, "losses compare the 32 of a process (gather: false); batch normalisation over 64 (32 in"),
    ],
)
def test_the_summary_says_which_images_are_seen_together(processes, gathers, synced, expected):
    module = Baseline(num_classes=8, backbone="test_resnet", pretrained=False, gather=gathers)
    strategy = SimpleNamespace(_layer_sync=BatchNormSync(torch.device("cpu")) if synced else None)
    trainer = SimpleNamespace(world_size=processes, accumulate_grad_batches=2, strategy=strategy)
    module._trainer = trainer
    assert expected in _describe_shares(trainer, module, 64, 8)
