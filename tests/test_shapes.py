"""Output shapes, parameters, multiply-accumulates and receptive fields."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st
from problems import problems

import pyconv

GOOGLENET_INPUT = (28, 28, 192)


@given(data=st.data())
def test_output_shape_is_that_of_the_result(data: st.DataObject) -> None:
    problem = data.draw(problems(np.float32))
    assert isinstance(problem.weight, np.ndarray)
    names = ("stride", "padding", "dilation", "groups", "data_format")
    shape = pyconv.conv_output_shape(
        problem.x.shape, problem.weight.shape, *(problem.arguments[name] for name in names)
    )
    assert shape == oracle.output_shape(problem.x, problem.weight, **problem.arguments)
    assert isinstance(shape, tuple) and all(type(n) is int for n in shape)


def test_output_shape_has_the_defaults_of_the_function() -> None:
    assert pyconv.conv_output_shape((2, 3, 9, 9), (5, 3, 3, 3)) == (2, 5, 7, 7)
    assert pyconv.conv_output_shape((3, 9), (5, 3, 3)) == (5, 7)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (dict(stride=0), "stride"),
        (dict(padding=-1), "padding"),
        (dict(dilation=0), "dilation"),
        (dict(groups=2), "groups"),
        (dict(padding="full"), "padding.*full"),
        (dict(input_shape=(1, 4, 9, 9)), "channels"),
        (dict(input_shape=(9, 9)), "input_shape"),
        (dict(input_shape=(1, 3, 2, 9)), "[Kk]ernel size"),
        (dict(weight_shape=(5, 3)), "weight_shape"),
        (dict(data_format="NCHW"), "data_format.*NCHW"),
    ],
    ids=str,
)
def test_output_shape_refuses(arguments: dict[str, Any], words: str) -> None:
    shapes: dict[str, Any] = dict(input_shape=(1, 3, 9, 9), weight_shape=(5, 3, 3, 3))
    with pytest.raises(ValueError, match=words):
        pyconv.conv_output_shape(**{**shapes, **arguments})


def macs(out_channels: int, in_channels: int, size: int, height: int = 28, width: int = 28) -> int:
    """Multiply-accumulates of a layer that keeps the size of a channels-last image."""
    return pyconv.conv_macs(
        (height, width, in_channels),
        (out_channels, in_channels, size, size),
        padding="same",
        data_format="channels_last",
    )


def test_macs_of_a_5x5_layer_with_and_without_a_bottleneck() -> None:
    assert macs(32, 192, 5) == 120_422_400
    assert macs(16, 192, 1) + macs(32, 16, 5) == 12_443_648


def test_macs_count_batch_groups_and_stride() -> None:
    one = pyconv.conv_macs((8, 16, 16), (12, 8, 3, 3), padding=1)
    assert one == 12 * 16 * 16 * 8 * 9
    assert pyconv.conv_macs((5, 8, 16, 16), (12, 8, 3, 3), padding=1) == 5 * one
    assert pyconv.conv_macs((8, 16, 16), (12, 2, 3, 3), padding=1, groups=4) == one // 4
    assert pyconv.conv_macs((8, 16, 16), (12, 8, 3, 3), stride=2, padding=1) == one // 4
    assert pyconv.conv_macs((0, 8, 16, 16), (12, 8, 3, 3)) == 0


def module(branches: list[list[tuple[int, int, int]]], pooled: int) -> tuple[tuple[int, ...], int]:
    """Output shape and weights of branches of (in, out, kernel) layers beside `pooled` maps."""
    channels, weights = pooled, 0
    for branch in branches:
        shape: tuple[int, ...] = GOOGLENET_INPUT
        for in_channels, out_channels, size in branch:
            shape = pyconv.conv_output_shape(
                shape,
                (out_channels, in_channels, size, size),
                padding="same",
                data_format="channels_last",
            )
            weights += pyconv.conv_params(in_channels, out_channels, size, bias=False)
        assert shape[:2] == (28, 28)
        channels += shape[2]
    return (28, 28, channels), weights


def test_inception_module() -> None:
    naive = [[(192, 64, 1)], [(192, 128, 3)], [(192, 32, 5)]]
    assert module(naive, pooled=192) == ((28, 28, 416), 387_072)


def test_inception_module_with_reductions() -> None:
    reduced = [
        [(192, 64, 1)],
        [(192, 96, 1), (96, 128, 3)],
        [(192, 16, 1), (16, 32, 5)],
        [(192, 32, 1)],
    ]
    assert module(reduced, pooled=0) == ((28, 28, 256), 163_328)


@pytest.mark.parametrize("groups", [1, 2, 4, 8])
@pytest.mark.parametrize("size", [1, 3, 7])
def test_params_of_a_grouped_layer(groups: int, size: int) -> None:
    c_in, c_out = 8, 24
    weights = size * size * c_in * c_out // groups
    assert pyconv.conv_params(c_in, c_out, size, groups) == weights + c_out
    assert pyconv.conv_params(c_in, c_out, size, groups, bias=False) == weights
    layer = pyconv.Conv2d(c_in, c_out, size, groups=groups)
    assert layer.bias is not None
    assert layer.weight.size + layer.bias.size == weights + c_out


def test_params_of_a_separable_layer() -> None:
    assert pyconv.conv_params(3, 3, 3, groups=3, bias=False) == 27
    assert pyconv.conv_params(3, 4, 1, bias=False) == 12


def test_params_of_any_rank() -> None:
    assert pyconv.conv_params(4, 6, (5,)) == 5 * 4 * 6 + 6
    assert pyconv.conv_params(4, 6, np.array([1, 7])) == 7 * 4 * 6 + 6
    assert pyconv.conv_params(4, 6, (2, 3, 4), groups=2) == 24 * 2 * 6 + 6


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((6, 8, 1, 4), "in_channels must be divisible by groups"),
        ((8, 6, 1, 4), "out_channels must be divisible by groups"),
        ((6, 6, 1, 0), "groups"),
        ((6, 6, 0), "kernel_size"),
        ((-1, 6, 1), "in_channels"),
    ],
)
def test_params_refuse(arguments: tuple[Any, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        pyconv.conv_params(*arguments)


@pytest.mark.parametrize(
    ("layers", "field"),
    [
        ([], 1),
        ([(1, 1, 1)], 1),
        ([(3, 1, 1)], 3),
        ([(3, 1, 1)] * 3, 7),
        ([(3, 1, 1), (3, 1, 2), (3, 1, 4)], 15),
        ([(7, 2, 1), (3, 2, 1)], 11),
        ([(3, 1, 1), (3, 1, 1), (2, 2, 1), (3, 1, 1), (3, 1, 1)], 14),
        ([(5, 3, 2)], 9),
    ],
    ids=str,
)
def test_receptive_field(layers: list[tuple[int, int, int]], field: int) -> None:
    assert pyconv.receptive_field(layers) == field


@given(
    layers=st.lists(
        st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(1, 3)), min_size=1, max_size=3
    )
)
def test_receptive_field_is_the_input_that_gives_one_output(
    layers: list[tuple[int, int, int]],
) -> None:
    length = pyconv.receptive_field(layers)
    shape: tuple[int, ...] = (1, length)
    for kernel, stride, dilation in layers:
        shape = pyconv.conv_output_shape(shape, (1, 1, kernel), stride=stride, dilation=dilation)
    assert shape == (1, 1)
