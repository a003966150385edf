"""What a name costs to import: each in a process of its own, which lists the large packages that came with it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

PACKAGES = ("albumentations", "cv2", "lightning", "scipy", "sklearn", "timm", "torch", "torchmetrics")
LIST_LOADED = "import json, sys; print(json.dumps([name for name in {names!r} if name in sys.modules]))"


def list_loaded(statement: str) -> list[str]:
    """Return which of the packages are loaded after a statement in a new interpreter."""
    command = [sys.executable, "-c", f"{statement}\n{LIST_LOADED.format(names=PACKAGES)}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("statement", "allowed"),
    [
        ("import vireid_lightning", []),
        ("import vireid_lightning.types", []),
        ("import vireid_lightning.protocols", []),
        ("import vireid_lightning.losses", ["torch"]),
        ("import vireid_lightning.clustering", []),
        ("from vireid_lightning.clustering import update_memory", ["torch"]),
        ("import vireid_lightning.data.datasets.sysu_mm01", []),
        ("from vireid_lightning.metrics import evaluate, re_rank", ["torch"]),
    ],
)
def test_importing_loads_no_package_that_is_not_needed(statement, allowed):
    assert list_loaded(statement) == allowed


def test_a_package_that_is_loaded_is_found():
    assert list_loaded("import cv2, scipy") == ["cv2", "scipy"]
