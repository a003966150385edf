"""No index file names a file outside of its dataset's folder."""

from __future__ import annotations

import pytest
from layout_files import write, write_plan

from vireid_lightning.data import LLCM, MSMT17, SYSUMM02, RegDB
from vireid_lightning.data.synthetic.layouts import plan_llcm, plan_msmt17, plan_regdb, plan_sysu_mm02
from vireid_lightning.errors import VIReIDError

CASES = [
    (RegDB, plan_regdb(identities=2, images_per_modality=1, trials=1), "idx/test_thermal_1.txt"),
    (LLCM, plan_llcm(train=2, test=2, images_per_camera=1), "idx/train_nir.txt"),
    (SYSUMM02, plan_sysu_mm02(train=2, test=2), "test_ir.txt"),
    (MSMT17, plan_msmt17(train=2, test=2), "list_val.txt"),
]


@pytest.mark.parametrize("path", ["/etc/hostname", "../other/0001.jpg", "C:\\photo.jpg", "a\0.jpg", "cam1/../../a.jpg"])
@pytest.mark.parametrize(("dataset", "plan", "index"), CASES, ids=lambda case: getattr(case, "__name__", ""))
def test_a_path_that_leads_out_is_refused(tmp_path, dataset, plan, index, path):
    root = write_plan(plan, tmp_path / "dataset")
    first, *others = (root / index).read_text().splitlines()
    listed = " ".join([path, *first.split()[1:]])
    write(root / index, "\n".join([*others, listed]))
    with pytest.raises(VIReIDError, match=rf"line {1 + len(others)} of .*{index}.* leads out of the dataset's folder"):
        dataset(root)
