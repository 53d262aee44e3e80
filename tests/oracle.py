"""An independent oracle: convolution in float64, a plain loop over rows, with an error bound.

Nothing here comes from pyconv. NumPy gathers the windows of a row of outputs by index, and
multiplies them with the weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Activation = str | tuple[Any, ...] | None

ACTIVATIONS: tuple[Activation, ...] = (
    None,
    "relu",
    "relu6",
    "sigmoid",
    "tanh",
    "silu",
    "hardswish",
    "hardsigmoid",
    "gelu",
    ("leaky_relu", 0.1),
    ("clip", -0.5, 0.75),
)

_SIMPLE: dict[str, tuple[Callable[[Array], Array], float]] = {
    # name: (function in float64, its Lipschitz constant)
    "relu": (lambda v: np.maximum(v, 0), 1.0),
    "relu6": (lambda v: np.clip(v, 0, 6), 1.0),
    "sigmoid": (lambda v: 1 / (1 + np.exp(-v)), 0.25),
    "tanh": (np.tanh, 1.0),
    "silu": (lambda v: v / (1 + np.exp(-v)), 1.1),
    "hardswish": (lambda v: v * (np.clip(v + 3, 0, 6) / 6), 1.5),
    "hardsigmoid": (lambda v: np.clip(v + 3, 0, 6) / 6, 1 / 6),
    "gelu": (lambda v: v * (np.vectorize(math.erfc, otypes=[float])(-v / math.sqrt(2)) / 2), 1.13),
}


@dataclass(frozen=True)
class Expected:
    """The float64 result and how far each element of a `dtype` result may be from it."""

    value: Array
    bound: Array
    dtype: np.dtype[Any]

    def of_the_whole(self) -> Expected:
        """The largest bound for every element.

        Winograd mixes the pixels of a tile, so that the error of one is bounded by all.
        """
        return replace(self, bound=np.full_like(self.bound, np.max(self.bound, initial=0.0)))

    def check(self, got: Array) -> None:
        """Assert that `got` has this shape and dtype and lies within the bound everywhere."""
        assert isinstance(got, np.ndarray)
        assert got.shape == self.value.shape
        assert got.dtype == self.dtype
        finite = np.isfinite(self.value)
        np.testing.assert_array_equal(got[~finite], self.value[~finite])
        with np.errstate(invalid="ignore"):
            wrong = ~(np.abs(got - self.value) <= self.bound) & finite
        if wrong.any():
            where = tuple(int(i) for i in np.argwhere(wrong)[0])
            raise AssertionError(
                f"{wrong.sum()} of {wrong.size} elements are out of bounds, first at {where}: "
                f"got {got[where]!r}, expected {self.value[where]!r} +- {self.bound[where]:.3g}"
            )


def activate(values: Array, activation: Activation) -> tuple[Array, float]:
    """Apply an activation in float64; also return its Lipschitz constant."""
    with np.errstate(over="ignore", invalid="ignore"):
        match activation:
            case None:
                return values, 1.0
            case "leaky_relu", slope:
                return np.where(values < 0, slope * values, values), max(1.0, abs(slope))
            case "clip", low, high:
                return np.clip(values, low, high), 1.0
            case str(name):
                function, lipschitz = _SIMPLE[name]
                return function(values), lipschitz
    raise AssertionError(activation)


def activated(values: Array, error: Array, activation: Activation, dtype: Any) -> Expected:
    """What `activation` makes of `values` that carry `error`; it may itself err by a few ulp."""
    dtype = np.dtype(dtype)
    result, lipschitz = activate(values, activation)
    own = 0.0 if activation is None else 8 * float(np.finfo(dtype).eps)
    # An infinite sum carries no error: either the activation keeps it, or its limit is exact.
    carried = np.where(np.isfinite(values), lipschitz * error, 0)
    rounding = own * (np.abs(result) + np.minimum(np.abs(values), 1)) if own else 0.0
    flushed = float(np.finfo(dtype).tiny)  # denormal results are zeros
    return Expected(result, carried + rounding + flushed, dtype)


def per_axis(value: int | Sequence[int], rank: int) -> tuple[int, ...]:
    """One int per spatial axis."""
    return (value,) * rank if isinstance(value, int) else tuple(value)


def pads(
    padding: Any,
    sizes: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
) -> list[tuple[int, int]]:
    """The (before, after) padding of every axis."""
    if padding == "valid":
        padding = 0
    if isinstance(padding, str):
        totals = [
            max((math.ceil(n / s) - 1) * s + d * (k - 1) + 1 - n, 0)
            for n, k, s, d in zip(sizes, kernel, stride, dilation, strict=True)
        ]
        halves = [(t // 2, t - t // 2) for t in totals]
        return halves if padding == "same" else [(after, before) for before, after in halves]
    if isinstance(padding, int):
        padding = (padding,) * len(kernel)
    return [(p, p) if isinstance(p, int) else tuple(p) for p in padding]


def source(index: int, size: int, mode: str) -> int:
    """The position in an axis of `size` that a padded axis shows at `index`; `size` is a zero."""
    if 0 <= index < size:
        return index
    if mode == "reflect":
        return -index if index < 0 else 2 * (size - 1) - index
    if mode == "replicate":
        return 0 if index < 0 else size - 1
    if mode == "circular":
        return index % size
    return size


def output_shape(
    x: Array,
    weight: Array | Sequence[Array],
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    data_format: str = "channels_first",
    **_: Any,
) -> tuple[int, ...]:
    """The shape of the result, in the layout of the input."""
    weights = [weight] if isinstance(weight, np.ndarray) else list(weight)
    kernel = weights[0].shape[2:]
    rank = len(kernel)
    last = data_format == "channels_last"
    sizes = x.shape[-rank - 1 : -1] if last else x.shape[-rank:]
    strides, dilations = per_axis(stride, rank), per_axis(dilation, rank)
    spatial = tuple(
        (n + before + after - d * (k - 1) - 1) // s + 1
        for n, k, s, d, (before, after) in zip(
            sizes,
            kernel,
            strides,
            dilations,
            pads(padding, sizes, kernel, strides, dilations),
            strict=True,
        )
    )
    channels = (sum(w.shape[0] for w in weights),)
    return x.shape[: x.ndim - rank - 1] + (spatial + channels if last else channels + spatial)


@np.errstate(invalid="ignore")
def expect(
    x: Array,
    weight: Array | Sequence[Array],
    bias: Array | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int | Sequence[tuple[int, int]] = 1,
    *,
    padding_mode: str = "zeros",
    data_format: str = "channels_first",
    activation: Activation = None,
    residual: Array | None = None,
) -> Expected:
    """Convolve in float64, and bound the error of any summation order in `x.dtype`.

    A sum of K products in a dtype of unit roundoff u errs by at most about K u sum(|x| |w|). The
    bound allows twice that (eps = 2 u), which pays for the roundings of bias and residual, and for
    those of this oracle when the dtype is float64 itself.
    """
    if isinstance(weight, np.ndarray):
        assert isinstance(groups, int)
        weights = np.split(weight, groups)
    else:
        weights = list(weight)
    kernel = weights[0].shape[2:]
    rank = len(kernel)
    shape = output_shape(
        x, weights, stride=stride, padding=padding, dilation=dilation, data_format=data_format
    )

    def channels_first(array: Array) -> Array:
        array = array.astype(np.float64)
        array = np.moveaxis(array, -1, -rank - 1) if data_format == "channels_last" else array
        return array if array.ndim == rank + 2 else array[np.newaxis]

    image = channels_first(x)
    total = channels_first(np.zeros(shape))
    magnitude = np.zeros_like(total)
    sizes = image.shape[2:]
    strides, dilations = per_axis(stride, rank), per_axis(dilation, rank)
    before = [low for low, _ in pads(padding, sizes, kernel, strides, dilations)]
    matrices = [w.astype(np.float64) for w in weights]
    image = np.pad(image, [(0, 0), (0, 0), *[(0, 1)] * rank])  # a zero behind the end of each axis

    # Where each axis is read: [output, tap], shaped for an index of [output of a row, *taps].
    *outer, along_row = (
        np.array(
            [[source(o * s - b + t * d, n, padding_mode) for t in range(k)] for o in range(m)],
            dtype=np.intp,
        ).reshape(m, *(k if other == axis else 1 for other in range(rank)))
        for axis, (m, s, b, k, d, n) in enumerate(
            zip(total.shape[2:], strides, before, kernel, dilations, sizes, strict=True)
        )
    )
    taps = range(3, rank + 3)
    for position in np.ndindex(*total.shape[2:-1]):
        rows = (axis[o] for axis, o in zip(outer, position, strict=True))
        windows = image[(..., *rows, along_row)]  # [image, channel, output of the row, *taps]
        first_in = first_out = 0
        for matrix in matrices:
            part = windows[:, first_in : first_in + matrix.shape[1]]
            outputs = (slice(None), slice(first_out, first_out + matrix.shape[0]), *position)
            axes = ((1, *taps), range(1, rank + 2))
            total[outputs] = np.moveaxis(np.tensordot(part, matrix, axes), -1, 1)
            magnitude[outputs] = np.moveaxis(np.tensordot(abs(part), abs(matrix), axes), -1, 1)
            first_in += matrix.shape[1]
            first_out += matrix.shape[0]

    if bias is not None:
        column = bias.astype(np.float64).reshape(-1, *(1,) * rank)
        total += column
        magnitude += np.abs(column)
    if residual is not None:
        total += channels_first(residual)
        magnitude += np.abs(channels_first(residual))

    terms = max((matrix[0].size for matrix in matrices if len(matrix)), default=0)
    error = (terms + 8) * float(np.finfo(x.dtype).eps) * magnitude
    if data_format == "channels_last":
        total, error = np.moveaxis(total, 1, -1), np.moveaxis(error, 1, -1)
    return activated(total.reshape(shape), error.reshape(shape), activation, x.dtype)
