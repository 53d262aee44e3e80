"""Groups of few channels, whose lanes are the channels of several groups."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from problems import Problem, make, shifted

import pyconv


def check(problem: Problem) -> None:
    """Grouped is what the reference is, bit for bit."""
    problem.check_bits("grouped")


def image(groups: int, inputs: int, outputs: int, *sizes: int, kernel: Any, **more: Any) -> Problem:
    """`groups` groups of `inputs` to `outputs` channels each."""
    channels = groups * inputs
    return make((1, channels, *sizes), (groups * outputs, inputs, *kernel), groups=groups, **more)


def test_auto_is_grouped_where_groups_are_small() -> None:
    layer = pyconv.Conv2d(128, 128, 3, padding=1, groups=32)
    assert layer.plan((1, 128, 56, 56)).algorithm == "grouped"
    assert layer.plan((1, 128, 7, 7)).algorithm == "grouped"
    shuffled = pyconv.Conv2d(128, 128, 1, groups=32)
    assert shuffled.plan((1, 128, 28, 28)).algorithm == "pointwise"
    assert shuffled.plan((1, 128, 7, 7)).algorithm == "grouped"
    strided = pyconv.Conv2d(64, 64, 3, 2, padding=1, groups=8)
    assert strided.plan((1, 64, 128, 128)).algorithm == "direct"
    assert strided.plan((1, 64, 56, 56)).algorithm == "direct"
    assert strided.plan((1, 64, 40, 40)).algorithm == "grouped"
    sixteen = pyconv.Conv2d(128, 128, 3, 2, padding=1, groups=8)
    plan = sixteen.plan((1, 128, 40, 40))
    assert (plan.algorithm == "grouped") == (plan.isa != "avx2")
    assert sixteen.plan((1, 128, 42, 42)).algorithm == "direct_channels"
    plan = pyconv.Conv2d(64, 128, 3, padding=1, groups=8).plan((1, 64, 20, 20))
    assert (plan.algorithm == "grouped") == (plan.isa != "avx2")
    dilated = pyconv.Conv2d(128, 128, 3, padding=6, dilation=6, groups=8)
    assert dilated.plan((1, 128, 17, 17)).algorithm == "direct_channels"
    for inputs in (2, 6):  # lanes of a group's channels would leave a quarter empty
        layer = pyconv.Conv2d(8 * inputs, 48, 3, 2, padding=1, groups=8)
        assert layer.plan((1, 8 * inputs, 28, 28)).algorithm == "direct"
    for kernel, algorithm in ((3, "grouped"), (5, "direct")):
        layer = pyconv.Conv2d(48, 48, kernel, padding=kernel // 2, groups=12)
        assert layer.plan((1, 48, 28, 28)).algorithm == algorithm


def test_auto_is_grouped_in_channels_last_where_outputs_fill_a_vector() -> None:
    def plan(size: int, stride: int = 1) -> pyconv.Plan:
        layer = pyconv.Conv2d(16, 96, 3, stride, padding=1, groups=8, data_format="channels_last")
        return layer.plan((1, size, size, 16))

    few, strided = plan(36), plan(80, stride=2)
    elsewhere = "direct_channels" if few.isa == "avx2" else "grouped"
    assert few.algorithm == elsewhere
    assert (strided.algorithm == "grouped") == (strided.isa != "avx2")
    assert plan(37).algorithm != "grouped"


def test_refuses_large_groups_and_says_why() -> None:
    x, weight = np.ones((1, 34, 5, 5), np.float32), np.ones((2, 17, 3, 3), np.float32)
    with pytest.raises(ValueError, match=r"algorithm.*over 16 input channels"):
        pyconv.conv2d(x, weight, groups=2, algorithm="grouped")


@pytest.mark.parametrize("inputs", range(1, 17))
@pytest.mark.parametrize("outputs", [1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 33])
def test_every_pair_of_channels(inputs: int, outputs: int, dtype: Any, data_format: str) -> None:
    more = {"dtype": dtype, "data_format": data_format, "padding": 1, "residual": True}
    check(image(5, inputs, outputs, 3, 9, kernel=(3, 3), **more))


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5, 6, 7])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_every_width(channels: int, kernel: int, stride: int, dtype: Any) -> None:
    for width in (*range(1, 17), 28, 29, 43):
        size = (width - 1) * stride + 1
        padding = [((kernel - 1) // 2, kernel // 2)] * 2
        more = {"dtype": dtype, "stride": stride, "padding": padding}
        check(image(9, channels, channels, 4, size, kernel=(kernel, kernel), **more))


@pytest.mark.parametrize("taps", [*range(8, 14), 15, 22])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 2, 3])
def test_wide_kernels(taps: int, stride: int, dilation: int, dtype: Any) -> None:
    reach = (taps - 1) * dilation
    for width in (1, 6, 7, 8, 15, 29, 43):
        size = max(1, (width - 1) * stride + 1 + reach - taps)
        more = {"stride": (1, stride), "dilation": (1, dilation), "dtype": dtype}
        check(image(18, 1, 1, 3, size, kernel=(2, taps), padding=(0, taps), **more))


@pytest.mark.parametrize("stride", [1, 2, 3, 4])
@pytest.mark.parametrize("dilation", [2, 3, 4])
def test_dilation(stride: int, dilation: int, data_format: str) -> None:
    more = {"stride": stride, "dilation": dilation, "padding": dilation}
    check(image(6, 4, 4, 20, 21, kernel=(3, 3), data_format=data_format, **more))


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
def test_padding_modes(mode: str, data_format: str) -> None:
    more = {"padding": (2, 4), "padding_mode": mode, "data_format": data_format}
    check(image(9, 2, 2, 6, 9, kernel=(3, 5), **more))


def test_volumes_and_blocks_of_rows(data_format: str) -> None:
    more = {"padding": 1, "data_format": data_format}
    check(image(5, 4, 4, 3, 4, 6, kernel=(3, 3, 3), **more))
    check(image(5, 4, 4, 90, 61, kernel=(3, 3), **more))
    check(image(5, 4, 4, 3, 700, kernel=(3, 3), **more))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["zeros", "reflect"])
@pytest.mark.parametrize(
    ("kernel", "stride", "dilation"),
    [
        ((7, 7), (1, 1), (1, 1)),
        ((3, 3), (1, 1), (11, 2)),
        ((2, 5), (3, 2), (1, 1)),
        ((5, 3), (2, 2), (3, 4)),
        ((4, 1), (3, 1), (2, 1)),
        ((3, 7), (2, 2), (1, 3)),
        ((7, 9), (3, 3), (1, 1)),
    ],
    ids=str,
)
def test_copied_rows_take_the_place_of_others(
    channels: int, mode: str, kernel: Any, stride: Any, dilation: Any, data_format: str
) -> None:
    # As many rows as are not copied at once, and as few; of volumes, and of blocks of columns.
    padding = tuple((size - 1) * step // 2 for size, step in zip(kernel, dilation, strict=True))
    more = {"stride": stride, "dilation": dilation, "padding": padding}
    for height, width in ((70, 33), (30, 120), (25, 25)):
        options = {**more, "padding_mode": mode, "data_format": data_format}
        check(image(10, channels, channels, height, width, kernel=kernel, **options))
    if mode == "zeros":
        volume = {name: (1, *value) for name, value in more.items()}
        check(image(9, channels, channels, 4, 40, 29, kernel=(3, *kernel), **volume))
        check(image(2, channels, channels, 26, 600, kernel=kernel, **more))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["zeros", "circular"])
@pytest.mark.parametrize(
    ("size", "stride", "dilation"), [(7, 1, 3), (7, 2, 4), (5, 3, 2), (5, 1, 13), (7, 4, 6)]
)
def test_rows_apart_under_dilation(
    channels: int, mode: str, size: int, stride: int, dilation: int, data_format: str
) -> None:
    more = {
        "stride": stride,
        "dilation": dilation,
        "padding": (size - 1) * dilation // 2,
        "padding_mode": mode,
        "data_format": data_format,
        "kernel": (size, size),
        "residual": True,
    }
    # Phases have one row more than others, or there are fewer rows than phases.
    for height in (7, 83) if mode == "zeros" else (83,):
        for activation in ("relu", "silu"):
            tall = image(17, channels, channels, height, 150, activation=activation, **more)
            tall.check_bits("grouped", num_threads=(1, 3))


def test_plan_tells_the_phases_of_rows() -> None:
    layer = pyconv.Conv2d(48, 48, 7, padding=9, dilation=3, groups=16, algorithm="grouped")
    assert "3 phases of rows" in layer.plan((1, 48, 83, 150)).partition
    assert "phases" not in layer.plan((1, 48, 20, 20)).partition


@pytest.mark.parametrize(
    ("kernel", "stride", "dilation", "sizes"),
    [
        ((512, 1), 1, (1000, 1), (512000, 14)),
        ((512, 1), (1, 3), (1000, 1), (512000, 40)),
        ((4, 3), 1, (700, 1), (2200, 254)),
        ((7, 7), 1, 1, (9999, 56)),
        ((7, 7), 2, 1, (9999, 112)),
        ((3, 3), (4096, 1), 1, (4000000, 8)),
    ],
    ids=str,
)
def test_workspace_does_not_grow_with_dilation_or_height(
    kernel: Any, stride: Any, dilation: Any, sizes: Any
) -> None:
    layer = pyconv.Conv2d(
        16, 16, kernel, stride, dilation=dilation, groups=16, bias=False, algorithm="grouped"
    )
    plan = layer.plan((1, 16, *sizes))
    assert plan.workspace_bytes <= plan.threads * 2**22


def test_uneven_groups(data_format: str) -> None:
    pairs = [(1, 1), (1, 1), (4, 4), (4, 4), (3, 5), (16, 2), (2, 18), (1, 1)]
    weights = [(outputs, inputs, 3, 3) for inputs, outputs in pairs]
    channels = sum(inputs for inputs, _ in pairs)
    check(make((2, channels, 6, 8), weights, padding=1, data_format=data_format))


def test_threads_that_do_not_divide_blocks_of_one_row() -> None:
    # Workspace is kept between calls: what stands in it must not matter.
    make((1, 64, 64, 64), (64, 64, 3, 3)).run("direct_channels", num_threads=2)
    problem = make((1, 48, 3, 256), (48, 1, 7, 7), groups=48, padding=3, dtype=np.float64)
    problem.check_bits("grouped", num_threads=(2, 4))


@pytest.mark.parametrize("shift", range(17))
@pytest.mark.parametrize("sizes", [(32, 32), (8, 128), (40, 64), (1, 2048)], ids=str)
def test_planes_that_share_sets_of_the_cache(
    dtype: Any, sizes: tuple[int, int], shift: int
) -> None:
    # Their channels change places in squares that begin where lines do.
    problem = image(9, 2, 2, *sizes, kernel=(3, 3), dtype=dtype, padding=1, activation="relu")
    expected = problem.run("reference")
    problem = replace(problem, x=shifted(problem.x, shift))
    for more in ({}, {"residual": shifted(expected, shift)}):
        out = shifted(np.zeros_like(expected), shift)
        problem.run("grouped", out=out, **more)
        wanted = problem.run("reference", **more)
        np.testing.assert_array_equal(out, wanted)
        around = out.base
        assert around is not None
        assert np.count_nonzero(np.isnan(around)) == 48
