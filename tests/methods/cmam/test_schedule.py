"""What a run says that ends before CMAM's stages do."""

from __future__ import annotations

import pytest

from vireid_lightning.methods import SourceStage, TargetStage
from vireid_lightning.methods.cmam.schedule import Timeline, describe_early_end


@pytest.mark.parametrize(
    ("max_epochs", "max_steps", "told"),
    [
        (6, -1, None),
        (6, 60, None),
        (9, 60, None),
        (5, -1, "50 of the 60 steps of CMAM's stages, within target (kmeans)."),
        (6, 59, "59 of the 60 steps of CMAM's stages, within target (kmeans)."),
        (6, 40, "within target (dbscan); it leaves out target (kmeans)."),
        (1, -1, "within source (dbscan); it leaves out source (dbscan), target (dbscan), target (kmeans)."),
        (6, 0, "0 of the 60 steps"),
    ],
)
def test_a_run_that_ends_early_names_what_it_leaves_out(max_epochs, max_steps, told):
    source = SourceStage(steps=10, warmup_steps=1, constant_steps=5)
    target = TargetStage(dbscan_steps=20, kmeans_steps=20, warmup_steps=1)
    timeline = Timeline(source, target, steps_per_epoch=10, lr=1e-3, labelled_source=False)
    assert timeline.epochs == 6
    found = describe_early_end(timeline, max_epochs, max_steps)
    assert found is None if told is None else told in found
