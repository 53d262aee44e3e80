"""causal_conv1d: against a plain loop in float64, and in chunks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from oracle import Array, Expected, activated

import pyconv


def random(*shape: int, dtype: Any = np.float32) -> Array:
    """A random array."""
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype)


def expected(
    x: Array, weight: Array, bias: Array | None, state: Array | None, activation: Any
) -> tuple[Expected, Array]:
    """The definition: the result with its bound, and the state after it."""
    keep = weight.shape[-1] - 1
    if state is None:
        state = np.zeros((*x.shape[:-1], keep), x.dtype)
    whole = np.concatenate([state, x], axis=-1)
    wide = whole.astype(np.float64)
    taps = weight.reshape(weight.shape[0], -1).astype(np.float64)
    total, magnitude = np.zeros(x.shape), np.zeros(x.shape)
    for t in range(x.shape[-1]):
        window = wide[..., t : t + keep + 1]
        total[..., t] = (window * taps).sum(-1)
        magnitude[..., t] = np.abs(window * taps).sum(-1)
    if bias is not None:
        total += bias[:, None].astype(np.float64)
        magnitude += np.abs(bias[:, None])
    error = (keep + 9) * float(np.finfo(x.dtype).eps) * magnitude
    return activated(total, error, activation, x.dtype), whole[..., x.shape[-1] :]


@pytest.mark.parametrize("length", [0, 1, 2, 3, 5, 64, 1000, 3001])
@pytest.mark.parametrize("kernel", [1, 2, 4, 9])
@pytest.mark.parametrize("with_state", [False, True])
@pytest.mark.parametrize("batch", [(), (2,), (0,)], ids=str)
def test_is_the_definition(
    dtype: Any, length: int, kernel: int, with_state: bool, batch: tuple[int, ...]
) -> None:
    x = random(*batch, 5, length, dtype=dtype)
    weight, bias = random(5, 1, kernel, dtype=dtype), random(5, dtype=dtype)
    state = random(*batch, 5, kernel - 1, dtype=dtype) if with_state else None
    y, after = pyconv.causal_conv1d(
        x, weight, bias, state=state, activation="silu", return_state=True
    )
    value, last = expected(x, weight, bias, state, "silu")
    value.check(y)
    np.testing.assert_array_equal(after, last)
    assert y.flags.c_contiguous
    assert not np.may_share_memory(after, x)
    assert state is None or not np.may_share_memory(after, state)


@pytest.mark.parametrize("kernel", [1, 3, 4])
@pytest.mark.parametrize("activation", [None, "relu", "silu"])
def test_a_stream_in_chunks_gives_the_same_bits(
    dtype: Any, kernel: int, activation: str | None
) -> None:
    x = random(2, 19, 300, dtype=dtype)
    weight, bias = random(19, 1, kernel, dtype=dtype), random(19, dtype=dtype)
    y = pyconv.causal_conv1d(x, weight, bias, activation=activation)
    for sizes in ([300], [1] * 20 + [280], [0, 2, 5, 1, 92, 0, 200], [150, 150]):
        state, parts, at = None, [], 0
        for size in sizes:
            part, state = pyconv.causal_conv1d(
                x[..., at : at + size],
                weight,
                bias,
                state=state,
                activation=activation,
                return_state=True,
            )
            parts.append(part)
            at += size
        np.testing.assert_array_equal(
            np.concatenate(parts, axis=-1).view(np.uint8), y.view(np.uint8)
        )


def test_zeros_are_the_state_that_is_not_given() -> None:
    x, weight = random(3, 7, 40), random(7, 1, 4)
    zeros = np.zeros((3, 7, 3), np.float32)
    np.testing.assert_array_equal(
        pyconv.causal_conv1d(x, weight, state=zeros), pyconv.causal_conv1d(x, weight)
    )


def test_weights_of_two_axes_and_arrays_of_any_strides() -> None:
    x, weight, state = random(2, 6, 50), random(6, 1, 4), random(2, 6, 3)
    y = pyconv.causal_conv1d(x, weight, state=state)
    np.testing.assert_array_equal(pyconv.causal_conv1d(x, weight[:, 0], state=state), y)
    turned = np.ascontiguousarray(x.transpose(0, 2, 1)).transpose(0, 2, 1)
    reverse = np.asfortranarray(state)
    np.testing.assert_array_equal(pyconv.causal_conv1d(turned, weight, state=reverse), y)


def test_says_what_is_wrong() -> None:
    x, weight = random(2, 6, 50), random(6, 1, 4)
    with pytest.raises(ValueError, match="weight"):
        pyconv.causal_conv1d(x, random(6, 2, 4))
    with pytest.raises(ValueError, match="weight"):
        pyconv.causal_conv1d(x, random(6, 1, 0))
    with pytest.raises(ValueError, match=r"x: got shape \(2, 6, 50\)"):
        pyconv.causal_conv1d(x, random(5, 1, 4))
    with pytest.raises(ValueError, match="x: got shape"):
        pyconv.causal_conv1d(x[0, 0], weight)
    with pytest.raises(ValueError, match="state"):
        pyconv.causal_conv1d(x, weight, state=random(2, 6, 4))
    with pytest.raises(ValueError, match="bias"):
        pyconv.causal_conv1d(x, weight, random(5))
    with pytest.raises(TypeError, match="state"):
        pyconv.causal_conv1d(x, weight, state=random(2, 6, 3, dtype=np.float64))
    with pytest.raises(TypeError, match="weight"):
        pyconv.causal_conv1d(x, weight.astype(np.float64))
