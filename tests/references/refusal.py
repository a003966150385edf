"""What a command says of input that it must refuse."""

from __future__ import annotations

import pytest

from vireid_lightning.cli import lightning


def refuse(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run ``lightning``, which must end with code 2, and return its one sentence."""
    with pytest.raises(SystemExit) as stop:
        lightning(list(arguments))
    assert stop.value.code == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    return error
