"""What is special of Winograd algorithms: norm-wise accuracy, tiles, and when they are chosen."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import Array
from problems import PADDING_MODES, Problem, make, problems

import pyconv
from pyconv.benchmarks.accuracy import INPUTS, KINDS, WEIGHTS, channel_counts, direct_and_other

WINOGRAD = tuple(name for name in pyconv.algorithms() if name.startswith("winograd"))

winograd = pytest.mark.parametrize("name", WINOGRAD)


def outputs(name: str) -> int:
    """Rows and columns of a tile: m of winograd_mxm_rxr."""
    return int(name.split("_")[1][0])


def taps(name: str) -> int:
    """Rows and columns of the kernel at stride 1: r of winograd_mxm_rxr."""
    return int(name[-1])


@pytest.mark.parametrize(
    ("name", "kernel", "stride", "channels"),
    [(*kind, channels) for kind in KINDS for channels in channel_counts(*kind[1:])],
)
@pytest.mark.parametrize("values", INPUTS)
def test_error_within_four_times_that_of_direct(
    name: str, kernel: int, stride: int, channels: int, values: str
) -> None:
    for weights in WEIGHTS:
        direct, other = direct_and_other(name, kernel, stride, values, weights, channels)
        assert other.largest <= 4 * direct.largest, weights
        assert other.rms <= 4 * direct.rms, weights


@winograd
@settings(max_examples=20)
@given(data=st.data())
def test_threads_and_batch_do_not_change_bits(name: str, data: st.DataObject) -> None:
    problem = data.draw(problems(np.float32, name))
    y = problem.run(name, num_threads=1)
    np.testing.assert_array_equal(problem.run(name, num_threads=3), y)
    if problem.x.ndim == problem.rank + 2:
        for n in range(len(problem.x)):
            residual = None if problem.residual is None else problem.residual[n]
            one = replace(problem, x=problem.x[n], residual=residual)
            np.testing.assert_array_equal(one.run(name), y[n])


@winograd
@pytest.mark.parametrize("out_channels", [*range(1, 18), 31, 33, 47, 49, 64, 65, 80, 96])
@pytest.mark.parametrize("width", [1, 4, 5, 27, 28, 29, 33, 64])
def test_tails_of_channels_and_columns(
    name: str, dtype: Any, data_format: str, out_channels: int, width: int
) -> None:
    in_channels = 1 + out_channels * 7 % 83
    make(
        (1, in_channels, 6, width),
        (out_channels, in_channels, taps(name), taps(name)),
        dtype,
        padding=taps(name) // 2,
        residual=True,
        data_format=data_format,
    ).check(name)


@winograd
@pytest.mark.parametrize("dilation", [2, 3, (1, 5), (4, 1), 12], ids=str)
@pytest.mark.parametrize("padding", [0, 1, (3, 9), 12], ids=str)
def test_dilation_by_phases(
    name: str, dtype: Any, data_format: str, dilation: Any, padding: Any
) -> None:
    arguments = dict(dilation=dilation, padding=padding, data_format=data_format)
    make(
        (2, 18, 50, 49), (17, 18, taps(name), taps(name)), dtype, residual=True, **arguments
    ).check(name)


def test_auto_takes_phases_that_fill_tiles() -> None:
    for dilation, algorithm in [(2, "winograd_4x4_3x3"), (12, "direct_channels")]:
        layer = pyconv.Conv2d(512, 512, 3, padding=dilation, dilation=dilation)
        assert layer.plan((1, 512, 28, 28)).algorithm == algorithm


@winograd
@pytest.mark.parametrize("mode", PADDING_MODES)
def test_a_layer_is_the_function(name: str, dtype: Any, data_format: str, mode: str) -> None:
    arguments: dict[str, Any] = dict(padding=2, groups=2, padding_mode=mode, activation="silu")
    problem = make(
        (2, 36, 9, 30),
        (10, 18, taps(name), taps(name)),
        dtype,
        data_format=data_format,
        **arguments,
    )
    layer = pyconv.Conv2d.from_weights(
        problem.weight, problem.bias, data_format=data_format, algorithm=name, **arguments
    )
    y = layer(problem.x)
    problem.check(name)
    np.testing.assert_array_equal(y, problem.run(name))


@winograd
@pytest.mark.parametrize("shape", [(0, 4, 9, 9), (1, 0, 9, 9), (1, 4, 0, 9), (1, 4, 1, 1)])
def test_plans_of_nothing(name: str, shape: tuple[int, ...]) -> None:
    for out_channels in (0, 3):
        weight = np.ones((out_channels, shape[1], taps(name), taps(name)), np.float32)
        bias = np.arange(out_channels, dtype=np.float32)
        layer = pyconv.Conv2d.from_weights(weight, bias, padding=4, algorithm=name)
        # Where there is nothing to sum, the definition serves.
        expected = name if out_channels and shape[1] else "reference"
        assert layer.plan(shape).algorithm == expected
        Problem(np.ones(shape, np.float32), weight, bias, None, dict(padding=4)).check(name)


def tiles_that_meet(problem: Problem, outs: int, row: int, column: int) -> Array:
    """Mark the outputs (of an input padded by 1) in tiles that read one input pixel."""
    y = problem.expected().value
    marked = np.zeros(y.shape[-2:], bool)
    for i in range(0, y.shape[-2], outs):
        for j in range(0, y.shape[-1], outs):
            if i - 1 <= row < i + 5 and j - 1 <= column < j + 5:
                marked[i : i + outs, j : j + outs] = True
    return marked


@winograd
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_within_tiles(name: str, value: float) -> None:
    problem = make((1, 20, 14, 30), (18, 20, taps(name), taps(name)), padding=1)
    clean = problem.run(name)
    problem.x[0, 3, 5, 17] = value
    y = problem.run(name)
    marked = tiles_that_meet(problem, outputs(name), 5, 17)
    np.testing.assert_array_equal(y[..., ~marked], clean[..., ~marked])
    read = y[..., 7 - taps(name) : 7, 19 - taps(name) : 19]
    assert not np.isfinite(read).any()


@winograd
@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("padding", [0, 1, 3])
def test_depth_taps_are_further_channels(
    name: str, dtype: Any, data_format: str, depth: int, padding: int
) -> None:
    make(
        (2, 18, 5, 11, 13),
        (17, 18, depth, taps(name), taps(name)),
        dtype,
        residual=True,
        padding=(padding, 1, 1),
        stride=(2, 1, 1),
        data_format=data_format,
    ).check(name)


@winograd
@pytest.mark.parametrize("odd", [0, 1])
@pytest.mark.parametrize("padding", [0, 1, (4, 5)], ids=str)
@pytest.mark.parametrize("size", [(10, 10), (31, 47), (28, 64)], ids=str)
def test_stride_2_by_even_and_odd_pixels(
    name: str, dtype: Any, data_format: str, size: tuple[int, int], padding: Any, odd: int
) -> None:
    kernel = 2 * taps(name) - odd
    make(
        (2, 18, *size),
        (17, 18, kernel, kernel),
        dtype,
        residual=True,
        stride=2,
        padding=padding,
        data_format=data_format,
    ).check(name)


@winograd
@pytest.mark.parametrize(
    ("longer", "arguments", "reason"),
    [
        (0, dict(stride=3), "stride"),
        (0, dict(dilation=(1, 2), padding=1, padding_mode="circular"), "dilation"),
        (4, dict(stride=2, dilation=(2, 1), padding=8), "dilation"),
        (0, dict(dilation=(65, 1), padding=165), "dilation"),
        (1, {}, "kernel"),
        (-1, {}, "kernel"),
    ],
)
def test_it_says_why_it_refuses(
    name: str, longer: int, arguments: dict[str, Any], reason: str
) -> None:
    weight = np.ones((4, 4, taps(name) + longer, taps(name) + min(longer, 0)), np.float32)
    if arguments.get("stride") == 2:
        weight = np.ones((4, 4, 2 * taps(name), 2 * taps(name)), np.float32)
    with pytest.raises(ValueError, match=f"algorithm.*{name}.*{reason}"):
        pyconv.conv2d(np.ones((1, 4, 19, 19), np.float32), weight, algorithm=name, **arguments)


@pytest.mark.parametrize(
    ("channels", "out_channels", "size", "arguments", "chosen"),
    [
        (64, 64, 56, {}, True),
        (64, 64, 56, dict(groups=2), True),
        (64, 64, 56, dict(groups=4), False),
        (64, 64, 56, dict(dtype=np.float64), False),
        (512, 512, 10, {}, True),
        (512, 512, 7, {}, False),
        (3, 64, 224, {}, False),
        (64, 3, 224, {}, False),
        (64, 64, (56, 1), {}, False),
    ],
)
def test_when_auto_chooses_it(
    channels: int, out_channels: int, size: Any, arguments: dict[str, Any], chosen: bool
) -> None:
    height, width = size if isinstance(size, tuple) else (size, size)
    layer = pyconv.Conv2d(channels, out_channels, 3, padding=1, rng=0, **arguments)
    for batch in (1, 16):
        plan = layer.plan((batch, channels, height, width))
        assert (plan.algorithm in WINOGRAD) == chosen
