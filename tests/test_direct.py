"""Direct convolution of rows that are copied: lanes are pixels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from problems import PADDING_MODES, Problem, make

import pyconv


def check(problem: Problem) -> None:
    problem.check_bits("direct")


@pytest.mark.parametrize("taps", [3, 5])
@pytest.mark.parametrize("groups", [1, 4])
def test_auto_takes_pixels_as_lanes_for_few_channels_last_outputs(taps: int, groups: int) -> None:
    layer = pyconv.Conv2d(64, 4 * groups, taps, data_format="channels_last", groups=groups)
    assert layer.plan((1, 64, 64, 64)).algorithm == "direct"


@pytest.mark.parametrize(
    ("channels", "out_channels", "kernel", "stride", "size", "chosen"),
    [
        (3, 32, 3, 2, 224, "direct"),
        (8, 16, 3, 2, 96, "direct"),
        (3, 16, 4, 4, 224, "direct"),
        (128, 8, 3, 2, 112, "direct"),
        (32, 64, 3, 2, 112, "direct_channels"),
        (96, 6, 3, 2, 28, "direct"),
        (96, 32, 3, 2, 28, "direct_channels"),
        (16, 8, 5, 3, 64, "direct_channels"),
    ],
)
def test_what_auto_chooses_under_a_stride(
    channels: int, out_channels: int, kernel: int, stride: int, size: int, chosen: str
) -> None:
    layer = pyconv.Conv2d(channels, out_channels, kernel, stride, padding=kernel // 2)
    assert layer.plan((1, channels, size, size)).algorithm == chosen


def test_auto_does_not_copy_wide_gaps() -> None:
    layer = pyconv.Conv2d(512, 4, 3, dilation=24, padding=24, data_format="channels_last")
    assert layer.plan((1, 14, 14, 512)).algorithm == "direct_channels"


@pytest.mark.parametrize("channels", [2, 3, 15, 16, 17, 40])
@pytest.mark.parametrize(
    ("sizes", "kernel", "more"),
    [
        ((9, 21), (3, 3), {"padding": 1}),
        ((9, 21), (3, 3), {"padding": (5, 4), "stride": 2}),
        ((7, 40), (2, 5), {"padding": (0, 7), "stride": (3, 4)}),
        ((9, 21), (3, 3), {"padding": 6, "dilation": 3}),
        ((1, 1), (3, 3), {"padding": 4}),
        ((9, 21), (1, 1), {"stride": 2}),
        ((9, 11), (3, 3), {"padding": 1, "padding_mode": "reflect"}),
        ((4, 5, 18), (2, 3, 3), {"padding": 1, "stride": (2, 1, 2)}),
        ((33,), (4,), {"padding": 3, "stride": 3}),
    ],
)
def test_channels_last_rows(
    channels: int, sizes: tuple[int, ...], kernel: tuple[int, ...], more: Any, dtype: Any
) -> None:
    shapes = (2, channels, *sizes), (3, channels, *kernel)
    check(make(*shapes, dtype=dtype, data_format="channels_last", **more))


def test_groups_and_a_slice_of_channels_last_channels(dtype: Any) -> None:
    problem = make((1, 12, 8, 19), (6, 6, 3, 3), groups=2, dtype=dtype, padding=1)
    wide = np.full((1, 8, 19, 20), np.nan, dtype)
    wide[..., 5:17] = np.moveaxis(problem.x, 1, -1)
    result = pyconv.conv2d(
        wide[..., 5:17],
        problem.weight,
        padding=1,
        groups=2,
        data_format="channels_last",
        algorithm="direct",
    )
    expected = pyconv.conv2d(problem.x, problem.weight, padding=1, groups=2, algorithm="reference")
    np.testing.assert_array_equal(np.moveaxis(result, -1, 1), expected)


@pytest.mark.parametrize("width", [13, 14, 16, 29, 30, 31, 45, 46, 48, 64, 142])
@pytest.mark.parametrize("activation", [None, "gelu"])
@pytest.mark.parametrize("channels", [1, 3, 40])
def test_rows_of_whole_vectors(dtype: Any, width: int, activation: Any, channels: int) -> None:
    # 40 channels of long rows take more than one pass, in which sums wait in between.
    make(
        (2, channels, 37, width),
        (13, channels, 3, 3),
        dtype,
        residual=True,
        padding=1,
        activation=activation,
    ).check_bits("direct")


@pytest.mark.parametrize("kernel", [2, 3, 5])
@pytest.mark.parametrize("mode", PADDING_MODES)
def test_two_phases_of_a_row(dtype: Any, kernel: int, mode: str) -> None:
    for width in (*range(1, 40), 70):
        for padding in sorted({0, 1, 2, width - 1, width}):
            wide = padding + (mode == "reflect") > width and mode in ("reflect", "circular")
            if wide or width + 2 * padding < kernel:
                continue
            make(
                (1, 2, kernel, width),
                (5, 2, kernel, kernel),
                dtype,
                stride=2,
                padding=(0, padding),
                padding_mode=mode,
            ).check_bits("direct")


@pytest.mark.parametrize("kernel", [3, 4, 5, 8])
@pytest.mark.parametrize("dilation", [1, 3, 5])
def test_four_phases_of_a_row(dtype: Any, kernel: int, dilation: int) -> None:
    for width in (*range(60, 76), 150):
        make(
            (1, 2, dilation * (kernel - 1) + 2, width),
            (5, 2, kernel, kernel),
            dtype,
            stride=(1, 4),
            padding=(1, width % 3 * dilation),
            dilation=dilation,
        ).check_bits("direct")


@pytest.mark.parametrize("threads", [2, 3, 7])
@pytest.mark.parametrize("activation", [None, "gelu"])
@pytest.mark.parametrize("weights", [(75, 39, 9), [(60, 20, 9), (3, 19, 9)]])
@pytest.mark.parametrize("batch", [1, 2])
def test_threads_share_the_output_channels_of_one_row(
    threads: int, activation: Any, weights: Any, batch: int
) -> None:
    problem = make(
        (batch, 39, 1200), weights, residual=True, stride=2, activation=activation, seed=threads
    )
    problem.check_bits("direct", num_threads=(threads,))


@pytest.mark.parametrize(
    ("channels", "sizes", "kernel", "more"),
    [
        (72, (6001,), (7,), {"padding": 3}),
        (72, (6001,), (7,), {"padding": 9, "padding_mode": "circular"}),
        (72, (5000,), (3,), {"padding": 40, "dilation": 40}),
        (40, (9000,), (5,), {"padding": 1700, "stride": 2}),
        (40, (6, 3301), (3, 3), {"padding": 1}),
        (3, (2, 7, 3301), (1, 5, 4), {"padding": (0, 2, 1), "stride": (1, 2, 3)}),
    ],
    ids=str,
)
@pytest.mark.parametrize("activation", [None, "gelu"])
@pytest.mark.parametrize("outs", [1, 10])
def test_parts_of_long_rows(
    channels: int,
    sizes: tuple[int, ...],
    kernel: tuple[int, ...],
    more: Any,
    activation: Any,
    outs: int,
    dtype: Any,
    data_format: str,
) -> None:
    shapes = (1, channels, *sizes), (outs, channels, *kernel)
    arguments = dict(residual=True, activation=activation, dtype=dtype, data_format=data_format)
    make(*shapes, **arguments, **more).check_bits("direct", num_threads=(1, 2, 5))


def test_threads_share_a_row_of_one_output_channel() -> None:
    layer = pyconv.Conv1d(2, 1, 63, padding=31, algorithm="direct", rng=0)
    with pyconv.num_threads(1):
        assert "parts of rows" not in layer.plan((1, 2, 12000)).partition
    with pyconv.num_threads(2):
        assert "2 parts of rows" in layer.plan((1, 2, 12000)).partition


@pytest.mark.parametrize("dilation", [1, 3])
@pytest.mark.parametrize("sizes", [(9, 11), (14, 13), (38, 10), (2, 30), (5, 5, 12)], ids=str)
@pytest.mark.parametrize("before_and_after", [(2, 2), (3, 1), (1, 5), (0, 6), (9, 4), (17, 17)])
def test_rows_that_share_their_padding(
    dtype: Any,
    data_format: str,
    before_and_after: tuple[int, int],
    sizes: tuple[int, ...],
    dilation: int,
) -> None:
    kernel = (1, 2, 4)[-len(sizes) :]
    padding = [(1, 1)] * (len(sizes) - 1) + [before_and_after]
    more: dict[str, Any] = dict(padding=padding, dilation=dilation, data_format=data_format)
    problem = make((1, 5, *sizes), (7, 5, *kernel), dtype, residual=True, **more)
    # What an earlier call left in the workspace must not matter.
    replace(problem, x=np.full_like(problem.x, np.nan)).run("direct", num_threads=1)
    problem.check_bits("direct", num_threads=(1, 3))
