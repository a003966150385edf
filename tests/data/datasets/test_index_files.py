"""How messages list what is wrong."""

from __future__ import annotations

from vireid_lightning.data.datasets.index_files import join_first


def test_join_first_counts_what_it_leaves_out():
    assert join_first([]) == ""
    assert join_first("abc") == "a, b, c"
    assert join_first(range(12)).endswith("8, 9 and 2 more")
