"""Every notebook runs from top to bottom, in small, and defines nothing: it shows what the package does."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "notebooks").glob("*.ipynb"))

#: What makes a notebook small: new values for names that its cell tagged `parameters` sets.
SMALL = {
    "cmam_clusters": {
        "target_settings": {"identities": 8, "val_identities": 3, "test_identities": 2, "images": 1},
        "source_settings": {"seed": 1, "identities": 9, "val_identities": 3, "test_identities": 2, "images": 1},
        "backbone": "test_resnet",
        "steps": 2,
        "interval": 2,
        "clusters": 4,
        "shown": 2,
    },
    "mmgl_pretraining": {
        "dataset_settings": {"identities": 8, "val_identities": 3, "test_identities": 2, "images": 1},
        "backbone": "test_resnet",
        "epochs": 1,
        "steps": 2,
        "shown": 2,
    },
}


def code_cells(path: Path) -> list[tuple[str, bool]]:
    """The code and whether it is the cell of parameters."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [
        ("".join(cell["source"]), "parameters" in cell["metadata"].get("tags", []))
        for cell in cells
        if cell["cell_type"] == "code"
    ]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*num_workers.*", "ignore:.*does not have many workers.*")
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(notebook, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "__main__"}
    for source, parameters in code_cells(notebook):
        exec(compile(source, str(notebook), "exec"), namespace)
        if parameters:
            unknown = set(SMALL[notebook.stem]) - set(namespace)
            assert not unknown
            namespace.update(SMALL[notebook.stem])


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_defines_nothing_and_keeps_no_output(notebook):
    for source, _ in code_cells(notebook):
        assert not any(
            isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda) for node in ast.walk(ast.parse(source))
        )
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    assert all(not cell.get("outputs") for cell in cells)
