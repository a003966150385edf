"""Layout plans: which files a dataset's folder holds, for writing stand-ins in the structure of the real ones."""

from __future__ import annotations

from vireid_lightning.data.layouts.plan import LayoutPlan, PlannedImage
from vireid_lightning.data.layouts.sysu_mm01 import plan_sysu_mm01, plan_sysu_mm01_like

__all__ = ["LayoutPlan", "PlannedImage", "plan_sysu_mm01", "plan_sysu_mm01_like"]
