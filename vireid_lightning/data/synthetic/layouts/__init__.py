"""Layout plans: which files a dataset's folder holds, for writing stand-ins in the structure of the real ones."""

from __future__ import annotations

from vireid_lightning.data.synthetic.layouts.benchmarks import plan_llcm, plan_regdb, plan_regdb_like, plan_sysu_mm02
from vireid_lightning.data.synthetic.layouts.others import plan_manifest, plan_market1501, plan_msmt17
from vireid_lightning.data.synthetic.layouts.plan import LayoutPlan, PlannedImage
from vireid_lightning.data.synthetic.layouts.sysu_mm01 import plan_sysu_mm01, plan_sysu_mm01_like

__all__ = [
    "LayoutPlan",
    "PlannedImage",
    "plan_llcm",
    "plan_manifest",
    "plan_market1501",
    "plan_msmt17",
    "plan_regdb",
    "plan_regdb_like",
    "plan_sysu_mm01",
    "plan_sysu_mm01_like",
    "plan_sysu_mm02",
]
