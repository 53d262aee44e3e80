"""Bias, residual and activation, and numbers that are not finite."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracle
import pytest
from oracle import Activation, Array
from problems import DIRECT, make, shifted

import pyconv

activations = pytest.mark.parametrize("activation", oracle.ACTIVATIONS, ids=str)


def through_identity(values: Array, activation: Activation, algorithm: str = "auto") -> Array:
    """Apply only an activation: a 1x1 convolution of one channel with weight 1."""
    one = np.ones((1, 1, 1), values.dtype)
    y = pyconv.conv1d(values[np.newaxis], one, activation=activation, algorithm=algorithm)
    return y.reshape(values.shape)


@activations
def test_activations_on_a_fine_grid(general: str, dtype: Any, activation: Activation) -> None:
    info = np.finfo(dtype)
    special = [0.0, 1e-30, 1.0, 3.0, 6.0, 40.0, 90.0, 800.0, 1e30, info.tiny, info.max / 8]
    values = np.concatenate([np.linspace(-12, 12, 1201), special, np.negative(special)])
    values = values.astype(dtype)
    exact = values.astype(np.float64)
    expected = oracle.activated(exact, np.zeros_like(exact), activation, dtype)
    expected.check(through_identity(values, activation, general))


@activations
@pytest.mark.parametrize("length", [1, 2, 7, 8, 9, 15, 16, 17, 33])
def test_nan_stays_nan(dtype: Any, activation: Activation, length: int) -> None:
    for place in range(length):
        values = np.zeros(length, dtype)
        values[place] = np.nan
        y = through_identity(values, activation)
        np.testing.assert_array_equal(np.isnan(y), np.isnan(values))


@activations
def test_positive_infinity(dtype: Any, activation: Activation) -> None:
    limits: dict[Activation, float] = {
        "relu6": 6,
        "sigmoid": 1,
        "tanh": 1,
        "hardsigmoid": 1,
        ("clip", -0.5, 0.75): 0.75,
    }
    y = through_identity(np.full(19, np.inf, dtype), activation)
    np.testing.assert_array_equal(y, np.full(19, limits.get(activation, np.inf), dtype))


@pytest.mark.parametrize(
    ("activation", "limit"),
    [
        (None, -np.inf),
        ("relu", 0),
        ("relu6", 0),
        ("sigmoid", 0),
        ("tanh", -1),
        ("hardsigmoid", 0),
        (("leaky_relu", 0.1), -np.inf),
        (("clip", -0.5, 0.75), -0.5),
    ],
    ids=str,
)
def test_negative_infinity(dtype: Any, activation: Activation, limit: float) -> None:
    y = through_identity(np.full(19, -np.inf, dtype), activation)
    np.testing.assert_array_equal(y, np.full(19, limit, dtype))


def test_clip_may_be_open_on_one_side(dtype: Any) -> None:
    values = np.linspace(-3, 3, 25).astype(dtype)
    low = through_identity(values, ("clip", -1.0, np.inf))
    np.testing.assert_array_equal(low, np.maximum(values, -1))
    high = through_identity(values, ("clip", -np.inf, 1.0))
    np.testing.assert_array_equal(high, np.minimum(values, 1))


@activations
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("residual", [False, True])
def test_order_is_convolution_bias_residual_activation(
    algorithm: str,
    dtype: Any,
    data_format: str,
    activation: Activation,
    bias: bool,
    residual: bool,
) -> None:
    problem = make(
        (2, 3, 4, 9),
        (19, 3, 2, 2),
        dtype,
        bias=bias,
        residual=residual,
        activation=activation,
        data_format=data_format,
    )
    problem.check(algorithm)


# Channels a multiple of 2 KiB apart crowd the sets of a cache. Float32 with AVX-512 writes half as
# many of them at once, from lines of the output on.
@pytest.mark.parametrize("activation", [None, ("clip", -0.5, 0.75), "silu"], ids=str)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shift", [0, 1, 15])
@pytest.mark.parametrize("channels", [8, 12, 17, 40])
def test_planes_that_crowd_a_cache(
    algorithm: str, dtype: Any, activation: Activation, bias: bool, shift: int, channels: int
) -> None:
    problem = make(
        (1, 3, 32, 48),
        (channels, 3, 3, 3),
        dtype,
        padding=1,
        bias=bias,
        residual=not bias,
        activation=activation,
    )
    out = shifted(np.zeros((1, channels, 32, 48), dtype), shift)
    problem.run(algorithm, out=out)
    expected = problem.expected()
    (expected if algorithm in DIRECT else expected.of_the_whole()).check(out)
    if algorithm in DIRECT:
        np.testing.assert_array_equal(out, problem.run("reference"))


@pytest.mark.parametrize("direct", DIRECT)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_direct_algorithm_confines_what_is_not_finite(
    direct: str, dtype: Any, data_format: str, value: float, stride: int
) -> None:
    problem = make(
        (2, 4, 7, 21),
        (6, 2, 3, 3),
        dtype,
        padding=1,
        stride=stride,
        groups=2,
        data_format=data_format,
    )
    problem.x[1, 2, 4, 3] = value
    expected = problem.expected()
    assert not np.isfinite(expected.value).all()
    expected.check(problem.run(direct))


@pytest.mark.parametrize("direct", DIRECT)
@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_padding_repeats_what_is_not_finite(direct: str, mode: str) -> None:
    problem = make((1, 2, 6, 6), (3, 2, 3, 3), padding=2, padding_mode=mode)
    problem.x[0, 1, 0, 5] = np.nan
    problem.expected().check(problem.run(direct))


def test_overflow_is_infinity(general: str, dtype: Any) -> None:
    x = np.full((1, 1, 20), np.finfo(dtype).max, dtype)
    weight = np.array([[[2.0]], [[-2.0]]], dtype)
    y = pyconv.conv1d(x, weight, algorithm=general)
    np.testing.assert_array_equal(y, np.repeat([[[np.inf], [-np.inf]]], 20, axis=2))
