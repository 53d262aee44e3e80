"""Direct convolution whose lanes are output channels: the copy of a block's input."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from problems import Problem, make, shifted

import pyconv


def check(problem: Problem) -> None:
    problem.check_bits("direct_channels", num_threads=(1, 3))


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


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 8, 15, 16, 17])
@pytest.mark.parametrize(
    ("sizes", "kernel", "more"),
    [
        ((21, 40), (3, 3), {"padding": 1, "stride": 2}),
        ((21, 40), (3, 3), {"padding": 1}),
        ((33, 35), (11, 11), {"padding": 2, "stride": 4}),
        ((33, 35), (4, 4), {"stride": 4}),
        ((17, 30), (2, 3), {"padding": 4, "stride": (1, 3), "dilation": (3, 2)}),
        ((17, 30), (3, 3), {"padding": 2, "dilation": 2, "stride": (1, 2)}),
        ((17, 30), (1, 1), {"padding": 1, "stride": 2}),
        ((17, 30), (1, 5), {"padding": (0, 2), "padding_mode": "circular", "stride": (1, 2)}),
        ((5, 9, 12), (3, 3, 3), {"padding": 1, "stride": (1, 2, 2)}),
        ((1, 1), (3, 3), {"padding": 4}),
    ],
)
def test_narrow_pixels(
    dtype: Any,
    data_format: str,
    channels: int,
    sizes: tuple[int, ...],
    kernel: tuple[int, ...],
    more: Any,
) -> None:
    shapes = (2, channels, *sizes), (35, channels, *kernel)
    check(make(*shapes, dtype, residual=True, data_format=data_format, **more))


def test_narrow_pixels_of_groups_and_slices(dtype: Any, data_format: str) -> None:
    axis = 1 if data_format == "channels_first" else 3
    problem = make(
        (2, 12, 19, 33),
        (34, 6, 3, 3),
        dtype,
        groups=2,
        padding=1,
        stride=2,
        data_format=data_format,
    )
    shape = list(problem.x.shape)
    shape[axis] += 7
    wide = np.full(shape, np.nan, dtype)
    part = (slice(None),) * axis + (slice(4, 16),)
    wide[part] = problem.x
    check(replace(problem, x=wide[part]))
    uneven = [(20, 3, 3, 3), (18, 9, 3, 3)]
    check(make((2, 12, 19, 33), uneven, dtype, padding=1, stride=2, data_format=data_format))


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
    assert plan.workspace_bytes <= plan.threads * 2**22


@pytest.mark.parametrize("dilation", [8, 14])
def test_groups_that_are_copied_together_take_little_memory(dilation: int) -> None:
    more: dict[str, Any] = dict(groups=8, dilation=(1, dilation), data_format="channels_last")
    layer = pyconv.Conv2d(128, 128, (31, 33), algorithm="direct_channels", **more)
    plan = layer.plan((1, 600, 1100, 128))
    assert plan.workspace_bytes < plan.threads * 2**22


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
    ("groups", "channels", "out_channels"),
    [(7, 16, 16), (11, 32, 24), (3, 64, 40), (20, 16, 5), (3, 48, 8)],
)
def test_groups_that_are_copied_together(
    dtype: Any, data_format: str, stride: int, groups: int, channels: int, out_channels: int
) -> None:
    problem = make(
        (2, groups * channels, 9, 23),
        (groups * out_channels, channels, 3, 3),
        dtype,
        groups=groups,
        stride=stride,
        padding=1,
        residual=True,
        data_format=data_format,
    )
    check(problem)


@pytest.mark.parametrize("outputs", [(16, 64), (64, 16), (5, 130, 40)])
@pytest.mark.parametrize("channels", [16, 32])
def test_groups_of_as_many_inputs_and_unlike_outputs(
    dtype: Any, data_format: str, channels: int, outputs: tuple[int, ...]
) -> None:
    weights = [(out, channels, 3, 3) for out in outputs]
    shape = (4, channels * len(outputs), 40, 33)
    check(make(shape, weights, dtype, padding=1, data_format=data_format))


@pytest.mark.parametrize("out_channels", [1, 2, 4, 7, 8, 9, 20, 23, 24, 25, 36, 40, 41])
def test_last_vectors_that_are_half_empty(
    algorithm: str, dtype: Any, data_format: str, out_channels: int
) -> None:
    problem = make(
        (1, 16, 11, 27), (out_channels, 16, 3, 3), dtype, padding=1, data_format=data_format
    )
    problem.check(algorithm)


@pytest.mark.parametrize("padding_mode", ["zeros", "reflect"])
@pytest.mark.parametrize("out_channels", [16, 27, 32, 37, 64])
@pytest.mark.parametrize("columns", [2, 3, 5, 6, 7, 9, 14])
@pytest.mark.parametrize("channels", [5, 19])
def test_narrow_planes(
    dtype: Any,
    data_format: str,
    channels: int,
    columns: int,
    out_channels: int,
    padding_mode: str,
) -> None:
    more: dict[str, Any] = dict(padding_mode=padding_mode, data_format=data_format)
    shapes = (2, channels, 4, columns), (out_channels, channels, 3, 3)
    check(make(*shapes, dtype, padding=1, residual=True, **more))


@pytest.mark.parametrize("columns", [1, 3, 7])
def test_narrow_planes_of_uneven_groups(dtype: Any, data_format: str, columns: int) -> None:
    weights = [(64, 19, 3, 3), (9, 19, 3, 3), (16, 9, 3, 3)]
    check(make((2, 47, 4, columns), weights, dtype, padding=1, data_format=data_format))


def test_a_layer_packs_weights_anew_for_planes_whose_tiles_are_wider(dtype: Any) -> None:
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((32, 20, 3, 3)).astype(dtype)
    options: dict[str, Any] = dict(padding=1, algorithm="direct_channels")
    layer = pyconv.Conv2d.from_weights(weight, **options)
    for columns in (7, 14, 3, 7):
        x = rng.standard_normal((1, 20, 6, columns)).astype(dtype)
        np.testing.assert_array_equal(layer(x), pyconv.conv2d(x, weight, **options))


@pytest.mark.parametrize("shift", range(17))
@pytest.mark.parametrize("stride", [1, 2])
def test_planes_that_share_sets_of_the_cache(dtype: Any, stride: int, shift: int) -> None:
    # The squares that turn them into pixels begin where lines do.
    problem = make((1, 17, 12, 128), (9, 17, 3, 3), dtype, stride=stride, padding=1)
    expected = problem.run("reference")
    result = replace(problem, x=shifted(problem.x, shift)).run("direct_channels")
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("out_channels", [1, 40])
@pytest.mark.parametrize(("size", "stride"), [((7, 200), 2), ((5, 300), 1)])
def test_passes_over_the_channels_of_few_outputs(
    dtype: Any, data_format: str, size: tuple[int, int], stride: int, out_channels: int
) -> None:
    more: dict[str, Any] = dict(stride=stride, padding=1, data_format=data_format)
    check(make((1, 149, *size), (out_channels, 149, 3, 3), dtype, **more))
