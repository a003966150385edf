"""The check of a step's loss, at once and a step later, and that a step reads nothing but it."""

from __future__ import annotations

import pytest
import torch

from vireid_lightning import methods
from vireid_lightning.cli.device_waits import DeviceWaits
from vireid_lightning.cli.step_costs import draw_batch, make_subjects, take_step
from vireid_lightning.errors import VIReIDError
from vireid_lightning.methods import Baseline
from vireid_lightning.methods.finite_check import FiniteCheck
from vireid_lightning.modules import ModalityRows
from vireid_lightning.types import note_values, read_values

CPU = torch.device("cpu")


def note(check, step, *values):
    terms = {f"term{number}": torch.tensor(value) for number, value in enumerate(values)}
    check.note(terms, sum(terms.values()), torch.tensor([3, 5]), step=step, epoch=1)


def test_names_step_terms_and_images_whenever_it_is_read():
    check = FiniteCheck()
    note(check, 7, 1.0, float("nan"))
    with pytest.raises(VIReIDError, match=r"at step 7 of epoch 1 \(term1=nan\).* The batch: a3, a5\."):
        check.settle(lambda index: [f"a{each}" for each in index])
    check.settle(str)  # told once


def test_finite_terms_whose_sum_is_not_are_told_as_the_sum():
    check = FiniteCheck()
    largest = torch.finfo(torch.float32).max
    note(check, 0, largest, largest)
    with pytest.raises(VIReIDError, match="the sum of the terms is inf"):
        check.settle(lambda index: [])


def test_finite_steps_and_none_pass():
    check = FiniteCheck()
    check.settle(str)
    note(check, 0, 1.0)
    check.settle(str)


@pytest.mark.parametrize("end", ["on_train_end", "on_validation_start"])
def test_a_step_that_is_still_held_is_read_before_its_weights_are_used(end):
    method = Baseline(num_classes=2, backbone="resnet10t", pretrained=False)
    note(method._finite, 4, float("inf"))
    with pytest.raises(VIReIDError, match=r"at step 4 of epoch 1 .*#3, #5"):
        getattr(method, end)()


@pytest.mark.parametrize("name", ["Baseline", "AGW", "MPANet", "MMGL", "DCLNet"])
def test_a_step_reads_nothing_but_whether_the_loss_is_finite(name):
    classes = {} if name == "MMGL" else {"num_classes": 4}
    method = getattr(methods, name)(backbone="resnet10t", pretrained=False, **classes)
    batch = draw_batch((96, 48), 4, 2, CPU)
    with DeviceWaits(CPU) as waits:
        method.training_step(batch, 0).backward()
    places = {place: count for place, count in waits.places.items() if "finite_check.py" not in place}
    # The sizes of DCLNet's matrix products are those of the masks that it predicts.
    assert [place for place in places if "dense_contrastive.py" not in place] == []
    assert sum(places.values()) == (name == "DCLNet")


@pytest.mark.parametrize("stage", ["CMAM, stage 1", "CMAM, stage 2"])
def test_a_step_of_cmam_reads_nothing_but_whether_the_loss_is_finite(stage):
    module = methods.CMAM(backbone="resnet10t", pretrained=False)
    subject = next(each for each in make_subjects([module], 4, CPU) if each.name == stage)
    subject.kind.enter()
    batch = draw_batch((96, 48), 4, 2, CPU)
    with DeviceWaits(CPU) as waits:
        take_step(subject, batch, None)
    # The circle softmax checks the labels on the CPU alone, where nothing waits.
    places = [place for place in waits.places if "finite_check.py" not in place and "circle_softmax.py" not in place]
    assert places == []


def test_a_note_ends_where_the_tensor_is_changed():
    labels = torch.tensor([0, 1, 0])
    note_values(labels, [0, 1, 0])
    labels[0] = 5
    assert read_values(labels) == [5, 1, 0]


def test_noted_modalities_are_not_read_and_others_are():
    modality = torch.tensor([0, 1, 0])
    with DeviceWaits(CPU) as waits:
        expected = ModalityRows.of(modality)
    assert waits.count == 1
    note_values(modality, [0, 1, 0])
    with DeviceWaits(CPU) as waits:
        rows = ModalityRows.of(modality)
    assert waits.count == 0
    assert rows.counts == expected.counts == (2, 1)
    assert torch.equal(rows.restore, expected.restore)
