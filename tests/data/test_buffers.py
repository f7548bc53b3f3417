"""Memory of batches: where it lies, and that it is nobody's when it is given again."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vmcmc_dist.data.buffers import ALIGNMENT, OFFSET, BufferPool


@pytest.mark.parametrize("shape", [(4, 8, 8, 3), (3, 5), (0, 2), (1, 481, 321, 3)])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_arrays_have_their_shape_and_place(shape, dtype) -> None:
    pool = BufferPool(shape, dtype)
    held = [pool.array() for _ in range(3)]
    for number, array in enumerate(held):
        assert array.shape == shape and array.dtype == dtype and array.flags.c_contiguous
        assert not array.size or array.ctypes.data % ALIGNMENT == OFFSET
        array[...] = number
    for number, array in enumerate(held):
        assert (array == number).all()


@pytest.mark.parametrize("view", [
    lambda x: x[2:3],
    lambda x: x[..., ::-1],
    lambda x: x.transpose(0, 3, 1, 2)[1],
    torch.from_numpy,
    lambda x: torch.from_numpy(x).permute(0, 3, 1, 2)[1:, :1],
])  # fmt: skip
def test_memory_is_given_again_when_the_last_view_is_gone_and_not_before(view) -> None:
    pool = BufferPool((4, 8, 8, 3), np.uint8)
    array = pool.array()
    place = array.ctypes.data
    left = view(array)
    del array
    other = pool.array()
    assert other.ctypes.data != place
    left[...] = 7
    other[...] = 1
    assert (left == 7).all()
    del left
    assert pool.array().ctypes.data == place


def test_no_more_memory_is_taken_than_is_held_at_once(monkeypatch) -> None:
    pool, taken, empty = BufferPool((4, 8, 8, 3), np.uint8), [], np.empty

    def counted(*args, **settings) -> np.ndarray:
        taken.append(args)
        return empty(*args, **settings)

    monkeypatch.setattr(np, "empty", counted)
    for _ in range(50):
        held = [pool.array() for _ in range(3)]
    assert len(held) == 3 and len(taken) == 6  # three more before the last three are gone
