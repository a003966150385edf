from __future__ import annotations

import torch

from vireid_lightning.modules import BNNeck


def test_shift_starts_at_zero_is_not_trained_and_is_loaded():
    neck = BNNeck(3)
    assert torch.equal(neck.bias, torch.zeros(3))
    assert [name for name, p in neck.named_parameters() if p.requires_grad] == ["weight"]
    state = neck.state_dict()
    state["bias"] = torch.tensor([1.0, 2.0, 3.0])
    neck.load_state_dict(state)
    x = torch.randn(8, 3)
    torch.testing.assert_close(neck(x).mean(0), state["bias"])
    assert not neck.bias.requires_grad


def test_training_normalises_each_value():
    z = BNNeck(5)(3 * torch.randn(64, 5) + 2)
    torch.testing.assert_close(z.mean(0), torch.zeros(5), rtol=0, atol=1e-6)
    torch.testing.assert_close(z.var(0, correction=0), torch.ones(5), rtol=0, atol=1e-4)
