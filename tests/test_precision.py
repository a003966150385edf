"""What the package knows of a device's precision."""

from __future__ import annotations

import torch

from vireid_lightning.precision import emulates_bfloat16


def test_only_processors_that_onednn_has_no_bfloat16_for_emulate_it(monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    for supported in (True, False):
        monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: supported)  # noqa: B023
        assert emulates_bfloat16(torch.device("cpu")) is not supported
        assert not emulates_bfloat16(torch.device("cuda"))
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not emulates_bfloat16(torch.device("cpu"))
