"""Products of matrices against those of float64, by one thread and by two, which are handed to oneDNN."""

import pytest
import torch

from vireid_lightning.losses.products import multiply


@pytest.fixture(params=[1, 2], autouse=True)
def _threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (7, 5, 3), (1, 64, 9), (33, 1, 17), (130, 257, 95), (301, 96, 203), (0, 4, 3), (4, 3, 0)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_product_is_that_of_float64(shape, dtype):
    rows, inner, columns = shape
    left, right = torch.randn(rows, inner, dtype=dtype), torch.randn(inner, columns, dtype=dtype)
    found = multiply(left, right)
    assert found.shape == (rows, columns)
    assert found.dtype == dtype
    assert found.is_contiguous()
    # A sum of n products, each rounded, is off by at most n units of rounding of the sum of their magnitudes.
    bound = inner * torch.finfo(dtype).eps * (left.double().abs() @ right.double().abs())
    assert ((found.double() - left.double() @ right.double()).abs() <= bound).all()


def test_a_sum_over_nothing_is_zero():
    assert torch.equal(multiply(torch.empty(2, 0), torch.empty(0, 3)), torch.zeros(2, 3))


def test_rows_of_a_larger_matrix_are_multiplied():
    left, right = torch.randn(9, 6), torch.randn(8, 5)
    torch.testing.assert_close(multiply(left[2:5], right[:6]), left[2:5] @ right[:6])
