"""The README's code does what it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def block(text: str) -> dict:
    """Run the one Python block that holds a text and return its names."""
    (code,) = (code for code in BLOCKS if text in code)
    names: dict = {"__name__": "readme"}
    exec(compile(code, "README.md", "exec", dont_inherit=True), names)
    return names


def test_scoring_plain_tensors(capsys):
    scores = block("from vireid_lightning.metrics import evaluate")["scores"]
    assert 0 <= scores.rank1 <= 100
    assert len(capsys.readouterr().out.split()) == 3


def test_the_example_method_trains_and_embeds():
    method = block("class MyMethod")["MyMethod"](num_classes=2, backbone="resnet10t", pretrained=False)
    batch = {
        "image": torch.randn(8, 3, 64, 32),
        "identity": torch.tensor([0, 0, 1, 1, 0, 0, 1, 1]),
        "modality": torch.tensor([0, 0, 0, 0, 1, 1, 1, 1]),
    }
    sum(method.losses(batch).values()).backward()
    assert all(parameter.grad is not None for parameter in method.parameters() if parameter.requires_grad)
    embedding = method.eval().embed(batch["image"], batch["modality"])
    assert embedding.dtype == torch.float32
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(8))


@pytest.mark.parametrize("name", re.findall(r"experiments/[\w/]+\.yaml", README))
def test_named_experiments_exist(name):
    assert (Path(__file__).resolve().parents[1] / name).is_file()


def test_nothing_is_left_to_fill_in():
    assert not re.findall(r"^[A-Z]+_[A-Z_]+$", README, flags=re.MULTILINE)
