"""Arguments that crashed, hung or silently broke other libraries: an error, or the right result."""

from __future__ import annotations

import mmap
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided
from oracle import Array
from problems import CONVOLUTIONS, make

import pyconv

HUGE = 2**40
MAP_NORESERVE = 0x4000  # the mmap module has it since Python 3.13


def zeros(*shape: int) -> Array:
    return np.zeros(shape, np.float32)


def untouched(shape: Sequence[int]) -> Array:
    """Zeros of any size: pages that were never written share one page of physical memory."""
    size = int(np.prod(shape)) * 4
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE)
    return np.frombuffer(pages, np.float32).reshape(shape)


@pytest.mark.parametrize(
    ("x", "weight", "arguments", "name"),
    [
        (zeros(1, 4, 5, 5), zeros(4, 4, 3, 3), dict(stride=0), "stride"),
        (zeros(1, 4, 5, 5), zeros(4, 4, 3, 3), dict(groups=0), "groups"),
        (zeros(0, 4, 5, 5), zeros(4, 4, 3, 3), dict(groups=0), "groups"),
        (zeros(0, 0, 5, 5), zeros(0, 0, 3, 3), dict(groups=0), "groups"),
        (zeros(1, 4, 5, 5), zeros(4, 4, 3, 3), dict(dilation=-1), "dilation"),
        (zeros(1, 4, 5, 5), zeros(4, 4, 3, 3), dict(padding=2**63 - 5), "padding"),
        (zeros(1, 4, 5, 5), zeros(4, 4, 3, 3), dict(stride=2**64), "stride"),
        (zeros(1, 4, 5, 5), zeros(4, 4, 0, 3), dict(stride=2**62, padding=2**61), "weight"),
        (zeros(1, 4, 5, 5), zeros(4, 0, 3, 3), dict(stride=2**62, padding=2**61), "x"),
        (zeros(1, 3, 5, 5), zeros(1, 0, 1, 1), {}, "x"),
        (zeros(1, 3, 5, 5), zeros(0), {}, "weight"),
        (zeros(1, 3, 5, 5), zeros(0, 0, 0, 0), {}, "x"),
        (zeros(1, 3, 5, 5), zeros(1, 3, 0, 0), {}, "weight"),
        # Elsewhere a phantom output, whose size came from a negative one.
        (zeros(1, 4, 2, 2), zeros(4, 2, 3, 3), dict(groups=2), "weight"),
        (zeros(1, 4, 2, 2), zeros(4, 2, 3, 3), dict(groups=2, stride=2), "weight"),
        (zeros(1, 4, 0, 2), zeros(4, 4, 1, 1), dict(groups=2), "x"),
        (zeros(1, 1, 5, 5), zeros(1, 1, 3, 3), dict(dilation=2**62), "padding"),
        # Not even an empty array can have such a shape.
        (zeros(0, 4, 5, 5), zeros(4, 4, 3, 3), dict(padding=HUGE), "x"),
    ],
    ids=lambda value: str(value.shape) if isinstance(value, np.ndarray) else str(value),
)
def test_refused(x: Array, weight: Array, arguments: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name}\b"):
        pyconv.conv2d(x, weight, **arguments)


@pytest.mark.parametrize("huge", [2**31, 2**32, 2**62, 2**63 - 1])
def test_a_stride_beyond_the_input_gives_one_output(algorithm: str, huge: int) -> None:
    problem = make((2, 3, 7, 21), (5, 3, 3, 3), padding=1, stride=huge)
    assert problem.run(algorithm).shape == (2, 5, 1, 1)
    problem.check(algorithm)


@pytest.mark.parametrize(
    ("x_shape", "weight_shape", "arguments", "shape"),
    [
        ((2, 0, 5, 5), (3, 0, 1, 1), {}, (2, 3, 5, 5)),
        ((2, 0, 5, 5), (3, 0, 3, 3), dict(padding=1), (2, 3, 5, 5)),
        ((2, 4, 5, 5), (0, 4, 3, 3), {}, (2, 0, 3, 3)),
        ((0, 4, 5, 5), (3, 4, 3, 3), {}, (0, 3, 3, 3)),
        ((0, 0, 5, 5), (0, 0, 3, 3), {}, (0, 0, 3, 3)),
        ((2, 4, 0, 5), (3, 4, 1, 1), dict(padding=(1, 0)), (2, 3, 2, 5)),
        ((2, 4, 0, 5), (3, 4, 1, 1), dict(padding="same"), (2, 3, 0, 5)),
        ((0, 4, 5, 5), (3, 4, 1, 1), dict(padding=2**20), (0, 3, 2**21 + 5, 2**21 + 5)),
        ((2, 4, 5, 5), (0, 4, 1, 1), dict(padding=2**20), (2, 0, 2**21 + 5, 2**21 + 5)),
        ((0, 4, 5, 5), (3, 4, 3, 3), dict(padding=HUGE, stride=HUGE, dilation=HUGE), (0, 3, 1, 1)),
        ((1, 0, 5, 5), (1, 0, HUGE, 1), dict(padding=(HUGE, 0), stride=(HUGE, 1)), (1, 1, 2, 5)),
        ((1, 1, 5, 5), (0, 1, HUGE, 1), dict(padding=(HUGE, 0)), (1, 0, HUGE + 6, 5)),
        ((0, 1, 5, 5), (2, 1, 1, 1), dict(stride=2**62), (0, 2, 1, 1)),
        # These took forever.
        ((0, 0, 5, 5), (HUGE, 0, 1, 1), {}, (0, HUGE, 5, 5)),
        ((1, 2, HUGE, 0), (3, 2, 1, 1), dict(padding="same"), (1, 3, HUGE, 0)),
        ((1, 2, 0, HUGE), (3, 2, 1, 1), dict(padding="same"), (1, 3, 0, HUGE)),
        # And these divided by zero.
        ((1, 17, 0, 0), (17, 1, 2, 1), dict(padding="same", groups=17), (1, 17, 0, 0)),
        ((1, 1, 1, 0), (4, 1, 2, 1), dict(padding="same"), (1, 4, 1, 0)),
        ((2, 3, 0, 40), (5, 3, 3, 3), dict(padding="same"), (2, 5, 0, 40)),
        ((2, 3, 40, 0), (5, 3, 3, 3), dict(padding="same"), (2, 5, 40, 0)),
    ],
    ids=str,
)
def test_nothing_to_add_up(
    algorithm: str,
    data_format: str,
    x_shape: tuple[int, ...],
    weight_shape: tuple[int, ...],
    arguments: dict[str, Any],
    shape: tuple[int, ...],
) -> None:
    x, weight = zeros(*x_shape), zeros(*weight_shape)
    bias = np.arange(shape[1], dtype=np.float32) if shape[1] < HUGE else None
    if data_format == "channels_last":
        x, shape = np.moveaxis(x, 1, -1), (shape[0], *shape[2:], shape[1])
    y = pyconv.conv2d(x, weight, bias, algorithm=algorithm, data_format=data_format, **arguments)
    assert y.shape == shape
    if y.size:
        assert bias is not None
        last = y if data_format == "channels_last" else np.moveaxis(y, 1, -1)
        np.testing.assert_array_equal(last, np.broadcast_to(bias, last.shape))


@pytest.mark.parametrize("side", [46340, 46341, 65536, 92682])
def test_offsets_beyond_31_and_32_bits(algorithm: str, data_format: str, side: int) -> None:
    # The last pixel stands at side**2 - 1, and the outputs likewise; few are computed.
    shape = (1, 1, side, side) if data_format == "channels_first" else (1, side, side, 1)
    x, out = untouched(shape), untouched(shape)
    corners = (slice(None), slice(None, None, side - 1), slice(None, None, side - 1))
    corners = (
        (slice(None), *corners) if data_format == "channels_first" else (*corners, slice(None))
    )
    x[corners] = np.arange(1, 5).reshape(x[corners].shape)
    y = pyconv.conv2d(
        x,
        np.full((1, 1, 1, 1), 2, np.float32),
        stride=side - 1,
        out=out[corners],
        algorithm=algorithm,
        data_format=data_format,
    )
    np.testing.assert_array_equal(y, 2 * x[corners])


def test_46341_images_of_46341_channels(algorithm: str) -> None:
    x = untouched((46341, 46341, 1, 1))[::46340]
    x[1, -1] = 3
    y = pyconv.conv2d(x, np.full((1, 46341, 1, 1), 2, np.float32), algorithm=algorithm)
    np.testing.assert_array_equal(y.ravel(), [0, 6])


@pytest.mark.parametrize(
    ("x_shape", "weight_shape"),
    [
        ((2**20, 1, 2**20, 1), (2**24, 1, 1, 1)),  # 2**64 outputs
        ((2**20, 1, 2**20, 1), (2**23, 1, 1, 1)),  # 2**63
        ((2**20, 1, 2**20, 1), (2**20, 1, 1, 1)),  # 2**62 bytes
        ((2**31, 2, 1, 1), (2**31, 2, 1, 1)),
        ((1, 2**29, 1, 1), (2**31, 2**29, 1, 1)),
    ],
    ids=str,
)
def test_products_of_sizes_beyond_63_and_64_bits(
    algorithm: str, x_shape: tuple[int, ...], weight_shape: tuple[int, ...]
) -> None:
    x, weight = (as_strided(zeros(1), shape, (0,) * 4) for shape in (x_shape, weight_shape))
    with pytest.raises((ValueError, MemoryError)):
        pyconv.conv2d(x, weight, algorithm=algorithm)


@pytest.mark.parametrize("channels", [1, 9])
def test_a_plan_is_made_soon_however_many_output_channels_there_are(
    algorithm: str, channels: int
) -> None:
    shapes = ((1, channels, 3, 1), (HUGE, channels, 3, 1))
    x, weight = (as_strided(zeros(1), shape, (0,) * 4) for shape in shapes)
    start = time.monotonic()
    with pytest.raises((ValueError, MemoryError)):
        pyconv.conv2d(x, weight, algorithm=algorithm)
    assert time.monotonic() - start < 5


def test_a_plan_for_an_input_that_no_memory_holds() -> None:
    layer = pyconv.Conv3d(64, 64, (1, 3, 3), stride=(2**40, 1, 1))
    assert layer.plan((1, 64, 2**40, 2**12, 2**12)).output_shape[2] == 1


def test_strides_and_dilations_of_an_enormous_common_multiple(
    algorithm: str, data_format: str
) -> None:
    far = 2**40 + 1
    problem = make((1, 16, 1, 3), (16, 1, 1, 2), bias=False, data_format=data_format)
    y = pyconv.conv2d(
        problem.x,
        problem.weight,
        groups=16,
        stride=(1, 2**31),
        dilation=(1, far),
        padding=((0, 0), (far, far)),
        data_format=data_format,
        algorithm=algorithm,
    )
    x, y = (np.moveaxis(a, -1, 1) if data_format == "channels_last" else a for a in (problem.x, y))
    assert isinstance(problem.weight, np.ndarray)
    expected = np.zeros_like(y)
    expected[..., 0] = x[..., 0] * problem.weight[:, 0, :, 1]
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("bits", [31, 32, 63, 64, 65])
def test_shapes_of_sizes_beyond_any_integer_are_exact_or_refused(bits: int) -> None:
    sides = (2 ** (bits // 2), 2 ** (bits - bits // 2))
    try:
        shape = pyconv.conv_output_shape((1, 1, *sides), (1, 1, 1, 1), 1, 0, 1, 1)
    except ValueError:
        assert bits > 59
    else:
        assert shape == (1, 1, *sides)


@pytest.mark.parametrize("side", [1166, 1167])
def test_a_dilated_5x5_on_a_plane_of_a_million(algorithm: str, side: int) -> None:
    x = np.random.default_rng(0).integers(-4, 5, (1, 1, side, side)).astype(np.float32)
    weight = np.arange(-12, 13, dtype=np.float32).reshape(1, 1, 5, 5)
    y = pyconv.conv2d(x, weight, padding=4, dilation=2, algorithm=algorithm)
    padded = np.pad(x[0, 0], 4)
    exact = np.zeros((side, side), np.float32)  # small integers
    for (i, j), value in np.ndenumerate(weight[0, 0]):
        exact += value * padded[2 * i : 2 * i + side, 2 * j : 2 * j + side]
    tolerance = 1e-5 * np.abs(exact).max() if algorithm == "winograd" else 0
    np.testing.assert_allclose(y[0, 0], exact, rtol=0, atol=tolerance)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("stride", [1, 2])
def test_padding_wider_than_the_kernel_on_narrow_rows(
    algorithm: str, dtype: Any, data_format: str, rank: int, stride: int
) -> None:
    for width, kernel, padding in ((16, 8, 7), (16, 8, 12), (3, 2, 9), (1, 1, 5)):
        make(
            (1, 3, *(1,) * (rank - 1), width),
            (5, 3, *(1,) * (rank - 1), kernel),
            dtype,
            padding=((0, 0),) * (rank - 1) + ((padding, padding),),
            stride=stride,
            data_format=data_format,
        ).check(algorithm)


@pytest.mark.parametrize("name", ["x", "weight", "bias", "residual"])
@pytest.mark.parametrize("offset", ["stride of 9 bytes", "packed structure"])
def test_float64_between_other_bytes(algorithm: str, name: str, offset: str) -> None:
    problem = make((2, 4, 5, 9), (6, 2, 3, 3), np.float64, residual=True, groups=2, padding=1)
    array = getattr(problem, name)
    if offset == "packed structure":
        records = np.zeros(array.shape, [("tag", "u1"), ("value", "f8")])
        view = records["value"]
    else:
        raw = np.zeros(9 * array.size + 8, np.uint8)
        flat: Array = np.ndarray(array.size, np.float64, raw, 0, (9,))
        view = as_strided(flat, array.shape, [9 * s // 8 for s in array.strides])
    view[...] = array
    assert view.strides[-1] == 9
    y = problem.run(algorithm, **{name: view})
    np.testing.assert_array_equal(y, problem.run(algorithm))


@pytest.mark.parametrize("name", ["x", "weight", "bias", "residual", "out"])
def test_masked_arrays_are_refused(name: str) -> None:
    problem = make((1, 2, 5, 5), (3, 2, 3, 3), residual=True)
    right = problem.run() if name == "out" else getattr(problem, name)
    masked = np.ma.masked_array(right, np.ones(right.shape, bool))
    with pytest.raises(TypeError, match=rf"\b{name}\b"):
        problem.run(**{name: masked})


@pytest.mark.parametrize(
    "kind", [np.matrix, np.memmap, np.recarray], ids=lambda kind: kind.__name__
)
@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # numpy.matrix
def test_subclasses_are_read_as_plain_arrays(kind: type[Array]) -> None:
    problem = make((1, 6, 4, 4), (5, 6, 1, 1), bias=False)
    weight = problem.weight[:, :, 0, 0].view(kind)  # type: ignore[call-overload]
    y = pyconv.pointwise_conv2d(problem.x, weight)
    assert type(y) is np.ndarray
    np.testing.assert_array_equal(y, problem.run())


@pytest.mark.parametrize("name", ["x", "weight", "bias", "residual", "out"])
@pytest.mark.parametrize("value", [np.float32(1), np.array(1, np.float32)], ids=["scalar", "0-d"])
def test_arrays_without_axes(name: str, value: Any) -> None:
    problem = make((1, 2, 5, 5), (3, 2, 3, 3), residual=True)
    with pytest.raises((ValueError, TypeError), match=rf"\b{name}\b"):
        problem.run(**{name: value})


def test_numbers_may_be_arrays_without_axes() -> None:
    problem = make((1, 2, 9, 9), (4, 2, 3, 3))
    two = np.array(2)
    y = problem.run(stride=two, padding=two, dilation=two)
    np.testing.assert_array_equal(y, problem.run(stride=2, padding=2, dilation=2))


@pytest.mark.parametrize("rank", CONVOLUTIONS)
def test_every_axis_of_size_one_with_odd_strides(algorithm: str, dtype: Any, rank: int) -> None:
    problem = make((1, 1, *(1,) * rank), (1, 1, *(1,) * rank), dtype, residual=True)
    odd = {
        name: as_strided(array, strides=[-(2**62) + 1] * array.ndim)
        for name in ("x", "weight", "bias", "residual")
        if (array := getattr(problem, name)) is not None
    }
    out = as_strided(np.empty_like(problem.x), strides=[3] * problem.x.ndim)
    np.testing.assert_array_equal(problem.run(algorithm, out=out, **odd), problem.run(algorithm))
