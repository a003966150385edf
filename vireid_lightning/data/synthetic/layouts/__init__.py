"""Layout plans: the files that a dataset's folder holds, to write stand-ins in the structure of the real ones."""

from __future__ import annotations

from vireid_lightning.data.synthetic.layouts.llcm import plan_llcm
from vireid_lightning.data.synthetic.layouts.manifest import plan_manifest
from vireid_lightning.data.synthetic.layouts.market1501 import plan_market1501
from vireid_lightning.data.synthetic.layouts.msmt17 import plan_msmt17
from vireid_lightning.data.synthetic.layouts.plan import LayoutPlan, PlannedImage
from vireid_lightning.data.synthetic.layouts.regdb import plan_regdb, plan_regdb_like
from vireid_lightning.data.synthetic.layouts.sysu_mm01 import plan_sysu_mm01, plan_sysu_mm01_like
from vireid_lightning.data.synthetic.layouts.sysu_mm02 import plan_sysu_mm02

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
