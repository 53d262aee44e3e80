"""Convolution problems for the tests: arrays and arguments that pyconv and the oracle both take."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import oracle
import pytest
from hypothesis import currently_in_test_context, reject
from hypothesis import strategies as st
from numpy.lib.stride_tricks import as_strided
from oracle import Array

import pyconv

CONVOLUTIONS = {1: pyconv.conv1d, 2: pyconv.conv2d, 3: pyconv.conv3d}
LAYERS = {1: pyconv.Conv1d, 2: pyconv.Conv2d, 3: pyconv.Conv3d}
PADDING_MODES = ("zeros", "reflect", "replicate", "circular")

# Algorithms that serve every problem; the others may refuse one.
GENERAL = ("im2col_gemm", "reference")

# Algorithms that compute every output as one chain of multiply-adds, with the same bits.
DIRECT = tuple(name for name in pyconv.algorithms() if name != "winograd")


@dataclass(frozen=True)
class Problem:
    """The arrays of one convolution and the arguments that describe it."""

    x: Array
    weight: Array | list[Array]
    bias: Array | None = None
    residual: Array | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def rank(self) -> int:
        """The number of spatial axes."""
        first = self.weight if isinstance(self.weight, np.ndarray) else self.weight[0]
        return first.ndim - 2

    def run(self, algorithm: str = "auto", **overrides: Any) -> Array:
        """Convolve with pyconv; skip where a special algorithm says that it cannot serve."""
        arguments = dict(
            x=self.x,
            weight=self.weight,
            bias=self.bias,
            residual=self.residual,
            algorithm=algorithm,
        )
        try:
            return CONVOLUTIONS[self.rank](**{**arguments, **self.arguments, **overrides})
        except ValueError as error:
            if algorithm in ("auto", *GENERAL) or "cannot serve" not in str(error):
                raise
            if currently_in_test_context():
                reject()
            pytest.skip(str(error))

    def check(self, algorithm: str = "auto") -> None:
        """Assert that pyconv's result is what the oracle says."""
        y = self.run(algorithm)
        expected = self.expected()
        if algorithm == "auto":
            layer = LAYERS[self.rank].from_weights(self.weight, self.bias, **self.arguments)
            algorithm = layer.plan(self.x.shape).algorithm
        (expected if algorithm in DIRECT else expected.of_the_whole()).check(y)

    def check_bits(self, algorithm: str, num_threads: Sequence[int | None] = (None,)) -> None:
        """Assert that an algorithm's result is what the reference is, bit for bit."""
        expected = self.run("reference").view(np.uint8)
        for threads in num_threads:
            y = self.run(algorithm, num_threads=threads)
            np.testing.assert_array_equal(y.view(np.uint8), expected)

    def expected(self) -> oracle.Expected:
        """What the oracle says."""
        return oracle.expect(
            self.x, self.weight, self.bias, residual=self.residual, **self.arguments
        )


def make(
    x_shape: Sequence[int],
    weight_shape: Sequence[int] | Sequence[Sequence[int]],
    dtype: Any = np.float32,
    *,
    bias: bool = True,
    residual: bool = False,
    seed: int = 0,
    **arguments: Any,
) -> Problem:
    """A problem with normal random arrays; `x_shape` is channels-first for any `data_format`.

    A list of weight shapes makes uneven groups.
    """
    rng = np.random.default_rng(seed)

    def random(shape: Any) -> Array:
        return np.asarray(rng.standard_normal(shape), dtype)

    x = random(x_shape)
    weight: Array | list[Array]
    if isinstance(weight_shape, list):
        weight = [random(shape) for shape in weight_shape]
        rank, out_channels = weight[0].ndim - 2, sum(len(part) for part in weight)
        arguments["groups"] = [(part.shape[1], part.shape[0]) for part in weight]
    else:
        weight = random(weight_shape)
        rank, out_channels = weight.ndim - 2, len(weight)
    if arguments.get("data_format") == "channels_last":
        x = np.ascontiguousarray(np.moveaxis(x, -rank - 1, -1))
    problem = Problem(x, weight, random(out_channels) if bias else None, None, arguments)
    if residual:
        problem = replace(problem, residual=random(oracle.output_shape(x, weight, **arguments)))
    return problem


def tiny(problem: Problem) -> Problem:
    """The same with numbers around the least normal one: operands, products and sums."""
    assert isinstance(problem.weight, np.ndarray)
    dtype = problem.x.dtype
    least = np.finfo(dtype).tiny
    small = math.sqrt(least) / 64
    rng = np.random.default_rng(0)

    def scaled(array: Array, center: float) -> Array:
        return array * np.asarray(center * 8.0 ** rng.integers(-3, 4, array.shape), dtype)

    return replace(
        problem,
        x=scaled(problem.x, small),
        weight=scaled(problem.weight, small),
        bias=None if problem.bias is None else scaled(problem.bias, least),
        residual=None if problem.residual is None else scaled(problem.residual, least),
    )


@st.composite
def winograd_axes(draw: st.DrawFn, rank: int, mode: str) -> tuple[tuple[int, ...], ...]:
    """Draw kernel, stride and dilation that Winograd serves."""
    axes = [tuple(draw(st.integers(1, 3)) for _ in range(3))] * (rank - 2)
    longer = draw(st.integers(0, min(rank, 2) - 1))  # one axis has a kernel of more than one tap
    for axis in range(min(rank, 2)):
        kernel = draw(st.integers(2 if axis == longer else 1, 7))
        if mode != "zeros" or draw(st.booleans()):
            axes.append((kernel, 1, 1))
        elif draw(st.booleans()):
            axes.append((kernel, 1, draw(st.integers(2, 3))))
        else:
            axes.append((kernel, 2, 1))
    return tuple(zip(*axes, strict=True))


@st.composite
def problems(draw: st.DrawFn, dtype: Any, algorithm: str = "auto") -> Problem:
    """Any legal problem with small axes: every argument, paddings wider than kernels included.

    With the name of an algorithm that is made for some problems, one of those.
    """
    winograd = algorithm == "winograd"
    rank = draw(st.sampled_from((1, 2, 2, 3)))
    mode = draw(st.sampled_from(PADDING_MODES))

    def per_axis(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw(st.integers(low, high)) for _ in range(rank))

    kernel = per_axis(1, 4 if rank < 3 else 2)
    stride, dilation = per_axis(1, 3), per_axis(1, 3)
    if algorithm == "pointwise":
        kernel = (1,) * rank
    if winograd:
        kernel, stride, dilation = draw(winograd_axes(rank, mode))
    extent = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    extra = per_axis(0, {1: 40, 2: 40 if winograd else 6, 3: 7 if winograd else 2}[rank])
    padding: Any
    if algorithm == "pointwise":
        padding, least = 0, extent
    elif draw(st.booleans()):
        padding = tuple((draw(st.integers(0, 5)), draw(st.integers(0, 5))) for _ in range(rank))
        # Reflection needs an input larger than the padding, a circle one as large.
        least = [max(e - sum(p), max(p) + 1) for e, p in zip(extent, padding, strict=True)]
        if mode in ("zeros", "replicate"):
            least = [max(e - sum(p), 1) for e, p in zip(extent, padding, strict=True)]
    else:
        padding = draw(st.sampled_from(("valid", "same", "same_lower")))
        least = extent
    sizes = tuple(low + more for low, more in zip(least, extra, strict=True))

    groups = draw(st.integers(1, 3))
    channels = st.one_of(st.integers(1, 5), st.sampled_from((15, 16, 17, 33)))
    in_channels = 1 if algorithm == "depthwise" else draw(st.one_of(st.just(1), channels))
    out_channels = draw(channels)
    batch = draw(st.sampled_from(((), (0,), (1,), (2,), (3,))))
    return make(
        (*batch, groups * in_channels, *sizes),
        (groups * out_channels, in_channels, *kernel),
        dtype,
        bias=draw(st.booleans()),
        residual=draw(st.booleans()),
        seed=draw(st.integers(0, 2**32 - 1)),
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        padding_mode=mode,
        data_format=draw(st.sampled_from(("channels_first", "channels_last"))),
        activation=draw(st.sampled_from(oracle.ACTIVATIONS)),
    )


LAYOUTS = ("fortran", "reversed", "stepped", "moved", "misaligned", "readonly", "odd_strides")


def shifted(array: Array, elements: int) -> Array:
    """The same values, so many elements behind a cache line, in a longer array of NaN."""
    longer = np.full(array.size + 48, np.nan, array.dtype)
    begin = -longer.ctypes.data // longer.itemsize % 16 + elements
    view = longer[begin : begin + array.size].reshape(array.shape)
    view[...] = array
    return view


def relayout(array: Array, layout: str) -> Array:
    """The same values in other memory: other strides, alignment or permissions."""
    if layout == "fortran":
        return np.asfortranarray(array)
    if layout == "reversed":
        every = (slice(None, None, -1),) * array.ndim
        return array[every].copy()[every]
    if layout == "stepped":
        # Gaps hold NaN: reading one poisons the result.
        step = 3 if array.size < 50_000 else 2
        wide = np.full([step * n + 2 for n in array.shape], np.nan, array.dtype)
        view = wide[tuple(slice(1, step * n + 1, step) for n in array.shape)]
        view[...] = array
        return view
    if layout == "moved":
        return np.moveaxis(np.moveaxis(array, 0, -1).copy(), -1, 0)
    if layout == "misaligned":
        raw = np.empty(array.nbytes + 1, np.uint8)[1:]
        view = raw.view(array.dtype).reshape(array.shape)
        view[...] = array
        return view
    if layout == "readonly":
        view = array.copy()
        view.flags.writeable = False
        return view
    if layout == "odd_strides":
        # The stride of an axis of size 1 has no meaning and may be anything.
        odd = [s if n != 1 else 7 for n, s in zip(array.shape, array.strides, strict=True)]
        return as_strided(array, strides=odd)
    raise AssertionError(layout)
