"""Room for large tables."""

from __future__ import annotations

import numpy as np
import pytest

from neuro.nn.pages import LARGE, LINE, PAGE, lined, paged


@pytest.mark.parametrize("shape", [(0, 64), (3, 64), (LARGE // 256, 64), (4097, 64), (3, 5001, 64)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_shape_kind_and_where_it_begins(shape: tuple[int, ...], dtype: type) -> None:
    a = paged(shape, dtype)
    assert a.shape == shape
    assert a.dtype == dtype
    assert a.flags.c_contiguous
    assert a.flags.writeable
    a[...] = 3
    assert a.nbytes < LARGE or a.ctypes.data % PAGE == 0
    assert not a.size or a.reshape(-1)[-1] == 3


@pytest.mark.parametrize("shape", [(0, 64), (1,), (3, 5), (7, 480, 33)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint64])
def test_a_line_begins_an_array(shape: tuple[int, ...], dtype: type) -> None:
    several = [lined(shape, dtype) for _ in range(8)]
    for k, a in enumerate(several):
        a[...] = k
    for k, a in enumerate(several):
        assert (a.shape, a.dtype) == (shape, dtype)
        assert a.flags.c_contiguous
        assert not a.size or a.ctypes.data % LINE == 0
        assert (a == k).all()
