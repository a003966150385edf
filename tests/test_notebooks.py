"""Every notebook runs from top to bottom, in small, and defines nothing: it shows what the package does.

`jupyter nbconvert --to notebook --execute --inplace --ExecutePreprocessor.record_timing=False FILE` renews its outputs.
"""

from __future__ import annotations

import ast
import json
import logging
from pathlib import Path

import lightning.pytorch
import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "notebooks").glob("*.ipynb"))

#: What makes a notebook small: new values for names that its cell tagged `parameters` sets.
SMALL = {
    "tour": {
        "dataset_settings": {"identities": 8, "val_identities": 3, "test_identities": 3, "images": 1},
        "epochs": 1,
        "steps": 1,
        "shown": 1,
        "ranks": 2,
    },
    "own_cameras": {
        "people": {"identities": "8", "val-identities": "2", "test-identities": "3", "images": "2"},
        "epochs": 1,
        "steps": 1,
    },
    "search_and_thresholds": {
        "dataset_settings": {"identities": 8, "val_identities": 6, "test_identities": 4, "images": 1},
        "epochs": 1,
        "steps": 1,
        "shown": 1,
        "ranks": 2,
    },
    "compare_methods": {
        "dataset_settings": {"identities": 8, "val_identities": 3, "test_identities": 3, "images": 1},
        "epochs": 1,
        "steps": 1,
        "seeds": (0, 1),
    },
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

#: A notebook shows what it prints, in less than this many bytes.
LARGEST = 200_000


def code_cells(path: Path) -> list[tuple[str, bool]]:
    """The code and whether it is the cell of parameters."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [
        ("".join(cell["source"]), "parameters" in cell["metadata"].get("tags", []))
        for cell in cells
        if cell["cell_type"] == "code"
    ]


@pytest.fixture
def _talking_again():
    """Restores the level of the logger that notebooks quiet: later tests of the process read what it says."""
    logger = logging.getLogger(lightning.pytorch.__name__)
    level = logger.level
    yield
    logger.setLevel(level)


@pytest.mark.slow
@pytest.mark.usefixtures("_talking_again")
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
def test_a_notebook_defines_nothing(notebook):
    for source, _ in code_cells(notebook):
        assert not any(
            isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda) for node in ast.walk(ast.parse(source))
        )


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_shows_one_whole_run_in_few_bytes(notebook):
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    outputs = [output for cell in code for output in cell["outputs"]]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert outputs
    assert all(output["output_type"] != "error" and output.get("name") != "stderr" for output in outputs)
    assert notebook.stat().st_size < LARGEST
    assert str(Path.home()) not in notebook.read_text(encoding="utf-8")
