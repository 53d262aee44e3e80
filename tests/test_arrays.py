"""Which arrays are taken: layouts, alignment, permissions, protocols; and where results go."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided
from oracle import Array
from problems import LAYOUTS, make, relayout

import pyconv


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["x", "weight", "bias", "residual"])
@pytest.mark.parametrize("sizes", [(5, 7), (1, 18)], ids=str)
def test_any_layout_gives_the_same_bits(
    algorithm: str, dtype: Any, data_format: str, layout: str, name: str, sizes: tuple[int, int]
) -> None:
    problem = make(
        (2, 4, *sizes),
        (6, 2, 1, 3),
        dtype,
        residual=True,
        groups=2,
        padding=(0, 1),
        data_format=data_format,
    )
    view = relayout(getattr(problem, name), layout)
    np.testing.assert_array_equal(problem.run(algorithm, **{name: view}), problem.run(algorithm))


@pytest.mark.parametrize("axis", [0, 1, 2, 3])
def test_broadcast_inputs(algorithm: str, dtype: Any, data_format: str, axis: int) -> None:
    problem = make((3, 4, 5, 6), (2, 4, 3, 3), dtype, data_format=data_format)
    x = problem.x.take([0], axis=axis)
    broadcast = np.broadcast_to(x, problem.x.shape)
    y = replace(problem, x=broadcast).run(algorithm)
    np.testing.assert_array_equal(y, replace(problem, x=broadcast.copy()).run(algorithm))


def test_one_number_as_bias_and_residual(algorithm: str) -> None:
    problem = make((2, 3, 5, 5), (4, 3, 3, 3), residual=True)
    assert problem.residual is not None
    bias = np.broadcast_to(np.float32(0.5), (4,))
    residual = np.broadcast_to(np.float32(-1.5), problem.residual.shape)
    problem = replace(problem, bias=bias, residual=residual)
    problem.check(algorithm)


class ByDLPack:
    """An array that only speaks DLPack."""

    def __init__(self, array: Array) -> None:
        self._array = array

    def __dlpack__(self, **arguments: Any) -> Any:
        return self._array.__dlpack__(**arguments)

    def __dlpack_device__(self) -> Any:
        return self._array.__dlpack_device__()


class ByInterface:
    """An array that only speaks NumPy's array interface."""

    def __init__(self, array: Array) -> None:
        self._array = array
        self.__array_interface__ = array.__array_interface__


@pytest.mark.parametrize("wrap", [ByDLPack, ByInterface, memoryview])
def test_arrays_of_other_kinds(wrap: Any) -> None:
    problem = make((2, 3, 5, 5), (4, 3, 3, 3), residual=True)
    wrapped = pyconv.conv2d(
        wrap(problem.x), wrap(problem.weight), wrap(problem.bias), residual=wrap(problem.residual)
    )
    assert type(wrapped) is np.ndarray
    np.testing.assert_array_equal(wrapped, problem.run())


def test_a_fresh_result_is_contiguous_aligned_and_writeable(
    algorithm: str, dtype: Any, data_format: str
) -> None:
    results = []
    for width in (1, 3, 5, 18):
        problem = make((1, 3, 4, width), (5, 3, 1, 1), dtype, data_format=data_format)
        results.append(problem.run(algorithm))  # kept alive, so that addresses differ
    for y in results:
        assert y.flags.c_contiguous and y.flags.writeable
        assert y.ctypes.data % 64 == 0


@pytest.mark.parametrize("layout", sorted({*LAYOUTS} - {"readonly", "misaligned"}))
def test_out_of_any_layout(algorithm: str, dtype: Any, data_format: str, layout: str) -> None:
    problem = make((2, 3, 5, 1), (17, 3, 2, 1), dtype, residual=True, data_format=data_format)
    y = problem.run(algorithm)
    out = relayout(np.full_like(y, np.nan), layout)
    assert problem.run(algorithm, out=out) is out
    np.testing.assert_array_equal(out, y)


def test_out_is_never_read_only_or_misaligned() -> None:
    problem = make((2, 3, 5, 5), (4, 3, 3, 3))
    for layout, word in (("readonly", "read-only"), ("misaligned", "aligned")):
        out = relayout(problem.run(), layout)
        before = out.copy()
        with pytest.raises(ValueError, match=rf"\bout\b.*{word}"):
            problem.run(out=out, activation="relu")
        np.testing.assert_array_equal(out, before)


@pytest.mark.parametrize("width", [1, 7, 16, 33])
def test_out_may_be_a_slice_and_its_surroundings_stay(
    algorithm: str, dtype: Any, data_format: str, width: int
) -> None:
    problem = make((2, 3, 3, width), (5, 3, 1, 1), dtype, data_format=data_format)
    y = problem.run(algorithm)
    buffer = np.full([n + 4 for n in y.shape], -7, dtype)
    inside = tuple(slice(2, -2) for _ in y.shape)
    out = buffer[inside]
    assert problem.run(algorithm, out=out) is out
    np.testing.assert_array_equal(out, y)
    buffer[inside] = -7
    np.testing.assert_array_equal(buffer, np.full_like(buffer, -7))


def test_branches_may_write_into_one_array(data_format: str) -> None:
    axis = 1 if data_format == "channels_first" else -1
    first = make((2, 3, 5, 5), (4, 3, 3, 3), padding=1, data_format=data_format)
    second = replace(make((2, 3, 5, 5), (6, 3, 1, 1), seed=1, data_format=data_format), x=first.x)
    joined = np.concatenate([first.run(), second.run()], axis=axis)
    out = np.empty_like(joined)
    left, right = np.split(out, [4], axis=axis)
    first.run(out=left)
    second.run(out=right)
    np.testing.assert_array_equal(out, joined)


def test_out_beside_its_input_in_one_array(algorithm: str) -> None:
    # DenseNet: the new channels stand behind those they come from. No element is shared, although
    # the two address ranges interleave.
    problem = make((2, 4, 5, 5), (3, 4, 3, 3), padding=1)
    y = problem.run(algorithm)
    buffer = np.empty((2, 7, 5, 5), np.float32)
    buffer[:, :4] = problem.x
    replace(problem, x=buffer[:, :4]).run(algorithm, out=buffer[:, 4:])
    np.testing.assert_array_equal(buffer[:, 4:], y)
    np.testing.assert_array_equal(buffer[:, :4], problem.x)


@pytest.mark.parametrize("name", ["x", "weight", "bias", "residual"])
def test_out_must_not_overlap_an_input(name: str) -> None:
    problem = make((1, 4, 1, 5), (4, 4, 1, 1), residual=True)
    array = getattr(problem, name)
    buffer = np.zeros(40, np.float32)
    view = buffer[: array.size].reshape(array.shape)
    view[...] = array
    out = buffer[array.size - 1 :][:20].reshape(1, 4, 1, 5)
    arrays: dict[str, Any] = {name: view, "out": out}
    with pytest.raises(ValueError, match=r"\bout\b.*overlap"):
        problem.run(**arrays)


def test_out_must_not_overlap_itself() -> None:
    problem = make((1, 3, 4, 4), (2, 3, 1, 1))
    out = as_strided(np.empty(16, np.float32), (1, 2, 4, 4), (0, 0, 16, 4))
    with pytest.raises(ValueError, match=r"\bout\b"):
        problem.run(out=out)


def test_inputs_are_never_changed(algorithm: str) -> None:
    problem = make((2, 3, 5, 5), (4, 3, 3, 3), residual=True, padding=1, activation="relu")
    copies = [a.copy() for a in (problem.x, problem.weight, problem.bias, problem.residual)]  # type: ignore[union-attr]
    problem.run(algorithm)
    for array, copy in zip(
        (problem.x, problem.weight, problem.bias, problem.residual), copies, strict=True
    ):
        np.testing.assert_array_equal(array, copy)
