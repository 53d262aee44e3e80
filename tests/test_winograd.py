"""What is special of Winograd: norm-wise accuracy, parts and tiles, and when it is chosen."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import Array
from problems import PADDING_MODES, Problem, make, problems, relayout

import pyconv
from pyconv import _core
from pyconv.benchmarks.accuracy import INPUTS, KINDS, WEIGHTS, channel_counts, direct_and_winograd

KERNELS = ((3, 3), (4, 4), (5, 5), (1, 3), (4, 1))  # along both axes, and along one
kernels = pytest.mark.parametrize("kernel", KERNELS, ids=str)


# The others give the same bits.
@pytest.mark.skipif(_core.current_isa() != pyconv.isas()[0], reason="not the best instruction set")
@pytest.mark.parametrize(
    ("kernel", "stride", "channels"),
    [(*kind, channels) for kind in KINDS for channels in channel_counts(*kind)],
    ids=str,
)
@pytest.mark.parametrize("values", INPUTS)
def test_error_within_four_times_that_of_direct(
    kernel: tuple[int, int], stride: int, channels: int, values: str
) -> None:
    for weights in WEIGHTS:
        direct, other = direct_and_winograd(kernel, stride, values, weights, channels)
        assert other.largest <= 4 * direct.largest, weights
        assert other.rms <= 4 * direct.rms, weights


@pytest.mark.parametrize("out_channels", [8, 12, 15])
@pytest.mark.parametrize("values", INPUTS)
def test_error_of_few_outputs(out_channels: int, values: str) -> None:
    for weights in WEIGHTS:
        direct, other = direct_and_winograd((3, 3), 1, values, weights, 20, out_channels)
        assert other.largest <= 4 * direct.largest, weights
        assert other.rms <= 4 * direct.rms, weights


@settings(max_examples=60)
@given(data=st.data())
def test_threads_and_batch_do_not_change_bits(data: st.DataObject) -> None:
    problem = data.draw(problems(np.float32, "winograd"))
    y = problem.run("winograd", num_threads=1)
    np.testing.assert_array_equal(problem.run("winograd", num_threads=3), y)
    if problem.x.ndim == problem.rank + 2:
        for n in range(len(problem.x)):
            residual = None if problem.residual is None else problem.residual[n]
            one = replace(problem, x=problem.x[n], residual=residual)
            np.testing.assert_array_equal(one.run("winograd"), y[n])


@pytest.mark.parametrize("out_channels", [*range(1, 18), 31, 33, 47, 49, 64, 65, 80, 96])
@pytest.mark.parametrize("width", [1, 4, 5, 27, 28, 29, 33, 64])
def test_tails_of_channels_and_columns(
    dtype: Any, data_format: str, out_channels: int, width: int
) -> None:
    in_channels = 1 + out_channels * 7 % 83
    kernel = ((3, 3), (1, 3), (4, 1))[(out_channels + width) % 3]
    make(
        (1, in_channels, 6, width),
        (out_channels, in_channels, *kernel),
        dtype,
        padding=1,
        residual=True,
        data_format=data_format,
    ).check("winograd")


@kernels
@pytest.mark.parametrize("height", range(1, 9))
def test_tiles_of_fewer_outputs(
    dtype: Any, data_format: str, kernel: tuple[int, int], height: int
) -> None:
    padding = (kernel[0] // 2, kernel[1] // 2)
    for width in (*range(1, 9), 27, 34):
        make(
            (1, 18, height, width),
            (33, 18, *kernel),
            dtype,
            padding=padding,
            residual=True,
            data_format=data_format,
        ).check("winograd")


@kernels
@pytest.mark.parametrize("dilation", [2, 3, (1, 5), (4, 1), 12], ids=str)
@pytest.mark.parametrize("padding", [0, 1, (3, 9), 12], ids=str)
def test_dilation_by_phases(
    dtype: Any, data_format: str, kernel: tuple[int, int], dilation: Any, padding: Any
) -> None:
    arguments = dict(dilation=dilation, padding=padding, data_format=data_format)
    make((2, 18, 50, 49), (17, 18, *kernel), dtype, residual=True, **arguments).check("winograd")


@pytest.mark.parametrize("dilation", [2, 3, (4, 1), (1, 4)], ids=str)
@pytest.mark.parametrize("activation", [None, "relu", "gelu"])
@pytest.mark.parametrize("residual", [False, True])
def test_dilation_on_planes_that_share_sets_of_the_cache(
    dtype: Any, dilation: Any, activation: str | None, residual: bool
) -> None:
    # Their outputs change places in squares before each is stored where its phase has it.
    arguments = dict(dilation=dilation, padding=dilation, activation=activation)
    problem = make((1, 18, 32, 64), (21, 18, 3, 3), dtype, residual=residual, **arguments)
    problem.check("winograd")
    y = problem.run("winograd")
    around = np.full((1, 21, 32, 64, 3), np.nan, dtype)
    problem.run("winograd", out=around[..., 1], num_threads=3)
    np.testing.assert_array_equal(around[..., 1], y)
    assert np.isnan(around[..., ::2]).all()


@kernels
@pytest.mark.parametrize("dilation", [(2, 2), (5, 5), (3, 2), (2, 16), (1, 30), (40, 40)], ids=str)
@pytest.mark.parametrize("width", [33, 131])
def test_phases_share_rows_of_contiguous_pixels(
    dtype: Any, kernel: tuple[int, int], dilation: tuple[int, int], width: int
) -> None:
    padding = (2 * dilation[0], 2 * dilation[1])
    stride = (2 if dilation[0] == 1 else 1, 1)
    arguments = dict(stride=stride, dilation=dilation, padding=padding, activation="relu")
    problem = make((1, 19, 21, width), (35, 19, *kernel), dtype, residual=True, **arguments)
    y = problem.run("winograd", num_threads=1)
    problem.check("winograd")
    np.testing.assert_array_equal(problem.run("winograd", num_threads=3), y)
    # Every phase reads pixels of its own where these are apart, or channels are contiguous.
    np.testing.assert_array_equal(problem.run("winograd", x=relayout(problem.x, "stepped")), y)
    last = {
        name: np.ascontiguousarray(np.moveaxis(value, 1, -1))
        for name, value in (("x", problem.x), ("residual", problem.residual))
        if value is not None
    }
    turned = problem.run("winograd", data_format="channels_last", **last)
    np.testing.assert_array_equal(np.moveaxis(turned, -1, 1), y)


@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5, 6, 7, 9, (1, 8), (7, 2)], ids=str)
@pytest.mark.parametrize("padding", [0, 1, (4, 5)], ids=str)
@pytest.mark.parametrize("size", [(10, 10), (31, 47), (28, 64)], ids=str)
def test_stride_2_by_even_and_odd_pixels(
    dtype: Any, data_format: str, size: tuple[int, int], padding: Any, kernel: Any
) -> None:
    weight = (17, 18, *((kernel, 3) if isinstance(kernel, int) else kernel))
    arguments = dict(stride=2, padding=padding, data_format=data_format)
    make((2, 18, *size), weight, dtype, residual=True, **arguments).check("winograd")


@pytest.mark.parametrize("kernel", [(6, 6), (7, 7), (1, 7), (11, 1), (3, 20), (2, 5)], ids=str)
def test_long_kernels_in_parts(dtype: Any, data_format: str, kernel: tuple[int, int]) -> None:
    arguments = dict(padding=(3, 9), data_format=data_format)
    make((2, 18, 19, 31), (17, 18, *kernel), dtype, residual=True, **arguments).check("winograd")


@pytest.mark.parametrize("kernel", [(3, 3), (6, 7), (1, 3)], ids=str)
def test_weights_that_no_cache_holds(dtype: Any, kernel: tuple[int, int]) -> None:
    channels = 402 if kernel[0] > 1 else 2222
    problem = make((1, channels, 5, 9), (247, channels, *kernel), dtype, padding=1)
    layer = pyconv.Conv2d.from_weights(problem.weight, padding=1, algorithm="winograd")
    assert layer.plan(problem.x.shape).packed_weight_bytes > 12 << 20
    problem.check("winograd")


@pytest.mark.parametrize(
    ("weight", "size", "arguments"),
    [
        ((70, 2048, 3, 3), (4, 60), {}),
        ((70, 2033, 3, 3), (9, 31), dict(dilation=(3, 2))),
        ((9, 1030, 5, 5), (7, 50), {}),
        ((9, 1360, 3, 3, 3), (2, 5, 60), dict(stride=(2, 1, 1))),
        ((9, 100, 33, 3, 3), (3, 5, 60), {}),
        ((140, 1024, 3, 3), (5, 90), dict(groups=2)),
    ],
    ids=str,
)
def test_channels_in_passes(
    dtype: Any,
    data_format: str,
    weight: tuple[int, ...],
    size: tuple[int, ...],
    arguments: dict[str, Any],
) -> None:
    shape = (1, weight[1] * arguments.get("groups", 1), *size)
    padding = tuple(kernel // 2 for kernel in weight[2:])
    problem = make(shape, weight, dtype, padding=padding, data_format=data_format, **arguments)
    problem.check("winograd")
    y = problem.run("winograd", num_threads=1)
    np.testing.assert_array_equal(problem.run("winograd", num_threads=3), y)


@kernels
@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("padding", [0, 1, 3])
def test_depth_taps_are_further_channels(
    dtype: Any, data_format: str, kernel: tuple[int, int], depth: int, padding: int
) -> None:
    make(
        (2, 18, 5, 11, 13),
        (17, 18, depth, *kernel),
        dtype,
        residual=True,
        padding=(padding, 1, 1),
        stride=(2, 1, 1),
        data_format=data_format,
    ).check("winograd")


@pytest.mark.parametrize("mode", PADDING_MODES)
def test_a_layer_is_the_function(dtype: Any, data_format: str, mode: str) -> None:
    arguments: dict[str, Any] = dict(padding=2, groups=2, padding_mode=mode, activation="silu")
    problem = make((2, 36, 9, 30), (10, 18, 3, 3), dtype, data_format=data_format, **arguments)
    layer = pyconv.Conv2d.from_weights(
        problem.weight, problem.bias, data_format=data_format, algorithm="winograd", **arguments
    )
    y = layer(problem.x)
    problem.check("winograd")
    np.testing.assert_array_equal(y, problem.run("winograd"))


@pytest.mark.parametrize("shape", [(0, 4, 9, 9), (1, 0, 9, 9), (1, 4, 0, 9), (1, 4, 1, 1)])
def test_plans_of_nothing(shape: tuple[int, ...]) -> None:
    for out_channels in (0, 3):
        weight = np.ones((out_channels, shape[1], 3, 3), np.float32)
        bias = np.arange(out_channels, dtype=np.float32)
        layer = pyconv.Conv2d.from_weights(weight, bias, padding=2, algorithm="winograd")
        # Where there is nothing to sum, the definition serves.
        expected = "winograd" if out_channels and shape[1] else "reference"
        assert layer.plan(shape).algorithm == expected
        problem = Problem(np.ones(shape, np.float32), weight, bias, None, dict(padding=2))
        problem.check("winograd")


def tiles_that_meet(problem: Problem, outs: tuple[int, int], row: int, column: int) -> Array:
    """Mark the outputs (of an input padded by 1) in tiles that read one input pixel."""
    y = problem.expected().value
    reach = [m + k - 2 for m, k in zip(outs, problem.weight.shape[2:], strict=True)]
    marked = np.zeros(y.shape[-2:], bool)
    for i in range(0, y.shape[-2], outs[0]):
        for j in range(0, y.shape[-1], outs[1]):
            if i - 1 <= row < i + reach[0] and j - 1 <= column < j + reach[1]:
                marked[i : i + outs[0], j : j + outs[1]] = True
    return marked


@kernels
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_within_tiles(kernel: tuple[int, int], value: float) -> None:
    problem = make((1, 20, 14, 30), (18, 20, *kernel), padding=1)
    clean = problem.run("winograd")
    problem.x[0, 3, 5, 17] = value
    y = problem.run("winograd")
    outs = tuple(1 if k == 1 else 7 - k for k in kernel)
    marked = tiles_that_meet(problem, (outs[0], outs[1]), 5, 17)
    np.testing.assert_array_equal(y[..., ~marked], clean[..., ~marked])
    read = y[..., 7 - kernel[0] : 7, 19 - kernel[1] : 19]
    assert not np.isfinite(read).any()


@pytest.mark.parametrize(
    ("kernel", "arguments", "reason"),
    [
        ((3, 3), dict(stride=3), "stride"),
        ((3, 3), dict(dilation=(1, 2), padding=1, padding_mode="circular"), "dilation"),
        ((3, 3), dict(stride=2, padding=1, padding_mode="reflect"), "stride"),
        ((3, 3), dict(stride=2, dilation=(2, 1)), "dilation"),
        ((3, 3), dict(dilation=(65, 1), padding=65), "dilation"),
        ((1, 1), {}, "1x1"),
        ((21, 3), dict(padding=9), "taps"),
    ],
)
def test_it_says_why_it_refuses(
    kernel: tuple[int, int], arguments: dict[str, Any], reason: str
) -> None:
    weight = np.ones((4, 4, *kernel), np.float32)
    x = np.ones((1, 4, 9, 9), np.float32)
    with pytest.raises(ValueError, match=f"algorithm.*winograd.*{reason}"):
        pyconv.conv2d(x, weight, algorithm="winograd", **arguments)


@pytest.mark.parametrize(
    ("channels", "out_channels", "kernel", "size", "arguments", "chosen"),
    [
        (64, 64, 3, 56, {}, True),
        (64, 64, 3, 56, dict(groups=2), True),
        (64, 64, 3, 56, dict(groups=4), True),
        (64, 64, 3, 56, dict(groups=8), False),
        (64, 64, 3, 56, dict(dtype=np.float64), False),
        (512, 512, 3, 10, {}, True),
        (512, 512, 3, 7, {}, False),
        (448, 384, 3, 8, {}, False),
        (512, 512, 3, 28, dict(dilation=2, padding=2), True),
        (512, 512, 3, 28, dict(dilation=12, padding=12), False),
        (512, 256, 3, 33, dict(dilation=12, padding=12), True),
        (2048, 256, 3, 28, dict(dilation=6, padding=6), True),
        (16, 32, 3, 64, dict(dilation=16, padding=16), True),
        (64, 64, 3, 50, dict(dilation=20, padding=20), False),
        (3, 64, 3, 224, {}, False),
        (64, 3, 3, 224, {}, False),
        (64, 64, 3, (56, 1), {}, False),
        (64, 64, 5, 28, {}, True),
        (16, 32, 5, 28, {}, True),
        (24, 12, 3, 28, {}, True),
        (16, 8, 3, 28, {}, False),
        (128, 128, (1, 7), 17, {}, True),
        (8, 32, 7, 28, {}, True),
        (8, 32, 7, 56, dict(stride=2), True),
        (7, 32, 7, 28, {}, False),
        (8, 32, 5, 28, {}, False),
        (64, 64, 2, 56, {}, False),
        (512, 512, 3, 28, dict(stride=2), False),
        (64, 64, 5, 56, dict(stride=2), True),
    ],
)
def test_when_auto_chooses_it(
    channels: int,
    out_channels: int,
    kernel: Any,
    size: Any,
    arguments: dict[str, Any],
    chosen: bool,
) -> None:
    height, width = size if isinstance(size, tuple) else (size, size)
    layer = pyconv.Conv2d(channels, out_channels, kernel, rng=0, **{"padding": 1, **arguments})
    for batch in (1, 16):
        plan = layer.plan((batch, channels, height, width))
        assert (plan.algorithm == "winograd") == chosen
