"""Drawn files of each kind are read, or refused by this package's own error. More: tests/benchmarks/fuzz.py."""

from __future__ import annotations

import warnings

import pytest
from references import fuzzing

from vireid_lightning.errors import VIReIDError


@pytest.mark.parametrize("kind", fuzzing.SHARES)
def test_drawn_files_are_read_or_refused(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        told, _ = fuzzing.run(kind, fuzzing.SHARES[kind], tmp_path)
    assert told.total() == fuzzing.SHARES[kind]
    assert min(told["read"], told["refused"]) > 0, "the drawn files are all alike"


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_a_config_that_is_no_utf_8_text_is_refused(encoding, tmp_path):
    (tmp_path / "c.yaml").write_text("seed_everything: 0  # é", encoding=encoding)
    with pytest.raises(VIReIDError, match=r"The config .*c\.yaml is no UTF-8 text"):
        fuzzing.parse_config(tmp_path / "c.yaml")


@pytest.mark.parametrize("text", ["[" * 5000 + "]" * 5000, "data: " + "[" * 5000, "data: " + "{a: " * 5000])
def test_a_config_that_is_nested_too_deeply_is_refused(text, tmp_path):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(VIReIDError, match=r"too deeply|maximum nesting depth|Unexpected config"):
        fuzzing.parse_config(tmp_path / "c.yaml")
