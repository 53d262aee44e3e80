"""Convolution as functions on arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple, overload

import numpy as np

from pyconv import _core
from pyconv import _validation as validate
from pyconv._validation import Activation, Array, Groups, Ints, Padding
from pyconv.runtime import resolve_num_threads

__all__ = [
    "causal_conv1d",
    "conv1d",
    "conv2d",
    "conv3d",
    "depthwise_conv2d",
    "pointwise_conv2d",
    "separable_conv2d",
]

ALGORITHM_CHOICES = ("auto", "auto_direct", *_core.algorithms())


@dataclass(frozen=True, eq=False)
class Spec:
    """What a convolution does apart from its arrays, normalised.

    Those that mean the same are one object, so that they share plans, and whose hash costs nothing.
    """

    rank: int
    stride: tuple[int, ...]
    padding: str | tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int | tuple[tuple[int, int], ...]
    padding_mode: str
    data_format: str
    activation: tuple[str, float, float]
    algorithm: str


_interned = lru_cache(maxsize=128)(Spec)


def parse_spec(
    rank: int,
    stride: object,
    padding: object,
    dilation: object,
    groups: object,
    padding_mode: object,
    data_format: object,
    activation: object,
    algorithm: object,
) -> Spec:
    """Check and normalise arguments."""
    return _interned(
        rank,
        validate.ints("stride", stride, rank, minimum=1),
        validate.padding(padding, rank),
        validate.ints("dilation", dilation, rank, minimum=1),
        validate.groups(groups),
        validate.choice("padding_mode", padding_mode, validate.PADDING_MODES),
        validate.choice("data_format", data_format, validate.DATA_FORMATS),
        validate.activation("activation", activation),
        validate.choice("algorithm", algorithm, ALGORITHM_CHOICES),
    )


_remembered = lru_cache(maxsize=128)(parse_spec)


def spec_of(*options: Any) -> Spec:
    """As `parse_spec`, or what that gave before for the same options."""
    # Equality is too weak for a cache key where types may differ: 1 == 1.0 and True must not meet.
    return _remembered(*options) if _core.is_plain(options) else parse_spec(*options)


class Planned(NamedTuple):
    """What is known of a problem before its data arrives."""

    plan: _core.Plan
    geometry: validate.Geometry
    packing: str


# Bounded, so that a program with ever new shapes does not grow. Building a plan takes some ten
# microseconds; looking one up, less than one.
@lru_cache(maxsize=128)
def plan_for(
    x_shape: tuple[int, ...],
    weight_shapes: tuple[tuple[int, ...], ...],
    dtype: np.dtype[Any],
    spec: Spec,
) -> Planned:
    """The core's plan of a problem. Raises ValueError where shapes do not fit."""
    geometry = validate.conv_geometry(
        x_shape,
        weight_shapes,
        spec.stride,
        spec.padding,
        spec.dilation,
        spec.groups,
        spec.padding_mode,
        spec.data_format,
    )
    plan = _core.Plan(
        dtype=dtype.name,
        channels_last=spec.data_format == "channels_last",
        batch=geometry.batch,
        axes=geometry.axes,
        groups=geometry.groups,
        padding_mode=spec.padding_mode,
        activation=spec.activation,
        algorithm=spec.algorithm,
    )
    return Planned(plan, geometry, plan.packing)


class Fused(NamedTuple):
    """Convolutions that follow each other, planned as one pass."""

    plan: _core.FusedPlan
    stages: tuple[_core.Plan, ...]  # what each stage's weights are packed for
    packings: tuple[str, ...]
    geometries: tuple[validate.Geometry, ...]


@lru_cache(maxsize=128)
def fused_plan_for(
    x_shape: tuple[int, ...],
    weight_shapes: tuple[tuple[int, ...], ...],
    dtype: np.dtype[Any],
    specs: tuple[Spec, ...],
) -> Fused:
    """The core's plan of convolutions of one data format and algorithm that follow each other."""
    plans, geometries = [], []
    for weight_shape, spec in zip(weight_shapes, specs, strict=True):
        plan, geometry, _ = plan_for(x_shape, (weight_shape,), dtype, spec)
        x_shape = geometry.output_shape
        plans.append(plan)
        geometries.append(geometry)
    fused = _core.FusedPlan(plans, specs[0].algorithm)
    stages = tuple(fused.stages)
    return Fused(fused, stages, tuple(stage.packing for stage in stages), tuple(geometries))


def execute_fused(
    fused: Fused,
    packed: Sequence[_core.PackedWeights],
    x: Array,
    biases: Sequence[Array | None],
    residual: Any,
    out: Any,
    num_threads: object,
    weights: Sequence[Array] = (),
) -> Array:
    """Run a plan with packed weights and a bias or None per stage."""
    residual, out = validate.residual_and_out(
        residual, out, fused.geometries[-1].output_shape, x, (*weights, *biases)
    )
    return fused.plan.run(x, packed, biases, residual, out, resolve_num_threads(num_threads))


def convolve(
    spec: Spec,
    x: object,
    weight: object,
    bias: object,
    residual: object,
    out: object,
    num_threads: object,
) -> Array:
    """Convolve, packing the weights for this call."""
    x, weights = validate.input_and_weights(x, weight, spec.groups, spec.rank)
    plan, geometry, _ = plan_for(x.shape, validate.shapes(weights), x.dtype, spec)
    if bias is not None:
        bias = validate.bias(bias, geometry.out_channels, x)
    if residual is not None or out is not None:
        residual, out = validate.residual_and_out(
            residual, out, geometry.output_shape, x, (*weights, bias)
        )
    return plan.pack_and_run(x, weights, bias, residual, out, resolve_num_threads(num_threads))


def conv2d(
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Ints = 1,
    padding: Padding = 0,
    dilation: Ints = 1,
    groups: Groups = 1,
    *,
    padding_mode: str = "zeros",
    data_format: str = "channels_first",
    activation: Activation = None,
    residual: Any = None,
    algorithm: str = "auto",
    out: Array | None = None,
    num_threads: int | None = None,
) -> Array:
    """Two-dimensional convolution (cross-correlation, as in torch and ONNX).

    ``y[n, o, i, j] = activation(sum(weight[o, c, p, q] * x[n, c, i * stride + p * dilation -
    before, j * stride + q * dilation - before]) + bias[o] + residual[n, o, i, j])``, the sum over
    the channels ``c`` of o's group and the kernel ``p, q``.

    Parameters
    ----------
    x : array, float32 or float64
        ``(N, C, H, W)``, or ``(N, H, W, C)`` with ``data_format="channels_last"``; without ``N``
        the result has none either. Any strides.
    weight : array, or a sequence of arrays with uneven groups
        ``(C_out, C / groups, kernel_height, kernel_width)`` in both data formats.
    bias : array, optional
        ``(C_out,)``.
    stride, dilation : int or one int per axis
        At least 1.
    padding : int, one int per axis, one (before, after) pair per axis, or str
        ``"valid"`` is none; ``"same"`` gives an output of length ``ceil(in / stride)`` with the odd
        element after (ONNX SAME_UPPER, TensorFlow), ``"same_lower"`` with the odd element before.
    groups : int, or a sequence of (in_channels, out_channels) pairs
        Channels are cut into this many groups that do not see each other. With pairs, the groups
        are uneven and `weight` is a sequence of one ``(out_i, in_i, *kernel)`` array each.
    padding_mode : {"zeros", "reflect", "replicate", "circular"}
        What stands where padding is.
    data_format : {"channels_first", "channels_last"}
        Layout of `x`, `residual`, `out` and the result.
    activation : None, str or tuple
        ``"relu"``, ``"relu6"``, ``"sigmoid"``, ``"tanh"``, ``"silu"``, ``"hardswish"``,
        ``"hardsigmoid"``, ``"gelu"``, ``("leaky_relu", slope)`` or ``("clip", low, high)``. NaN
        stays NaN.
    residual : array, optional
        Of the output's shape, added before the activation.
    algorithm : str
        ``"auto"``, ``"auto_direct"``, or a name from `pyconv.algorithms`. ``"auto"`` may choose a
        Winograd algorithm: then NaN and infinity spread within the tiles, of up to 4x4 outputs,
        that meet them. ``"auto_direct"`` chooses among direct algorithms, which confine
        them to the outputs whose window holds them, and all of which give the same bits.
    out : ndarray, optional
        Of the output's shape and dtype, any strides; receives the result and is returned.
    num_threads : int, optional
        Most threads to use; by default `pyconv.get_num_threads`. The result does not depend on it.

    Returns
    -------
    ndarray
        The output, C-contiguous and 64-byte aligned unless `out` is given.

    Raises
    ------
    ValueError
        If shapes or values do not fit, or `out` overlaps an input.
    TypeError
        If an array is not float32 or float64, or dtypes differ.
    MemoryError
        If memory runs out.

    Examples
    --------
    >>> import numpy as np, pyconv
    >>> x = np.ones((1, 3, 5, 5), np.float32)
    >>> weight = np.ones((2, 3, 3, 3), np.float32)
    >>> pyconv.conv2d(x, weight, padding=1)[0, 0, 0]
    array([12., 18., 18., 18., 12.], dtype=float32)
    """
    spec = spec_of(
        2, stride, padding, dilation, groups, padding_mode, data_format, activation, algorithm
    )
    return convolve(spec, x, weight, bias, residual, out, num_threads)


def conv1d(
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Ints = 1,
    padding: Padding = 0,
    dilation: Ints = 1,
    groups: Groups = 1,
    *,
    padding_mode: str = "zeros",
    data_format: str = "channels_first",
    activation: Activation = None,
    residual: Any = None,
    algorithm: str = "auto",
    out: Array | None = None,
    num_threads: int | None = None,
) -> Array:
    """One-dimensional convolution: `conv2d` with one spatial axis.

    Parameters
    ----------
    x : array, float32 or float64
        ``(N, C, W)``, or ``(N, W, C)`` with ``data_format="channels_last"``; ``N`` may be absent.
    weight : array
        ``(C_out, C / groups, kernel_width)``.
    bias, stride, padding, dilation, groups, padding_mode, data_format
        As in `conv2d`.
    activation, residual, algorithm, out, num_threads
        As in `conv2d`.

    Returns
    -------
    ndarray
        ``(N, C_out, W_out)`` or ``(N, W_out, C_out)``.

    Raises
    ------
    ValueError, TypeError, MemoryError
        As `conv2d`.

    Examples
    --------
    >>> import numpy as np, pyconv
    >>> x = np.arange(5, dtype=np.float32).reshape(1, 5)
    >>> pyconv.conv1d(x, np.ones((1, 1, 3), np.float32))
    array([[3., 6., 9.]], dtype=float32)
    """
    spec = spec_of(
        1, stride, padding, dilation, groups, padding_mode, data_format, activation, algorithm
    )
    return convolve(spec, x, weight, bias, residual, out, num_threads)


def conv3d(
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Ints = 1,
    padding: Padding = 0,
    dilation: Ints = 1,
    groups: Groups = 1,
    *,
    padding_mode: str = "zeros",
    data_format: str = "channels_first",
    activation: Activation = None,
    residual: Any = None,
    algorithm: str = "auto",
    out: Array | None = None,
    num_threads: int | None = None,
) -> Array:
    """Three-dimensional convolution: `conv2d` with three spatial axes.

    Parameters
    ----------
    x : array, float32 or float64
        ``(N, C, D, H, W)``, or ``(N, D, H, W, C)`` with ``data_format="channels_last"``; ``N`` may
        be absent.
    weight : array
        ``(C_out, C / groups, kernel_depth, kernel_height, kernel_width)``.
    bias, stride, padding, dilation, groups, padding_mode, data_format
        As in `conv2d`.
    activation, residual, algorithm, out, num_threads
        As in `conv2d`.

    Returns
    -------
    ndarray
        ``(N, C_out, D_out, H_out, W_out)`` or ``(N, D_out, H_out, W_out, C_out)``.

    Raises
    ------
    ValueError, TypeError, MemoryError
        As `conv2d`.

    Examples
    --------
    >>> import numpy as np, pyconv
    >>> x = np.ones((1, 2, 4, 4, 4), np.float32)
    >>> pyconv.conv3d(x, np.ones((5, 2, 3, 3, 3), np.float32)).shape
    (1, 5, 2, 2, 2)
    """
    spec = spec_of(
        3, stride, padding, dilation, groups, padding_mode, data_format, activation, algorithm
    )
    return convolve(spec, x, weight, bias, residual, out, num_threads)


def depthwise_conv2d(
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Ints = 1,
    padding: Padding = 0,
    dilation: Ints = 1,
    *,
    padding_mode: str = "zeros",
    data_format: str = "channels_first",
    activation: Activation = None,
    residual: Any = None,
    algorithm: str = "auto",
    out: Array | None = None,
    num_threads: int | None = None,
) -> Array:
    """Depthwise convolution: every input channel is a group of its own.

    Parameters
    ----------
    x : array, float32 or float64
        As in `conv2d`, with ``C`` channels.
    weight : array
        ``(C * multiplier, 1, kernel_height, kernel_width)``; output channels ``c * multiplier`` to
        ``(c + 1) * multiplier - 1`` see input channel ``c``.
    bias, stride, padding, dilation, padding_mode, data_format
        As in `conv2d`.
    activation, residual, algorithm, out, num_threads
        As in `conv2d`.

    Returns
    -------
    ndarray
        With ``C * multiplier`` channels.

    Raises
    ------
    ValueError, TypeError, MemoryError
        As `conv2d`.

    Examples
    --------
    >>> import numpy as np, pyconv
    >>> x = np.ones((1, 3, 5, 5), np.float32)
    >>> pyconv.depthwise_conv2d(x, np.ones((6, 1, 3, 3), np.float32)).shape
    (1, 6, 3, 3)
    """
    x = validate.float_array("x", x)
    (weight,) = validate.weights(weight, 1, 2)
    groups = validate.depthwise_groups(x, weight, data_format, "weight")
    spec = spec_of(
        2, stride, padding, dilation, groups, padding_mode, data_format, activation, algorithm
    )
    return convolve(spec, x, weight, bias, residual, out, num_threads)


def pointwise_conv2d(
    x: Any,
    weight: Any,
    bias: Any = None,
    *,
    data_format: str = "channels_first",
    activation: Activation = None,
    residual: Any = None,
    algorithm: str = "auto",
    out: Array | None = None,
    num_threads: int | None = None,
) -> Array:
    """Pointwise (1x1) convolution: a linear map of the channels at every pixel.

    Parameters
    ----------
    x : array, float32 or float64
        As in `conv2d`, with ``C`` channels.
    weight : array
        ``(C_out, C)`` or ``(C_out, C, 1, 1)``.
    bias, data_format, activation, residual, algorithm, out, num_threads
        As in `conv2d`.

    Returns
    -------
    ndarray
        With ``C_out`` channels and the spatial shape of `x`.

    Raises
    ------
    ValueError, TypeError, MemoryError
        As `conv2d`.

    Examples
    --------
    >>> import numpy as np, pyconv
    >>> x = np.ones((1, 3, 2, 2), np.float32)
    >>> pyconv.pointwise_conv2d(x, np.ones((1, 3), np.float32))[0, 0, 0]
    array([3., 3.], dtype=float32)
    """
    weight = validate.pointwise_weight("weight", weight)
    spec = spec_of(2, 1, 0, 1, 1, "zeros", data_format, activation, algorithm)
    return convolve(spec, x, weight, bias, residual, out, num_threads)


def separable_conv2d(
    x: Any,
    depthwise_weight: Any,
    pointwise_weight: Any,
    depthwise_bias: Any = None,
    pointwise_bias: Any = None,
    stride: Ints = 1,
    padding: Padding = 0,
    dilation: Ints = 1,
    *,
    depthwise_activation: Activation = None,
    activation: Activation = None,
    padding_mode: str = "zeros",
    data_format: str = "channels_first",
    residual: Any = None,
    algorithm: str = "auto",
    out: Array | None = None,
    num_threads: int | None = None,
) -> Array:
    """Depthwise-separable convolution: `depthwise_conv2d`, then `pointwise_conv2d`, in one pass.

    Blocks of rows of the depthwise part stay in the cache for the pointwise part: the tensor
    between the two never exists. The bits are those of the two calls.

    Parameters
    ----------
    x : array, float32 or float64
        As in `conv2d`, with ``C`` channels.
    depthwise_weight : array
        ``(C * multiplier, 1, kernel_height, kernel_width)``.
    pointwise_weight : array
        ``(C_out, C * multiplier)`` or ``(C_out, C * multiplier, 1, 1)``.
    depthwise_bias, pointwise_bias : array, optional
        ``(C * multiplier,)`` and ``(C_out,)``.
    stride, padding, dilation, padding_mode
        Of the depthwise part, as in `conv2d`.
    depthwise_activation, activation
        After the depthwise and after the pointwise part, as in `conv2d`.
    data_format, residual, algorithm, out, num_threads
        As in `conv2d`; `residual` is added to the pointwise part.

    Returns
    -------
    ndarray
        With ``C_out`` channels.

    Raises
    ------
    ValueError, TypeError, MemoryError
        As `conv2d`.

    Examples
    --------
    >>> import numpy as np, pyconv
    >>> x = np.ones((1, 3, 5, 5), np.float32)
    >>> depthwise, pointwise = np.ones((3, 1, 3, 3), np.float32), np.ones((8, 3), np.float32)
    >>> pyconv.separable_conv2d(x, depthwise, pointwise, padding=1).shape
    (1, 8, 5, 5)
    """
    x = validate.float_array("x", x)
    (depthwise,) = validate.weights(depthwise_weight, 1, 2, "depthwise_weight")
    pointwise = validate.pointwise_weight("pointwise_weight", pointwise_weight)
    validate.separable_parts(depthwise, pointwise)
    validate.same_dtype("depthwise_weight", depthwise, x)
    groups = validate.depthwise_groups(x, depthwise, data_format, "depthwise_weight")
    validate.activation("depthwise_activation", depthwise_activation)
    options = (data_format, depthwise_activation, algorithm)
    specs = (
        spec_of(2, stride, padding, dilation, groups, padding_mode, *options),
        spec_of(2, 1, 0, 1, 1, "zeros", data_format, activation, algorithm),
    )
    weights = (depthwise, pointwise)
    fused = fused_plan_for(x.shape, validate.shapes(weights), x.dtype, specs)
    biases = (
        validate.bias(depthwise_bias, depthwise.shape[0], x, "depthwise_bias"),
        validate.bias(pointwise_bias, pointwise.shape[0], x, "pointwise_bias"),
    )
    packed = [stage.pack([weight]) for stage, weight in zip(fused.stages, weights, strict=True)]
    return execute_fused(fused, packed, x, biases, residual, out, num_threads, weights)


def _joined(state: Array, x: Array, channels_together: bool) -> Array:
    """State and input along time; a single output is faster from channels next to each other."""
    *batch, channels, length = x.shape
    length += state.shape[-1]
    if channels_together:
        joined = np.empty((*batch, length, channels), x.dtype).swapaxes(-1, -2)
    else:
        joined = np.empty((*batch, channels, length), x.dtype)
    return np.concatenate([state, x], axis=-1, out=joined)


@overload
def causal_conv1d(
    x: Any,
    weight: Any,
    bias: Any = ...,
    *,
    state: Any = ...,
    activation: Activation = ...,
    return_state: Literal[False] = ...,
) -> Array: ...


@overload
def causal_conv1d(
    x: Any,
    weight: Any,
    bias: Any = ...,
    *,
    state: Any = ...,
    activation: Activation = ...,
    return_state: Literal[True],
) -> tuple[Array, Array]: ...


def causal_conv1d(
    x: Any,
    weight: Any,
    bias: Any = None,
    *,
    state: Any = None,
    activation: Activation = None,
    return_state: bool = False,
) -> Array | tuple[Array, Array]:
    """Depthwise convolution over the present and the past, in chunks of any length.

    ``y[n, c, t] = activation(sum(weight[c, 0, k] * x[n, c, t + k - (K - 1)]) + bias[c])``, where
    the last ``K - 1`` inputs before ``x`` are `state`. This is ONNX's CausalConvWithState (opset
    27), and ``causal_conv1d_fn`` of Mamba. A stream that is cut into chunks, each of which starts
    with the state that the one before returned, gives the same bits as one call.

    Parameters
    ----------
    x : array, float32 or float64
        ``(N, C, L)``, or ``(C, L)``; ``L`` may be 0. Any strides.
    weight : array
        ``(C, 1, K)`` as in ONNX, or ``(C, K)`` as in Mamba.
    bias : array, optional
        ``(C,)``.
    state : array, optional
        ``(N, C, K - 1)``, or ``(C, K - 1)``: the inputs before `x`, the last one at the end; by
        default zeros.
    activation
        As in `conv2d`; ``"silu"`` in Mamba.
    return_state : bool
        Whether to return the state after `x` as well.

    Returns
    -------
    y : ndarray
        Of the shape of `x`.
    new_state : ndarray
        Of the shape of `state`, in any memory order: the last ``K - 1`` of state and `x`; only with
        `return_state`.

    Raises
    ------
    ValueError
        If shapes or values do not fit.
    TypeError
        If an array is not float32 or float64, or dtypes differ.
    MemoryError
        If memory runs out.

    Examples
    --------
    >>> import numpy as np, pyconv
    >>> x = np.arange(1, 7, dtype=np.float32).reshape(1, 1, 6)
    >>> weight = np.ones((1, 1, 3), np.float32)
    >>> pyconv.causal_conv1d(x, weight)[0, 0]
    array([ 1.,  3.,  6.,  9., 12., 15.], dtype=float32)
    >>> first, state = pyconv.causal_conv1d(x[..., :4], weight, return_state=True)
    >>> state[0, 0]
    array([3., 4.], dtype=float32)
    >>> pyconv.causal_conv1d(x[..., 4:], weight, state=state)[0, 0]
    array([12., 15.], dtype=float32)
    """
    x = validate.float_array("x", x)
    weight = validate.causal_weight(weight)
    validate.causal_input(x, weight)
    bias = validate.bias(bias, weight.shape[0], x)
    before, length = weight.shape[-1] - 1, x.shape[-1]
    if state is not None:
        state = validate.causal_state(state, x, before)
    met = 0 if state is None else min(before, length)

    def convolved(inputs: Array | None, padding: int, out: Array | None) -> Array:
        options = ("zeros", "channels_first", activation, "auto")
        spec = spec_of(1, 1, ((padding, 0),), 1, weight.shape[0], *options)
        return convolve(spec, inputs, weight, bias, None, out, None)

    # The outputs that meet the state, by themselves: to join it and all of x is to copy x.
    joined = None if state is None else _joined(state, x[..., :met], length == 1)
    if length == 0:
        validate.activation("activation", activation)  # as a convolution would
        y = np.empty(x.shape, x.dtype)
    elif met == length:
        y = convolved(joined, 0, None)
    else:
        y = convolved(x, before, None)
        if met > 0:
            convolved(joined, 0, y[..., :met])
    if not return_state:
        return y
    if length >= before:
        return y, x[..., length - before :].copy()
    if joined is None:
        joined = np.concatenate([np.zeros((*x.shape[:-1], before), x.dtype), x], axis=-1)
    return y, joined[..., length:]
