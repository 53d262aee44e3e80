"""Direct convolution whose lanes are output channels: the copy of a block's input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from problems import Problem, make

import pyconv


def check(problem: Problem) -> None:
    expected = problem.run("reference").view(np.uint8)
    for num_threads in (1, 3):
        got = problem.run("direct_channels", num_threads=num_threads)
        np.testing.assert_array_equal(got.view(np.uint8), expected)


@pytest.mark.parametrize("dilation", [2, 4, 7, 13, 30])
@pytest.mark.parametrize("padding", [0, 1, 6, 14, 40])
@pytest.mark.parametrize("taps", [2, 3, 5])
def test_margins_of_wide_dilations(
    dtype: Any, data_format: str, dilation: int, padding: int, taps: int
) -> None:
    size = 29
    padding = max(padding, dilation * (taps - 1) // 2)
    more: dict[str, Any] = dict(dilation=dilation, data_format=data_format)
    check(make((1, 5, 3, size), (19, 5, 1, taps), dtype, padding=(0, padding), **more))
    if dilation > 2:
        check(make((1, 18, size, 23), (7, 18, 3, taps), dtype, padding=padding + 26, **more))


@pytest.mark.parametrize(
    ("padding", "more"),
    [
        (70000, {"padding_mode": "replicate"}),
        ((200000, 0), {"stride": 2}),
        ((0, 200000), {"stride": 2}),
        (5000, {}),
        (90000, {"stride": 3, "dilation": 2}),
    ],
)
def test_padding_that_is_wider_than_blocks(dtype: Any, padding: Any, more: Any) -> None:
    check(make((1, 16, 10), (16, 16, 3), dtype, padding=[padding], **more))


@pytest.mark.parametrize("width", [2044, 2043, 1020])
def test_narrow_rows_of_whole_pages(dtype: Any, width: int) -> None:
    for channels in (3, 4):
        check(make((1, channels, 16, width), (64, channels, 5, 3), dtype, padding=(2, 1)))


@pytest.mark.parametrize("channels", [1040, 2048])
@pytest.mark.parametrize("dilation", [1, 9])
def test_passes_over_many_channels(
    dtype: Any, data_format: str, channels: int, dilation: int
) -> None:
    problem = make(
        (1, channels, 19, 32),
        (18, channels, 3, 3),
        dtype,
        padding=dilation,
        dilation=dilation,
        residual=True,
        activation="relu",
        data_format=data_format,
    )
    check(problem)


def test_a_few_passes_take_little_memory() -> None:
    layer = pyconv.Conv2d(2048, 256, 3, padding=18, dilation=18, algorithm="direct_channels")
    plan = layer.plan((1, 2048, 32, 32))
    assert plan.workspace_bytes < plan.threads * 2**22
