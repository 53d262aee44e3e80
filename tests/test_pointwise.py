"""The 1x1 kernel: pixels that a stride or a view takes from the image, across blocks and rows.

Lanes are pixels or output channels; the latter for images that are channels-last or too small.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from problems import Problem, make, relayout

import pyconv


@pytest.mark.parametrize("stride", [2, 3, 4, 5, (1, 2), (2, 1), (50, 1), (1, 50)], ids=str)
@pytest.mark.parametrize("channels", [3, 100, 700])
@pytest.mark.parametrize("threads", [1, 2])
def test_strides(dtype: Any, stride: Any, channels: int, threads: int) -> None:
    problem = make((1, channels, 41, 45), (9, channels, 1, 1), dtype, residual=True, stride=stride)
    problem.expected().check(problem.run("pointwise", num_threads=threads))


@pytest.mark.parametrize("stride", [1, (3, 1, 1), (1, 2, 1), (2, 3, 2)], ids=str)
def test_depth(dtype: Any, stride: Any) -> None:
    weight = [(2, 3, 1, 1, 1), (11, 40, 1, 1, 1)]
    make((2, 43, 5, 9, 31), weight, dtype, residual=True, stride=stride).check("pointwise")


@pytest.mark.parametrize("layout", ["stepped", "reversed", "moved", "fortran"])
@pytest.mark.parametrize("stride", [1, 2])
def test_views(dtype: Any, layout: str, stride: int) -> None:
    problem = make((2, 20, 33, 47), (17, 20, 1, 1), dtype, stride=stride)
    y = replace(problem, x=relayout(problem.x, layout)).run("pointwise")
    np.testing.assert_array_equal(y, problem.run("reference"))


def test_planes_that_share_cache_sets(dtype: Any) -> None:
    make((1, 33, 32, 64), (9, 33, 1, 1), dtype, residual=True).check("pointwise")


def same_bits(problem: Problem) -> None:
    problem.check_bits("pointwise", num_threads=(1, 3))


@pytest.mark.parametrize("out_channels", [1, 8, 17, 33, 48, 65])
@pytest.mark.parametrize("channels", [1, 3, 16, 40, 1024])
@pytest.mark.parametrize("sizes", [(1, 1), (3, 5), (13, 29)], ids=str)
def test_lanes_of_output_channels(
    dtype: Any, data_format: str, channels: int, out_channels: int, sizes: tuple[int, int]
) -> None:
    # 1024 channels of channels-last pixels share a set of the L1 cache.
    shapes = (1, channels, *sizes), (out_channels, channels, 1, 1)
    same_bits(make(*shapes, dtype, residual=True, activation="relu", data_format=data_format))


@pytest.mark.parametrize("activation", [None, "relu", "gelu"])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("stride", [1, 2, (1, 3), (4, 1)], ids=str)
def test_channels_last_pixels_that_a_stride_takes(
    dtype: Any, activation: Any, residual: bool, stride: Any
) -> None:
    problem = make(
        (3, 37, 21, 34),
        (50, 37, 1, 1),
        dtype,
        residual=residual,
        stride=stride,
        activation=activation,
        data_format="channels_last",
    )
    same_bits(problem)


@pytest.mark.parametrize("sizes", [(13, 6), (7, 8), (1, 9), (31, 2), (40, 10)], ids=str)
@pytest.mark.parametrize("stride", [2, (2, 1), (1, 3)], ids=str)
@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("out_layout", ["stepped", "moved", None])
@pytest.mark.parametrize("channels", [40, 1024])
def test_short_rows_that_a_stride_takes(
    dtype: Any,
    data_format: str,
    sizes: tuple[int, int],
    stride: Any,
    activation: str,
    out_layout: str | None,
    channels: int,
) -> None:
    problem = make(
        (2, channels, *sizes),
        (24, channels, 1, 1),
        dtype,
        residual=True,
        stride=stride,
        activation=activation,
        data_format=data_format,
    )
    expected = problem.run("reference")
    for threads in (1, 3):
        out = np.zeros_like(expected)
        if out_layout is not None:
            out = relayout(out, out_layout)
        problem.run("pointwise", out=out, num_threads=threads)
        np.testing.assert_array_equal(out, expected)


# Deeper than a panel, or more output channels than a task takes.
@pytest.mark.parametrize(
    ("channels", "out_channels", "sizes"),
    [(600, 37, (17, 23)), (40, 1100, (20, 20)), (300, 1030, (20, 20)), (257, 21, (50, 41))],
)
@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("out_layout", ["stepped", None])
def test_lanes_of_many_pixels(
    dtype: Any,
    channels: int,
    out_channels: int,
    sizes: tuple[int, int],
    activation: str,
    out_layout: str | None,
) -> None:
    shapes = (2, channels, *sizes), (out_channels, channels, 1, 1)
    problem = make(*shapes, dtype, residual=True, activation=activation)
    expected = problem.run("reference")
    for threads in (1, 3):
        out = np.zeros_like(expected)
        if out_layout is not None:
            out = relayout(out, out_layout)
        problem.run("pointwise", out=out, num_threads=threads)
        np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("sizes", [(4, 4), (4, 8), (24, 24)], ids=str)
def test_lanes_of_many_pixels_of_uneven_groups(
    dtype: Any, sizes: tuple[int, int], activation: str
) -> None:
    # The deepest panel belongs to another group than the most input channels; only some groups have
    # output channels enough for all parts, and for as many threads.
    weight = [(3, 300, 1, 1), (1200, 256, 1, 1), (40, 1, 1, 1)]
    problem = make((1, 557, *sizes), weight, dtype, activation=activation)
    problem.check_bits("pointwise", num_threads=(1, 3, 8))


@pytest.mark.parametrize("layout", ["stepped", "reversed", "moved", "fortran"])
@pytest.mark.parametrize("stride", [1, 2])
def test_views_of_channels_last_pixels(dtype: Any, layout: str, stride: int) -> None:
    more: dict[str, Any] = dict(stride=stride, data_format="channels_last")
    problem = make((2, 20, 33, 17), (35, 20, 1, 1), dtype, **more)
    expected = problem.run("reference")
    out = relayout(np.zeros_like(expected), layout)
    replace(problem, x=relayout(problem.x, layout)).run("pointwise", out=out)
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("channels", [24, 1024])
def test_groups_of_a_slice_of_channels_last_channels(dtype: Any, channels: int) -> None:
    problem = make(
        (1, channels, 9, 31),
        [(20, 5, 1, 1), (70, channels - 5, 1, 1)],
        dtype,
        data_format="channels_last",
    )
    expected = problem.run("reference")
    wide = np.full((1, 9, 31, channels + 9), np.nan, dtype)
    wide[..., 3 : channels + 3] = problem.x
    out = np.full((1, 9, 31, 100), np.nan, dtype)
    replace(problem, x=wide[..., 3 : channels + 3]).run("pointwise", out=out[..., 7:97])
    np.testing.assert_array_equal(out[..., 7:97], expected)
    assert np.isnan(out[..., :7]).all() and np.isnan(out[..., 97:]).all()


@pytest.mark.parametrize("channels", [33000, 40960])
def test_blocks_of_a_few_pixels_of_very_many_channels(
    dtype: Any, data_format: str, channels: int
) -> None:
    problem = make((1, channels, 13), (50, channels, 1), dtype, data_format=data_format)
    same_bits(replace(problem, arguments={**problem.arguments, "activation": "gelu"}))


@pytest.mark.parametrize("channels", [2000, 2**15, 2**18])
def test_very_many_channels_take_little_memory(dtype: Any, data_format: str, channels: int) -> None:
    layer = pyconv.Conv2d(
        channels, 4, 1, data_format=data_format, dtype=dtype, algorithm="pointwise"
    )
    shape = (1, channels, 8, 8) if data_format == "channels_first" else (1, 8, 8, channels)
    plan = layer.plan(shape)
    assert plan.workspace_bytes <= plan.threads * 2**22


@pytest.mark.parametrize(
    ("channels", "sizes", "stride"), [(1024, (34, 34), 2), (256, (20, 180), (1, 2))]
)
def test_strided_pixels_are_cut_as_those_next_to_each_other(
    channels: int, sizes: tuple[int, int], stride: Any
) -> None:
    # The former are copied, the latter are equally far from each other.
    steps = (stride, stride) if isinstance(stride, int) else stride
    shape = (1, *(size // step for size, step in zip(sizes, steps, strict=True)), channels)
    strided = pyconv.Conv2d(channels, 16, 1, stride, data_format="channels_last")
    dense = pyconv.Conv2d(channels, 16, 1, data_format="channels_last")
    with pyconv.num_threads(1):
        cut = strided.plan((1, *sizes, channels)).partition
        assert cut == dense.plan(shape).partition
    assert "blocks of pixels" in cut


def test_auto_reads_channels_last_pixels_where_they_stand() -> None:
    for channels, out_channels, size in ((256, 64, 56), (2048, 512, 7), (64, 2, 56), (9, 1000, 1)):
        layer = pyconv.Conv2d(channels, out_channels, 1, data_format="channels_last")
        assert layer.plan((1, size, size, channels)).algorithm == "pointwise"
    assert pyconv.Conv2d(512, 128, 1).plan((1, 512, 7, 7)).algorithm == "pointwise"


def test_auto_packs_few_strided_pixels() -> None:
    strided = pyconv.Conv2d(256, 512, 1, 2)
    assert strided.plan((1, 256, 14, 14)).algorithm == "pointwise"
    assert strided.plan((1, 256, 8, 8)).algorithm == "im2col_gemm"
    grouped = pyconv.Conv2d(256, 512, 1, 2, groups=8)
    assert grouped.plan((1, 256, 14, 14)).algorithm == "im2col_gemm"
    assert grouped.plan((1, 256, 16, 16)).algorithm == "pointwise"
