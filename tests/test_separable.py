"""Depthwise, pointwise and separable convolution, against the general one and the oracle."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from problems import make

import pyconv


@pytest.mark.parametrize("multiplier", [1, 2, 3])
@pytest.mark.parametrize("channels", [1, 5, 16, 33])
def test_depthwise(
    general: str, dtype: Any, data_format: str, multiplier: int, channels: int
) -> None:
    problem = make(
        (2, channels, 6, 7),
        (channels * multiplier, 1, 3, 3),
        dtype,
        residual=True,
        stride=(1, 2),
        padding=1,
        groups=channels,
        activation="relu6",
        data_format=data_format,
    )
    y = pyconv.depthwise_conv2d(
        problem.x,
        problem.weight,
        problem.bias,
        (1, 2),
        1,
        1,
        activation="relu6",
        residual=problem.residual,
        data_format=data_format,
        algorithm=general,
    )
    problem.expected().check(y)


def test_depthwise_weight_must_be_one_channel_deep() -> None:
    x = np.ones((1, 4, 5, 5), np.float32)
    with pytest.raises(ValueError, match="weight"):
        pyconv.depthwise_conv2d(x, np.ones((4, 2, 3, 3), np.float32))
    with pytest.raises(ValueError, match="weight"):
        pyconv.depthwise_conv2d(x, np.ones((6, 1, 3, 3), np.float32))


@pytest.mark.parametrize("ndim", [2, 4])
@pytest.mark.parametrize("batch", [(), (2,)])
def test_pointwise(
    general: str, dtype: Any, data_format: str, ndim: int, batch: tuple[int, ...]
) -> None:
    problem = make(
        (*batch, 7, 3, 5),
        (6, 7, 1, 1),
        dtype,
        residual=True,
        activation="gelu",
        data_format=data_format,
    )
    assert isinstance(problem.weight, np.ndarray)
    y = pyconv.pointwise_conv2d(
        problem.x,
        problem.weight.reshape((6, 7, 1, 1)[:ndim]),
        problem.bias,
        residual=problem.residual,
        activation="gelu",
        data_format=data_format,
        algorithm=general,
    )
    problem.expected().check(y)


@pytest.mark.parametrize("shape", [(6, 7, 3, 3), (6, 7, 1), (6,), (6, 8)])
def test_pointwise_weight_must_be_a_matrix(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="weight"):
        pyconv.pointwise_conv2d(np.ones((1, 7, 3, 3), np.float32), np.ones(shape, np.float32))


@pytest.mark.parametrize("multiplier", [1, 2])
@pytest.mark.parametrize("biases", [False, True])
def test_separable_is_depthwise_then_pointwise(
    dtype: Any, data_format: str, multiplier: int, biases: bool
) -> None:
    shared: dict[str, Any] = dict(data_format=data_format)
    depthwise = make((2, 5, 7, 8), (5 * multiplier, 1, 3, 3), dtype, bias=biases, **shared)
    pointwise = make((1, 5 * multiplier, 1, 1), (9, 5 * multiplier, 1, 1), dtype, bias=biases)
    middle = pyconv.depthwise_conv2d(
        depthwise.x, depthwise.weight, depthwise.bias, 2, 1, 1, activation="relu", **shared
    )
    y = pyconv.pointwise_conv2d(
        middle, pointwise.weight, pointwise.bias, activation="silu", **shared
    )
    fused = pyconv.separable_conv2d(
        depthwise.x,
        depthwise.weight,
        pointwise.weight,
        depthwise.bias,
        pointwise.bias,
        2,
        1,
        1,
        depthwise_activation="relu",
        activation="silu",
        **shared,
    )
    np.testing.assert_array_equal(fused, y)


def test_separable_adds_the_residual_before_the_last_activation() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 4, 5, 5)).astype(np.float32)
    depthwise = rng.standard_normal((4, 1, 3, 3)).astype(np.float32)
    pointwise = rng.standard_normal((4, 4)).astype(np.float32)
    middle = pyconv.depthwise_conv2d(x, depthwise, padding=1)
    y = pyconv.pointwise_conv2d(middle, pointwise, residual=x, activation="relu")
    out = np.empty_like(y)
    fused = pyconv.separable_conv2d(
        x, depthwise, pointwise, padding=1, residual=x, activation="relu", out=out
    )
    assert fused is out
    np.testing.assert_array_equal(fused, y)


def test_separable_weights_must_fit_each_other() -> None:
    x = np.ones((1, 4, 5, 5), np.float32)
    with pytest.raises(ValueError, match="pointwise_weight"):
        pyconv.separable_conv2d(x, np.ones((4, 1, 3, 3), np.float32), np.ones((6, 5), np.float32))
    with pytest.raises(ValueError, match="depthwise_weight"):
        pyconv.separable_conv2d(x, np.ones((4, 2, 3, 3), np.float32), np.ones((6, 4), np.float32))


def test_separable_result_must_not_overlap_any_input() -> None:
    x, pointwise = np.ones((1, 4, 5, 5), np.float32), np.ones((4, 4), np.float32)
    buffer = np.ones(200, np.float32)
    depthwise, out = buffer[99:135].reshape(4, 1, 3, 3), buffer[:100].reshape(x.shape)
    with pytest.raises(ValueError, match=r"\bout\b"):
        pyconv.separable_conv2d(x, depthwise, pointwise, padding=1, out=out)
    with pytest.raises(ValueError, match=r"\bout\b"):
        pyconv.separable_conv2d(out, depthwise.copy(), pointwise, padding=1, out=out)


def test_separable_layer() -> None:
    layer = pyconv.DepthwiseSeparableConv2d(6, 10, 3, stride=2, padding=1)
    assert layer.depthwise.weight.shape == (6, 1, 3, 3)
    assert layer.pointwise.weight.shape == (10, 6, 1, 1)
    x = np.random.default_rng(0).standard_normal((2, 6, 9, 8)).astype(np.float32)
    y = layer(x)
    assert y.shape == (2, 10, 5, 4)
    np.testing.assert_array_equal(y, layer.pointwise(layer.depthwise(x)))
    for twin in (pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer)):
        np.testing.assert_array_equal(twin(x), y)
    assert repr(layer).startswith("DepthwiseSeparableConv2d(")


def test_separable_layer_is_the_function(dtype: Any, data_format: str) -> None:
    shared: dict[str, Any] = dict(
        data_format=data_format, depthwise_activation="relu6", activation="tanh"
    )
    layer = pyconv.DepthwiseSeparableConv2d(5, 9, 3, 2, 2, 2, dtype=dtype, rng=0, **shared)
    x = make((2, 5, 9, 8), (5, 1, 3, 3), dtype, data_format=data_format).x
    y = layer(x)
    assert layer.depthwise.bias is not None and layer.pointwise.bias is not None
    weights = (
        layer.depthwise.weight,
        layer.pointwise.weight,
        layer.depthwise.bias,
        layer.pointwise.bias,
    )
    np.testing.assert_array_equal(
        y, pyconv.separable_conv2d(x, *weights, stride=2, padding=2, dilation=2, **shared)
    )
    out = np.empty_like(y)
    residual = np.ones_like(y)
    assert layer(x, residual, out, num_threads=1) is out
    np.testing.assert_array_equal(
        out,
        pyconv.separable_conv2d(
            x, *weights, stride=2, padding=2, dilation=2, residual=residual, **shared
        ),
    )


@pytest.mark.parametrize("activation", ["relu", "silu"])
def test_more_outputs_and_inputs_than_the_pointwise_part_takes_at_once(
    dtype: Any, activation: str
) -> None:
    rng = np.random.default_rng(0)
    shapes = [(1, 300, 20, 20), (300, 1, 3, 3), (1100, 300, 1, 1)]
    x, depthwise, pointwise = (rng.standard_normal(shape).astype(dtype) for shape in shapes)
    between = pyconv.depthwise_conv2d(x, depthwise, padding=1)
    expected = pyconv.pointwise_conv2d(between, pointwise, activation=activation)
    y = pyconv.separable_conv2d(x, depthwise, pointwise, padding=1, activation=activation)
    np.testing.assert_array_equal(y, expected)
