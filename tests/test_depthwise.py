"""The depthwise kernels: every tail, multiplier, step and place to read from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from oracle import Array
from problems import PADDING_MODES, Problem, make, shifted

import pyconv

LANES = 16  # of the widest vector


def check(problem: Problem, **overrides: Any) -> None:
    """What serves depthwise layers is what the reference is, bit for bit."""
    expected = problem.run("reference").view(np.uint8)
    for algorithm in ("depthwise", "grouped"):
        y = problem.run(algorithm, **overrides)
        np.testing.assert_array_equal(y.view(np.uint8), expected)


def image(
    channels: int, *sizes: int, multiplier: int = 1, kernel: Any = (3, 3), **more: Any
) -> Any:
    """A depthwise problem."""
    return make((1, channels, *sizes), (channels * multiplier, 1, *kernel), groups=channels, **more)


# Kernels, square, and strides of planes that are read where they are.
PLANES = [(3, 1), (4, 1), (5, 1), (7, 1), (3, 2), (4, 2), (5, 2), (7, 2)]


def test_auto_takes_pixels_as_lanes_where_rows_are_long() -> None:
    layer = pyconv.Conv2d(32, 32, 3, groups=32)
    plan = layer.plan((1, 32, 112, 112))
    assert plan.algorithm == "depthwise"
    # Vectors of AVX2 have too few registers for most kernels to do without a copy.
    elsewhere = "grouped" if plan.isa == "avx2" else "depthwise"
    assert layer.plan((1, 32, 8, 8)).algorithm == elsewhere
    assert layer.plan((1, 32, 7, 7)).algorithm == "grouped"
    dilated = pyconv.Conv2d(32, 32, 3, padding=2, dilation=2, groups=32)
    assert dilated.plan((1, 32, 33, 33)).algorithm == elsewhere
    assert dilated.plan((1, 32, 17, 17)).algorithm == "grouped"
    wide = pyconv.Conv2d(32, 32, 4, groups=32)
    assert wide.plan((1, 32, 115, 115)).algorithm == elsewhere
    assert wide.plan((1, 32, 23, 23)).algorithm == "grouped"
    large = pyconv.Conv2d(32, 32, 7, groups=32)
    assert large.plan((1, 32, 70, 70)).algorithm == elsewhere
    assert large.plan((1, 32, 62, 62)).algorithm == "grouped"
    strided = pyconv.Conv2d(32, 32, 5, 2, 2, groups=32)
    assert strided.plan((1, 32, 128, 128)).algorithm == elsewhere
    assert strided.plan((1, 32, 33, 33)).algorithm == elsewhere
    assert strided.plan((1, 32, 32, 32)).algorithm == "grouped"
    large = pyconv.Conv2d(32, 32, 7, 2, 3, groups=32)
    assert large.plan((1, 32, 36, 36)).algorithm == elsewhere
    assert large.plan((1, 32, 34, 34)).algorithm == "grouped"
    row = pyconv.Conv1d(32, 32, 5, groups=32)
    assert row.plan((1, 32, 1000)).algorithm == "depthwise"
    assert row.plan((1, 32, 100)).algorithm == "grouped"


def test_refuses_groups_of_more_channels_and_says_why() -> None:
    x, weight = np.ones((1, 4, 5, 5), np.float32), np.ones((4, 2, 3, 3), np.float32)
    with pytest.raises(ValueError, match=r"algorithm.*one input channel"):
        pyconv.conv2d(x, weight, groups=2, algorithm="depthwise")


@pytest.mark.parametrize("kernel", [(3, 3), (4, 4), (5, 5), (6, 6), (7, 7), (4, 2)], ids=str)
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_every_width(dtype: Any, data_format: str, kernel: tuple[int, int], stride: int) -> None:
    for width in range(1, 2 * LANES + 3):
        problem = image(
            2,
            4,
            (width - 1) * stride + 1,
            kernel=kernel,
            dtype=dtype,
            stride=stride,
            padding=[(k // 2, k - 1 - k // 2) for k in kernel],
            data_format=data_format,
        )
        check(problem)


@pytest.mark.parametrize("kernel", [3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_every_height(data_format: str, kernel: int, stride: int) -> None:
    for height in range(1, 20):
        problem = image(
            17,
            height,
            9,
            kernel=(kernel, kernel),
            stride=stride,
            padding=kernel // 2 + 1,
            data_format=data_format,
            residual=True,
        )
        check(problem)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [(3, 3), (4, 4), (5, 5), (6, 6), (7, 7), (3, 4)], ids=str)
@pytest.mark.parametrize("multiplier", [1, 3])
def test_every_number_of_channels(
    dtype: Any, stride: int, kernel: tuple[int, int], multiplier: int
) -> None:
    for channels in range(1, 2 * LANES + 2):
        check(
            image(
                channels,
                5,
                6,
                kernel=kernel,
                multiplier=multiplier,
                dtype=dtype,
                stride=stride,
                padding=2,
                data_format="channels_last",
                residual=True,
                activation="relu6",
            )
        )


@pytest.mark.parametrize("multiplier", [2, 3, 17])
@pytest.mark.parametrize("activation", ["relu", "silu"])
def test_channel_multipliers(
    dtype: Any, data_format: str, multiplier: int, activation: str
) -> None:
    problem = image(
        5,
        11,
        19,
        multiplier=multiplier,
        dtype=dtype,
        padding=1,
        data_format=data_format,
        activation=activation,
        residual=True,
    )
    check(problem)


def test_uneven_multipliers(dtype: Any, data_format: str) -> None:
    weights = [(1, 1, 3, 3), (4, 1, 3, 3), (2, 1, 3, 3), (31, 1, 3, 3), (1, 1, 3, 3)]
    check(make((2, 5, 9, 9), weights, dtype, padding=1, data_format=data_format))


def test_more_channels_than_one_chunk_of_weights() -> None:
    for multiplier in (1, 2, 5):
        check(image(520, 4, 9, multiplier=multiplier, padding=1, data_format="channels_last"))


CROWDED = [
    (1024, (7, 7), 3, dict(padding=1)),
    (1024, (9, 8), 3, dict(padding=(2, 0))),
    (512, (13, 30), 3, dict(padding=1)),
    (512, (11, 15), 5, dict(padding=4, dilation=2)),
    (512, (13, 150), 5, dict(padding=1)),
    (1024, (30, 40), 5, dict(padding=1, stride=(2, 3))),
    (1024, (14, 14), 3, dict(padding=1, stride=2)),
    (1024, (1, 1), 3, dict(padding=1)),
    (1024, (3, 5), 3, dict(padding=7)),
    (512, (9, 9), 7, dict(padding=3)),
    (1024, (4, 6, 7), 3, dict(padding=1)),
]


@pytest.mark.parametrize("case", CROWDED, ids=str)
@pytest.mark.parametrize("shift", [0, 1, 4])
def test_pixels_that_share_sets_of_the_cache(dtype: Any, case: Any, shift: int) -> None:
    channels, sizes, size, arguments = case
    channels //= np.dtype(dtype).itemsize // 4
    kernel = (size,) * len(sizes)
    problem = image(
        channels, *sizes, kernel=kernel, dtype=dtype, data_format="channels_last", **arguments
    )
    problem = replace(problem, x=shifted(problem.x, shift))
    for threads in (1, 3):
        check(problem, num_threads=threads)
    layer_of = pyconv.Conv3d if len(sizes) == 3 else pyconv.Conv2d
    layer = layer_of(
        channels,
        channels,
        size,
        groups=channels,
        data_format="channels_last",
        dtype=dtype,
        algorithm="depthwise",
        **arguments,
    )
    assert "blocks of channels" in layer.plan((1, *sizes, channels)).partition


def test_copies_some_channels_at_a_time_where_pixels_share_sets_of_the_cache() -> None:
    def partition(channels: int) -> str:
        layer = pyconv.Conv2d(
            channels, channels, 3, padding=1, groups=channels, data_format="channels_last"
        )
        return layer.plan((1, 14, 14, channels)).partition

    assert "blocks of channels" in partition(1024)
    assert "blocks of channels" not in partition(1040)


@pytest.mark.parametrize("activation", [None, "relu", ("clip", -0.5, 0.25), "hardswish"])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_epilogues(
    dtype: Any, data_format: str, activation: Any, residual: bool, bias: bool
) -> None:
    problem = image(
        19,
        9,
        21,
        dtype=dtype,
        padding=1,
        data_format=data_format,
        activation=activation,
        residual=residual,
        bias=bias,
    )
    check(problem)


@pytest.mark.parametrize("dilation", [(2, 2), (3, 1), (1, 4), (5, 7)], ids=str)
@pytest.mark.parametrize("stride", [1, 2, (2, 3), 6], ids=str)
def test_dilation(data_format: str, dilation: tuple[int, int], stride: Any) -> None:
    problem = image(
        18, 25, 37, dilation=dilation, stride=stride, padding=dilation, data_format=data_format
    )
    check(problem)


@pytest.mark.parametrize("kernel", [3, 4, 5, 7])
@pytest.mark.parametrize("dilation", [(2, 2), (1, 3), (4, 1), (3, 19)], ids=str)
@pytest.mark.parametrize("width", [3, 8, 15, 17, 32, 33, 70])
def test_dilated_planes(dtype: Any, kernel: int, dilation: tuple[int, int], width: int) -> None:
    # Rows a dilation apart are a plane of their own, which may have a single one.
    for height in (1, 2, 5, 31):
        problem = image(
            3,
            height,
            width,
            multiplier=1 + width % 2,
            kernel=(kernel, kernel),
            dtype=dtype,
            dilation=dilation,
            padding=[(kernel - 1) * d for d in dilation],
            activation="gelu" if width == 17 else "relu",
            residual=True,
        )
        check(problem)
        check(problem, num_threads=3)


@pytest.mark.parametrize("kernel", [3, 4, 5, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", [0, 1, 2, 4])
@pytest.mark.parametrize("size", [(74, 120), (129, 131), (7, 4100), (2100, 33)], ids=str)
def test_planes_larger_than_the_cache(
    dtype: Any, kernel: int, stride: int, padding: int, size: tuple[int, int]
) -> None:
    for residual, activation in ((False, "relu"), (True, None), (True, "silu")):
        problem = image(
            3,
            *size,
            kernel=(kernel, kernel),
            dtype=dtype,
            stride=stride,
            padding=padding,
            residual=residual,
            activation=activation,
        )
        check(problem)
        check(problem, num_threads=2)


@pytest.mark.parametrize("mode", PADDING_MODES)
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_padding_modes(dtype: Any, data_format: str, mode: str, stride: int) -> None:
    problem = image(
        17,
        12,
        23,
        kernel=(5, 5),
        dtype=dtype,
        stride=stride,
        padding=((4, 2), (3, 5)),
        padding_mode=mode,
        data_format=data_format,
    )
    check(problem)


@pytest.mark.parametrize("kernel", [(31, 31), (1, 31), (31, 1), (13, 9)], ids=str)
def test_large_kernels(data_format: str, kernel: tuple[int, int]) -> None:
    padding = [(k // 2, k // 2) for k in kernel]
    check(image(9, 20, 35, kernel=kernel, padding=padding, data_format=data_format))


@pytest.mark.parametrize("stride", [1, 2])
def test_a_kernel_larger_than_the_plane(data_format: str, stride: int) -> None:
    problem = image(
        9, 3, 2, kernel=(7, 7), stride=stride, padding=6, data_format=data_format, residual=True
    )
    check(problem)


@pytest.mark.parametrize("length", [1, 17, 400, 1024, 2500])
@pytest.mark.parametrize("arguments", [{}, dict(stride=2), dict(dilation=3)], ids=str)
def test_one_dimension(
    dtype: Any, data_format: str, length: int, arguments: dict[str, int]
) -> None:
    check(
        image(9, length, kernel=(5,), dtype=dtype, padding=6, data_format=data_format, **arguments),
        num_threads=3,
    )


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [(3, 3, 3), (2, 4, 4), (2, 5, 5)], ids=str)
@pytest.mark.parametrize("width", [19, 40, 70])
def test_three_dimensions(
    dtype: Any, data_format: str, stride: int, kernel: tuple[int, ...], width: int
) -> None:
    problem = image(
        9,
        *(6, 8, width),
        kernel=kernel,
        dtype=dtype,
        stride=stride,
        dilation=(1, 1, 1 + width % 2),
        padding=1,
        data_format=data_format,
        residual=True,
    )
    check(problem, num_threads=2)


@pytest.mark.parametrize("kernel", [3, 4, 5, 7])
@pytest.mark.parametrize("stride", [1, 2])
def test_depths_that_meet_no_input(kernel: int, stride: int) -> None:
    problem = image(
        2,
        *(3, 9, 70),
        kernel=(1, kernel, kernel),
        stride=(1, stride, stride),
        padding=(1, kernel // 2, kernel // 2),
        activation="relu",
    )
    check(problem)


@pytest.mark.parametrize(("kernel", "stride"), PLANES)
@pytest.mark.parametrize("columns", [32, 34, 66])
def test_columns_of_single_rows_among_threads(
    dtype: Any, kernel: int, stride: int, columns: int
) -> None:
    for rows in (1, 2):
        problem = make(
            (1, 1, (rows - 1) * stride + kernel, (columns - 1) * stride + kernel - 2),
            (1, 1, kernel, kernel),
            dtype,
            stride=stride,
            padding=(0, 1),
        )
        y = problem.run("depthwise")
        check(problem)
        for threads in (2, 3):
            np.testing.assert_array_equal(problem.run("depthwise", num_threads=threads), y)


def test_auto_shares_one_input_channel() -> None:
    def chosen(out_channels: int, kernel: int) -> str:
        layer = pyconv.Conv2d(1, out_channels, kernel, padding=kernel // 2)
        return layer.plan((1, 1, 64, 64)).algorithm

    assert chosen(2, 3) == "depthwise"
    assert chosen(2, 7) == "direct"
    assert chosen(4, 3) == "direct"


def last_in_memory(array: Array) -> Array:
    """The same channels-first array with its channels next to each other."""
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(array, 1, -1)), -1, 1)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("names", [("x",), ("out",), ("residual",), ("x", "out", "residual")])
def test_layouts_in_memory(dtype: Any, stride: int, names: tuple[str, ...]) -> None:
    problem = image(17, 9, 21, dtype=dtype, stride=stride, padding=1, residual=True)
    y = problem.run("reference")
    for name in set(names) - {"out"}:
        problem = replace(problem, **{name: last_in_memory(getattr(problem, name))})
    out = last_in_memory(np.zeros_like(y)) if "out" in names else np.zeros_like(y)
    problem.run("depthwise", out=out)
    np.testing.assert_array_equal(out, y)


@pytest.mark.parametrize("shape", [(3, 30, 40), (64, 7, 7), (2, 1, 700), (17, 5, 3)], ids=str)
@pytest.mark.parametrize("threads", [2, 3, 8])
def test_threads(data_format: str, shape: tuple[int, int, int], threads: int) -> None:
    channels, height, width = shape
    size = 1 << 9  # images enough to be shared out
    problem = make(
        (max(1, size // (channels * 4)), channels, height, width),
        (channels, 1, 3, 3),
        groups=channels,
        padding=1,
        data_format=data_format,
    )
    check(problem, num_threads=threads)


@pytest.mark.parametrize(("kernel", "stride"), PLANES)
@pytest.mark.parametrize("top", [0, 2, 3, 4, 6, 11])
@pytest.mark.parametrize("bottom", [0, 2, 3, 4, 6, 11])
@pytest.mark.parametrize("right", [1, 7])
def test_rows_that_only_padding_meets(
    dtype: Any, data_format: str, kernel: int, stride: int, top: int, bottom: int, right: int
) -> None:
    for height in (max(5, kernel), 30):
        make(
            (1, 3, height, 40),
            (3, 1, kernel, kernel),
            dtype,
            groups=3,
            stride=stride,
            padding=((top, bottom), (1, right)),
            data_format=data_format,
        ).check("depthwise")


@pytest.mark.parametrize("activation", [None, "relu", "silu"])
@pytest.mark.parametrize("padding", [1, (1, 90)], ids=str)
@pytest.mark.parametrize("shape", [(70, 14, 14), (5, 40, 60), (3, 7, 200)], ids=str)
def test_planes_of_many_channels_in_one_call(
    dtype: Any, shape: tuple[int, int, int], padding: Any, activation: Any
) -> None:
    # Wide padding makes more edges than a kernel keeps from one channel to the next.
    problem = make(
        (2, *shape),
        (shape[0], 1, 3, 3),
        dtype,
        residual=True,
        groups=shape[0],
        padding=padding,
        activation=activation,
    )
    check(problem)
    check(replace(problem, bias=None))


def test_planes_of_uneven_groups(dtype: Any) -> None:
    weight = [(count, 1, 3, 3) for count in (1, 1, 2, 1, 1, 1, 3, 1)]
    make((2, 8, 14, 14), weight, dtype, residual=True, padding=1).check("depthwise")


@pytest.mark.parametrize(("taps", "stride"), PLANES)
@pytest.mark.parametrize("padding", [0, 1, 2, 3])
@pytest.mark.parametrize("residual", [False, True])
def test_sides_of_planes(dtype: Any, taps: int, stride: int, padding: int, residual: bool) -> None:
    arguments: dict[str, Any] = dict(
        groups=2, stride=stride, padding=padding, residual=residual, activation=("clip", -1, 2)
    )
    for width in (*range(9, 38), 47, 48, 49, 63, 64, 65, 66, 67, 97, 113, 130):
        check(make((1, 2, 9, width), (2, 1, taps, taps), dtype, **arguments))
