"""``vireid benchmark``: what it measures, on a tiny network, and what it refuses."""

from __future__ import annotations

import json
import re

import pytest
import torch

from vireid_lightning import precision
from vireid_lightning.cli import vireid
from vireid_lightning.cli.step_costs import (
    BareBackbone,
    StepTime,
    Subject,
    draw_batch,
    make_subjects,
    profile_steps,
    take_step,
)
from vireid_lightning.cli.tools import benchmark
from vireid_lightning.methods.step_kind import StepKind

TINY = ("--backbone", "resnet10t", "--image-size", "96", "32", "--batch", "8", "--rounds", "1", "--warmup", "1")


def test_compares_a_step_with_as_many_passes_and_optimisers_in_the_same_round():
    def subject(kind, *times):
        return Subject("", None, kind, lambda: None, times=[StepTime(*time) for time in times])

    bare = subject(StepKind(), (1.0, 0.5, 2.0, 0.5), (10.0, 0.5, 2.0, 0.5), (1.0, 0.5, 2.0, 0.5))
    twice = subject(StepKind(passes=3, networks=2), *3 * [(8.0, 0.0, 14.0, 0.0)])
    assert twice.ratio(bare) == pytest.approx(8 / (3 * 1.0 + 2 * 0.5))
    assert twice.ratio(bare, cpu=True) == pytest.approx(14 / (3 * 2.0 + 2 * 0.5))
    assert bare.ratio(bare) == 1
    assert bare.median() == 1.5


def test_peak_of_memory_is_that_of_the_tensors_that_a_step_holds():
    class Hold(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))

        def training_step(self, batch, number):
            squares = [torch.ones(2**18) * self.weight for _ in range(4)]  # 1 MiB each, of which none is freed
            return torch.stack(squares).sum()  # 4 MiB more

    subject = Subject("", Hold(), StepKind(), lambda: torch.optim.SGD(Hold().parameters()))
    profile_steps([subject], draw_batch((8, 8), 2, 2, torch.device("cpu")), "float32")
    assert 8 <= subject.mib < 8 + 1.1 + 4 + 1  # ones, or a gradient of 4 MiB, for a moment


def test_steps_train_and_both_stages_of_a_method_count():
    from vireid_lightning.methods import CMAM

    method = CMAM(backbone="resnet10t", pretrained=False)
    batch = draw_batch((96, 32), 2, 2, torch.device("cpu"))
    kinds = make_subjects([BareBackbone("resnet10t"), method], 4, torch.device("cpu"))
    assert [(each.name, each.kind.passes, each.kind.networks) for each in kinds] == [
        ("bare backbone", 1, 1),
        ("CMAM, stage 1", 3, 2),
        ("CMAM, stage 2", 2, 2),
    ]
    before = method.gray.neck.weight.clone()
    for each in kinds:
        each.kind.enter()
        assert take_step(each, batch, None).whole() > 0
    assert not torch.equal(before, method.gray.neck.weight)


def test_prints_a_table_and_writes_the_figures(tmp_path, capsys):
    output = tmp_path / "figures.json"
    vireid(["benchmark", *TINY, "--methods", "Baseline", "MPANet", "--precisions", "float32", "--output", str(output)])
    printed = capsys.readouterr().out
    assert "resnet10t, 96 x 32, batches of 8, float32" in printed
    result = json.loads(output.read_text())
    (measurement,) = result["measurements"]
    assert [row["name"] for row in measurement["rows"]] == ["bare backbone", "Baseline", "MPANet"]
    for row in measurement["rows"]:
        assert row["seconds"] > 0
        assert row["memory_mib"] > 1
        assert len(row["all_seconds"]) == (2 if row["name"] == "bare backbone" else 1)  # turns with both methods
    assert measurement["rows"][0]["waits"] == {}


@pytest.mark.parametrize("emulated", [False, True])
def test_bfloat16_is_left_out_where_it_is_emulated_and_that_is_said(emulated, monkeypatch, capsys):
    monkeypatch.setattr(precision, "emulates_bfloat16", lambda device: emulated)
    assert benchmark._choose_precisions(torch.device("cpu")) == ["float32", "bfloat16"][: 1 if emulated else 2]
    assert ("--precisions bfloat16 measures it" in capsys.readouterr().err) == emulated


def test_the_profile_is_the_difference_to_as_many_bare_passes(tmp_path, capsys):
    bare = Subject("", None, StepKind(), lambda: None, operators={"convolution": 1.0, "mean": 0.25})
    twice = Subject("", None, StepKind(passes=2), lambda: None, operators={"convolution": 2.5, "sort": 0.75})
    assert list(twice.beyond(bare).items()) == [("sort", 0.75), ("convolution", 0.5), ("mean", -0.5)]
    output = tmp_path / "figures.json"
    options = ("--methods", "DCLNet", "--precisions", "float32", "--profile", "--output", str(output))
    vireid(["benchmark", *TINY, *options])
    printed = capsys.readouterr().out
    assert "DCLNet: where it differs from the bare backbone" in printed
    assert "_DenseContrastive" in printed
    _, dclnet = json.loads(output.read_text())["measurements"][0]["rows"]
    assert dclnet["operators"]["_DenseContrastive"] == dclnet["beyond_bare"]["_DenseContrastive"] > 0


@pytest.mark.slow
def test_measures_the_loop_with_the_loader(tmp_path):
    output = tmp_path / "figures.json"
    options = ("--methods", "Baseline", "--precisions", "float32", "--loop", "--workers", "0", "--output", str(output))
    vireid(["benchmark", *TINY, *options])
    bare, baseline = json.loads(output.read_text())["measurements"][0]["rows"]
    assert "loop_seconds" not in bare
    assert baseline["loop_ratio"] == baseline["loop_seconds"] / baseline["step_beside_loop_seconds"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--methods", "Basline"), "'Basline' is no method; .* Did you mean"),
        (("--rounds", "0"), "--rounds is 0; give a whole number from 1"),
        (("--batch", "10"), "multiple of 4"),
        (("--image-size", "0", "32"), "--image-size is 0; give"),
    ],
)
def test_refuses_what_cannot_be_measured(options, sentence, capsys):
    with pytest.raises(SystemExit) as stopped:
        vireid(["benchmark", *TINY, *options])
    assert stopped.value.code == 2
    assert re.search(sentence, capsys.readouterr().err)
