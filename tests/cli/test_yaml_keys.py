"""A key that stands twice in a config is an error with its lines; all that YAML means otherwise is left alone."""

from __future__ import annotations

import pytest

from vireid_lightning.cli.yaml_keys import check_keys
from vireid_lightning.errors import VIReIDError


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: 2\na: 3\n", "'a' stands in lines 1 and 3"),
        (
            "trainer:\n  max_epochs: 3\n  callbacks: []\n  max_epochs: 4\n",
            "'trainer.max_epochs' stands in lines 2 and 4",
        ),
        ("a:\n- {b: 1, c: 2, b: 3}\n", "'a.b' stands in lines 2 and 2"),
    ],
)
def test_a_key_given_twice_is_named(text, said):
    with pytest.raises(VIReIDError, match=said):
        check_keys(text)


@pytest.mark.parametrize(
    "text",
    [
        "a: {b: 1}\nc: {b: 1}\n",
        "- a: 1\n- a: 2\n",
        "base: &base {a: 1}\nmore:\n  <<: *base\n  a: 2\n",
        "a: [",  # no YAML; the reader says so
        "a: &loop [*loop]",
        "",
        "nothing: ",
        "12:30",
    ],
)
def test_what_is_right_passes(text):
    check_keys(text)
