"""What ``vireid_lightning.data`` exports, and what importing it loads."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from vireid_lightning import data

#: Packages that listing files needs no part of.
HEAVY = ("torch", "lightning", "cv2", "albumentations", "scipy", "sklearn", "timm")


def test_what_type_checkers_see_is_what_there_is():
    """The names are written as imports for type checkers, and partly imported on first use."""
    tree = ast.parse(Path(data.__file__).read_text(encoding="utf-8"))
    written = {
        alias.asname: (node.module, alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname is not None
    }
    assert sorted(written) == data.__all__ == dir(data)
    for name, (module, original) in written.items():
        assert name == original
        assert getattr(data, name) is getattr(sys.modules[module], name)


def test_an_unknown_name():
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        data.Nothing  # noqa: B018


@pytest.mark.parametrize(
    "module",
    ["vireid_lightning.data.datasets.sysu_mm01", "vireid_lightning.data.synthetic.dataset", "vireid_lightning.data"],
)
def test_listing_files_loads_nothing_heavy(module):
    code = f"import sys, {module}; print(sorted({{name.split('.')[0] for name in sys.modules}} & set({HEAVY})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
