"""What the README and the site's pages say of the code is so."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
import torch
import yaml

from vireid_lightning import methods
from vireid_lightning.cli import lightning, vireid

ROOT = Path(__file__).resolve().parents[1]
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in ROOT.glob("docs/**/*.md")}
PAGES["README.md"] = (ROOT / "README.md").read_text(encoding="utf-8")
TEXT = "\n".join(PAGES.values())
BLOCKS = set(re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL))

#: A row of a table of settings: the setting, its value, and where that is from.
SETTING = re.compile(r"^\| `([\w.]+)` \| `(.+?)` \| (authors|paper|code|ours) \|", flags=re.MULTILINE)
METHODS = ["AGW", "Baseline", "CMAM", "DCLNet", "MMGL", "MPANet"]


def block(text: str) -> dict:
    """Run the one Python block that holds a text and return its names."""
    (code,) = (code for code in BLOCKS if text in code)  # a page may repeat it, word for word
    names: dict = {"__name__": "page"}
    exec(compile(code, "page", "exec", dont_inherit=True), names)
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


def default_of(name: str, key: str) -> object:
    """Return the default of a method's setting, by the constructor or, for data and trainer, by its config."""
    first, *rest = key.split(".")
    if first in ("data", "trainer"):
        value = yaml.safe_load((ROOT / f"experiments/{name.lower()}_sysu.yaml").read_text(encoding="utf-8"))
        for part in (first, *rest):
            value = value[part]
        return value
    value = inspect.signature(getattr(methods, name)).parameters[first].default
    for part in rest:
        value = getattr(value, part)
    return list(value) if isinstance(value, tuple) else value


@pytest.mark.parametrize("name", METHODS)
def test_a_methods_settings_are_those_of_the_code(name):
    rows = SETTING.findall(PAGES[f"docs/methods/{name.lower()}.md"])
    assert {key: yaml.safe_load(value) for key, value, _ in rows} == {key: default_of(name, key) for key, _, _ in rows}
    # Every weight and shape of the constructor has its row; the rest is explained in words.
    shared = {"num_classes", "backbone", "backbone_settings", "pretrained", "weights", "gather", "optimization"}
    shared |= {"init_from", "source", "target"}
    constructor = set(inspect.signature(getattr(methods, name)).parameters) - shared
    assert constructor <= {key for key, _, _ in rows}


def test_every_method_has_a_page_that_the_overview_links():
    assert set(METHODS) == {
        name
        for name, member in vars(methods).items()
        if inspect.isclass(member) and issubclass(member, methods.ReIDModule) and member is not methods.ReIDModule
    }
    assert all(f"({name.lower()}.md)" in PAGES["docs/methods/index.md"] for name in METHODS)


@pytest.mark.parametrize("name", sorted(set(re.findall(r"\b(?:experiments|notebooks|tests)/[\w/]+\.\w+\b", TEXT))))
def test_named_files_exist(name):
    assert (ROOT / name).is_file()


def commands() -> list[str]:
    """Return the commands of all pages, one a line."""
    shell = "\n".join(re.findall(r"```sh\n(.*?)```", TEXT, flags=re.DOTALL)).replace("\\\n", " ")
    inline = [code for code in re.findall(r"`([^`\n]+)`", TEXT) if code.startswith(("vireid ", "lightning "))]
    parts = {part.strip() for line in [*shell.splitlines(), *inline] for part in line.split("&&")}
    return sorted(part for part in parts if part)


def test_named_tools_and_their_options_exist(capsys):
    helps: dict[str, str] = {}
    for command in commands():
        words = command.split()
        if words[0] != "vireid" or words[1] == "--help":
            continue
        assert words[1] in vireid.subcommands, command
        if words[1] not in helps:
            with pytest.raises(SystemExit):
                vireid([words[1], "--help"])
            helps[words[1]] = capsys.readouterr().out
        for option in (word for word in words[2:] if word.startswith("--")):
            assert option in helps[words[1]], f"{command}: {option}"


def test_named_subcommands_of_lightning_exist():
    for command in commands():
        words = command.split()
        if words[0] == "lightning":
            assert words[1] in {*lightning.subcommands, "--help"}, command


def test_figures_of_the_readme_stand_on_the_sites_pages_too():
    """What was measured, or is quoted, may be repeated, not contradicted."""
    pages = "".join(text for name, text in PAGES.items() if name != "README.md")
    assert set(re.findall(r"\d+\.\d\d\b", PAGES["README.md"])) <= set(re.findall(r"\d+\.\d\d\b", pages))


def test_nothing_is_left_to_fill_in():
    assert not re.findall(r"^[A-Z]+_[A-Z_]+$", TEXT, flags=re.MULTILINE)
