"""Every check of what callers pass, and every message.

A message names the argument, what it got and what was expected. Sizes are computed with Python's
exact integers and checked against 63 bits here, so that the C++ core can trust them.
"""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, SupportsIndex, TypeGuard

import numpy as np
import numpy.typing as npt

from pyconv import _core

Array = npt.NDArray[Any]
Ints = SupportsIndex | Sequence[SupportsIndex]
Padding = SupportsIndex | str | Sequence[SupportsIndex | Sequence[SupportsIndex]]
Groups = SupportsIndex | Sequence[tuple[SupportsIndex, SupportsIndex]]
Activation = str | tuple[str, float] | tuple[str, float, float] | None

DATA_FORMATS = ("channels_first", "channels_last")
PADDING_MODES = ("zeros", "reflect", "replicate", "circular")
PADDING_NAMES = ("valid", "same", "same_lower")
PLAIN_ACTIVATIONS = ("relu", "sigmoid", "tanh", "silu", "hardswish", "hardsigmoid", "gelu")
ACTIVATIONS = "None, 'relu6', {}, ('leaky_relu', slope) or ('clip', low, high)".format(
    ", ".join(map(repr, PLAIN_ACTIVATIONS))
)
MAX_THREADS = 1024
MAX_GROUPS = 2**24  # each takes some 100 bytes of a plan
MAX_SIZE = 2**63 - 1

_shape_of = operator.attrgetter("shape")

_FLOATS = {np.dtype(np.float32), np.dtype(np.float64)}


# ---- single values -----------------------------------------------------------------------------


def integer(name: str, value: object, minimum: int) -> int:
    """An int of at least `minimum`. Floats and bools are a TypeError: they hide mistakes."""
    if type(value) is int and minimum <= value <= MAX_SIZE:
        return value  # looking at the type again would take 2 microseconds
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        kind = type(value).__name__
        raise TypeError(f"{name}: got {value!r} ({kind}), expected an int") from None
    if not minimum <= number <= MAX_SIZE:
        upper = "" if number < minimum else " and at most 2**63 - 1"
        shown = f"an int of {number.bit_length()} bits" if abs(number) >> 128 else number
        raise ValueError(f"{name}: got {shown}, expected at least {minimum}{upper}")
    return number


def kernel_rank(kernel_size: object) -> int:
    """How many axes a kernel has; a single int stands for two."""
    rank = len(kernel_size) if _is_sequence(kernel_size) else 2
    if rank not in (1, 2, 3):
        raise ValueError(f"kernel_size: got {kernel_size!r}, expected 1, 2 or 3 ints, or one int")
    return rank


def shape(name: str, value: object) -> tuple[int, ...]:
    """The shape of an array."""
    if not _is_sequence(value):
        raise TypeError(f"{name}: got {value!r}, expected a sequence of ints")
    return tuple(integer(name, length, 0) for length in value)


def _is_sequence(value: object) -> TypeGuard[Sequence[Any]]:
    """Whether a value is several values: a list, tuple or array, but no text and no 0-d array."""
    if isinstance(value, np.ndarray):
        return value.ndim > 0
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray))


def ints(name: str, value: object, rank: int, minimum: int) -> tuple[int, ...]:
    """One int per spatial axis, from one int or a sequence of `rank` ints."""
    if type(value) is int:
        return (value if 0 < value <= MAX_SIZE else integer(name, value, minimum),) * rank
    if not _is_sequence(value):
        return (integer(name, value, minimum),) * rank
    if len(value) != rank:
        raise ValueError(
            f"{name}: got {value!r} of length {len(value)}, expected an int or {rank} ints, "
            "one per spatial axis"
        )
    return tuple(integer(name, item, minimum) for item in value)


def padding(value: object, rank: int) -> str | tuple[tuple[int, int], ...]:
    """`valid`, `same`, `same_lower`, or one (before, after) pair per spatial axis."""
    if type(value) is int:
        number = value if 0 <= value <= MAX_SIZE else integer("padding", value, 0)
        return ((number, number),) * rank
    if isinstance(value, str):
        return choice("padding", value, PADDING_NAMES)
    if not _is_sequence(value):
        number = integer("padding", value, 0)
        return ((number, number),) * rank
    if len(value) != rank:
        raise ValueError(
            f"padding: got {value!r} of length {len(value)}, expected an int, {rank} ints or "
            f"{rank} (before, after) pairs, one per spatial axis"
        )
    pairs = []
    for item in value:
        if _is_sequence(item):
            if len(item) != 2:
                raise ValueError(f"padding: got {item!r} for an axis, expected (before, after)")
            pairs.append((integer("padding", item[0], 0), integer("padding", item[1], 0)))
        else:
            number = integer("padding", item, 0)
            pairs.append((number, number))
    return tuple(pairs)


def choice(name: str, value: object, options: Sequence[str]) -> str:
    """One of a few names."""
    if not isinstance(value, str):
        raise TypeError(
            f"{name}: got {value!r} ({type(value).__name__}), expected one of {_listed(options)}"
        )
    if value not in options:
        raise ValueError(f"{name}: got {value!r}, expected one of {_listed(options)}")
    return value


def _listed(options: Sequence[str]) -> str:
    return ", ".join(map(repr, options))


def activation(name: str, value: object) -> tuple[str, float, float]:
    """The core's form of an activation: (kind, first parameter, second parameter)."""
    if value is None:
        return ("none", 0.0, 0.0)
    if isinstance(value, str):
        if value == "relu6":
            return ("clip", 0.0, 6.0)
        if value in PLAIN_ACTIVATIONS:
            return (value, 0.0, 0.0)
    elif isinstance(value, (tuple, list)) and value:
        kind, *parameters = value
        wanted = {"leaky_relu": 1, "clip": 2}.get(kind) if isinstance(kind, str) else None
        if wanted == len(parameters):
            numbers = [_real(name, value, parameter) for parameter in parameters]
            if any(map(math.isnan, numbers)) or (wanted == 2 and numbers[0] > numbers[1]):
                raise ValueError(f"{name}: got {value!r}, expected numbers with low <= high")
            return (kind, numbers[0], numbers[1] if wanted == 2 else 0.0)
    else:
        raise TypeError(f"{name}: got {value!r} ({type(value).__name__}), expected {ACTIVATIONS}")
    raise ValueError(f"{name}: got {value!r}, expected {ACTIVATIONS}")


def _real(name: str, value: object, parameter: object) -> float:
    try:
        if isinstance(parameter, (bool, str)):
            raise TypeError
        # -0.0 and 0.0 are equal as cache keys: let them be the same.
        return float(parameter) + 0.0  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(
            f"{name}: got {value!r}, expected a number in place of {parameter!r}"
        ) from None
    except OverflowError:
        raise ValueError(f"{name}: got an int beyond float64, expected a float") from None


def thread_count(name: str, value: object) -> int:
    """A number of threads."""
    number = integer(name, value, 1)
    if number > MAX_THREADS:
        raise ValueError(f"{name}: got {number}, expected at most {MAX_THREADS}")
    return number


def receptive_field_layers(layers: object) -> list[tuple[int, int, int]]:
    """The (kernel, stride, dilation) triples of a stack."""
    if not isinstance(layers, Iterable):
        raise TypeError(f"layers: got {layers!r}, expected (kernel, stride, dilation) triples")
    return [_receptive_field_layer(layer) for layer in layers]


def _receptive_field_layer(layer: object) -> tuple[int, int, int]:
    if not _is_sequence(layer) or len(layer) != 3:
        raise ValueError(f"layers: got {layer!r}, expected (kernel, stride, dilation) triples")
    kernel, stride, dilation = layer
    return (
        integer("kernel", kernel, 1),
        integer("stride", stride, 1),
        integer("dilation", dilation, 1),
    )


# ---- channels and groups -----------------------------------------------------------------------


def groups(value: object) -> int | tuple[tuple[int, int], ...]:
    """A number of groups, or (in_channels, out_channels) of every group."""
    if type(value) is int and 0 < value <= MAX_SIZE:
        return value
    if not _is_sequence(value):
        return integer("groups", value, 1)
    pairs = []
    for pair in value:
        if not _is_sequence(pair) or len(pair) != 2:
            raise ValueError(
                f"groups: got {pair!r} in {value!r}, expected an int or (in_channels, "
                "out_channels) pairs"
            )
        pairs.append((integer("groups", pair[0], 1), integer("groups", pair[1], 1)))
    if not pairs:
        raise ValueError("groups: got an empty sequence, expected at least one pair")
    return tuple(pairs)


def layer_channels(in_channels: object, out_channels: object, groups: object) -> tuple[int, ...]:
    """Channel counts of a layer with even groups."""
    n_in = integer("in_channels", in_channels, 1)
    n_out = integer("out_channels", out_channels, 1)
    n_groups = integer("groups", groups, 1)
    for name, count in (("in_channels", n_in), ("out_channels", n_out)):
        if count % n_groups:
            raise ValueError(
                f"{name} must be divisible by groups, got {name}={count} and groups={n_groups}"
            )
    return n_in, n_out, n_groups


def layer_groups(
    in_channels: object, out_channels: object, value: object
) -> tuple[int, int, int | tuple[tuple[int, int], ...]]:
    """Channel counts and groups of a layer, whose uneven groups must add up to the counts."""
    parsed = groups(value)
    if isinstance(parsed, int):
        n_in, n_out, parsed = layer_channels(in_channels, out_channels, parsed)
        return n_in, n_out, parsed
    n_in = integer("in_channels", in_channels, 1)
    n_out = integer("out_channels", out_channels, 1)
    total = (sum(pair[0] for pair in parsed), sum(pair[1] for pair in parsed))
    if total != (n_in, n_out):
        raise ValueError(
            f"groups: got {parsed}, which add up to {total[0]} input and {total[1]} output "
            f"channels, expected in_channels={n_in} and out_channels={n_out}"
        )
    return n_in, n_out, parsed


# ---- arrays ------------------------------------------------------------------------------------


def float_array(name: str, value: object) -> Array:
    """A float32 or float64 array whose elements are aligned, copied only if they are not."""
    array = value if type(value) is np.ndarray else _as_array(name, value)
    if array.dtype not in _FLOATS:
        raise TypeError(_dtype_message(name, array.dtype))
    # The core counts strides in elements. Misaligned data and odd strides are rare: copy them.
    return array if array.flags.aligned else array.copy()


def _is_masked(value: object) -> bool:
    # np.ma would import the module, in the midst of a call. Without it, nothing is masked.
    return isinstance(value, getattr(sys.modules.get("numpy.ma"), "MaskedArray", ()))


def _as_array(name: str, value: object) -> Array:
    if _is_masked(value):
        raise TypeError(
            f"{name}: got a masked array, expected a plain one: use {name}.filled(value)"
        )
    if isinstance(value, np.ndarray):
        return np.asarray(value)
    if hasattr(value, "__array__") or hasattr(value, "__array_interface__"):
        try:
            return np.asarray(value)
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(f"{name}: cannot be read as an array: {error}") from error
    if hasattr(value, "__dlpack__"):
        try:
            return np.from_dlpack(value)
        except (TypeError, ValueError, RuntimeError, BufferError) as error:
            raise TypeError(f"{name}: cannot be read through DLPack: {error}") from error
    try:
        return np.asarray(memoryview(value))  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(
            f"{name}: got {type(value).__name__}, expected an array: use "
            f"numpy.asarray({name}, dtype=numpy.float32)"
        ) from None


def _dtype_message(name: str, dtype: np.dtype[Any]) -> str:
    expected = f"{name}: got dtype {dtype}, expected float32 or float64"
    if dtype.newbyteorder("=") in _FLOATS:
        return f"{expected} in native byte order: use {name}.astype({dtype.newbyteorder('=')!s})"
    if dtype.kind in "biuf":
        return f"{expected}: use {name}.astype(numpy.float32)"
    return expected


def generator(value: object) -> np.random.Generator:
    """The random generator that a seed stands for."""
    try:
        return np.random.default_rng(value)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise type(error)(
            f"rng: got {value!r}, expected None, a seed or a numpy.random.Generator"
        ) from error


_TORCH_CONV = ("weight", "bias", "stride", "padding", "dilation", "groups", "padding_mode")
_TORCH_BATCH_NORM = ("running_mean", "running_var", "weight", "bias", "eps", "training")


def torch_conv(module: Any, rank: int, layer: str) -> None:
    """A torch module must be a convolution of the layer's number of spatial axes."""
    wanted = f"expected a torch.nn.Conv{rank}d"
    _has_attributes("torch_module", module, _TORCH_CONV, wanted)
    if getattr(module, "transposed", False):
        raise TypeError(f"torch_module: got {type(module).__name__}, {wanted}")
    if module.weight.ndim != rank + 2:
        raise ValueError(
            f"torch_module: got {type(module).__name__} with {module.weight.ndim - 2} kernel axes, "
            f"expected {rank} for {layer}"
        )


def torch_batch_norm(module: Any) -> None:
    """A torch module must be a batch normalisation that folds into weights."""
    _has_attributes("batch_norm", module, _TORCH_BATCH_NORM, "expected a torch.nn.BatchNorm")
    if module.training or module.running_mean is None:
        raise ValueError(
            f"batch_norm: got {type(module).__name__} that normalises by its input, expected one "
            "in evaluation mode with running statistics: call eval() first"
        )


def _has_attributes(name: str, value: object, attributes: Iterable[str], wanted: str) -> None:
    if not all(hasattr(value, attribute) for attribute in attributes):
        raise TypeError(f"{name}: got {type(value).__name__}, {wanted}")


def non_negative(name: str, value: object) -> float:
    """A finite real number of at least 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        raise TypeError(f"{name}: got {value!r} ({type(value).__name__}), expected a number")
    number = float(value)
    if not 0 <= number < math.inf:
        raise ValueError(f"{name}: got {value!r}, expected a finite number of at least 0")
    return number


def boolean(name: str, value: object) -> bool:
    """A bool: anything else hides a mistake, such as the bias itself."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}: got {type(value).__name__}, expected a bool")
    return bool(value)


def layer_dtype(value: npt.DTypeLike) -> np.dtype[Any]:
    """The dtype of a layer."""
    try:
        if value is None:  # float64 to NumPy, but the default to who knows torch
            raise TypeError
        dtype = np.dtype(value)
    except TypeError:
        raise TypeError(f"dtype: got {value!r}, expected float32 or float64") from None
    if dtype not in _FLOATS:
        raise TypeError(f"dtype: got {dtype}, expected float32 or float64")
    return dtype


def same_dtype(name: str, array: Array, other: Array, other_name: str = "x") -> None:
    """Reject mixed precision: which one the caller means cannot be known."""
    if array.dtype != other.dtype:
        raise TypeError(
            f"{name}: got dtype {array.dtype}, expected {other.dtype}, the dtype of {other_name}"
        )


def shapes(arrays: Iterable[Array]) -> tuple[tuple[int, ...], ...]:
    """The shape of every array."""
    return tuple(map(_shape_of, arrays))


def input_and_weights(
    x: Any, weight: Any, group_counts: int | tuple[tuple[int, int], ...], rank: int
) -> tuple[Array, tuple[Array, ...]]:
    """The input, and the weight array or one per uneven group, of its dtype."""
    even = isinstance(group_counts, int)
    if even and _core.same_floats(x, weight) and weight.ndim == rank + 2:
        return x, (weight,)  # what follows would find the same in five times the time
    x = float_array("x", x)
    arrays = weights(weight, group_counts, rank)
    same_dtype("weight", arrays[0], x)
    return x, arrays


def weights(
    weight: object,
    group_counts: int | tuple[tuple[int, int], ...],
    rank: int,
    name: str = "weight",
) -> tuple[Array, ...]:
    """The weight array, or one array per uneven group."""
    if isinstance(group_counts, int):
        arrays: tuple[Array, ...] = (float_array(name, weight),)
    else:
        if not isinstance(weight, (list, tuple)):
            raise TypeError(
                f"{name}: got {type(weight).__name__}, expected a sequence of "
                f"{len(group_counts)} arrays, one per group, because groups is a sequence"
            )
        if len(weight) != len(group_counts):
            raise ValueError(
                f"{name}: got {len(weight)} arrays, expected {len(group_counts)}, one per group"
            )
        arrays = tuple(float_array(name, item) for item in weight)
    for array in arrays:
        if array.ndim != rank + 2:
            raise ValueError(
                f"{name}: got shape {array.shape}, expected {rank + 2} axes: (out_channels, "
                f"in_channels / groups, {_axes(rank)})"
            )
        if array.dtype != arrays[0].dtype:
            raise TypeError(f"{name}: got dtypes {arrays[0].dtype} and {array.dtype}, expected one")
    return arrays


def depthwise_groups(x: Array, weight: Array, data_format: str, name: str) -> int:
    """Number of channels of `x`, of which `weight` must have a multiple."""
    choice("data_format", data_format, DATA_FORMATS)
    axis = -3 if data_format == "channels_first" else -1
    channels: int = x.shape[axis] if x.ndim >= 3 else 0
    if channels < 1:
        raise ValueError(f"x: got shape {x.shape}, expected 3 or 4 axes and at least 1 channel")
    if weight.shape[1] != 1 or weight.shape[0] % channels:
        raise ValueError(
            f"{name}: got shape {weight.shape}, expected (channels * multiplier, 1, "
            f"kernel_height, kernel_width) for the {channels} channels of x"
        )
    return channels


def _float_array_like(name: str, value: Any, like: Array) -> Array:
    if _core.same_floats(value, like):
        array: Array = value
    else:
        array = float_array(name, value)
        same_dtype(name, array, like)
    return array


def weight_channels(
    arrays: Sequence[Array], group_counts: int | tuple[tuple[int, int], ...]
) -> tuple[int, int]:
    """Input and output channels of a layer with these weights."""
    if isinstance(group_counts, int):
        out_channels, per_group = arrays[0].shape[:2]
        in_channels = per_group * group_counts
    else:
        in_channels = sum(pair[0] for pair in group_counts)
        out_channels = sum(pair[1] for pair in group_counts)
    fit_groups("weight", in_channels, tuple(a.shape for a in arrays), group_counts)
    return in_channels, out_channels


def replacement(name: str, new: Array, old: Array) -> None:
    """Weights that replace others must look like them."""
    if new.shape != old.shape:
        raise ValueError(f"{name}: got shape {new.shape}, expected {old.shape}")
    if new.dtype != old.dtype:
        raise TypeError(f"{name}: got dtype {new.dtype}, expected {old.dtype}")


def layer_input(value: Any, weight: Array) -> Array:
    """The input of a layer, of the dtype of its weights."""
    if _core.same_floats(value, weight):
        x: Array = value
        return x
    x = float_array("x", value)
    if x.dtype != weight.dtype:
        raise TypeError(
            f"x: got dtype {x.dtype}, expected {weight.dtype}, the dtype of the layer's weights: "
            f"use x.astype(numpy.{weight.dtype})"
        )
    return x


def half_padding(name: str, kernel: tuple[int, ...], dilation: object) -> tuple[int, ...]:
    """The padding that keeps the size of an input under an odd kernel at stride 1."""
    if not all(length % 2 for length in kernel):
        raise ValueError(f"{name}: got a kernel of {kernel}, expected an odd size along every axis")
    gaps = ints("dilation", dilation, len(kernel), minimum=1)
    return tuple(gap * (length // 2) for gap, length in zip(gaps, kernel, strict=True))


def expanded_parts(expand: Array, depthwise: Array) -> None:
    """An expansion must be followed by a depthwise part of as many channels."""
    if expand.shape[0] != depthwise.shape[0]:
        raise ValueError(
            f"depthwise_weight: got shape {depthwise.shape}, expected ({expand.shape[0]}, 1, "
            "kernel_height, kernel_width) for the output channels of expand_weight"
        )
    same_dtype("expand_weight", expand, depthwise, "depthwise_weight")


def separable_parts(
    depthwise: Array, pointwise: Array, pointwise_name: str = "pointwise_weight"
) -> None:
    """The parts of a separable block must follow each other."""
    if depthwise.shape[1] != 1:
        raise ValueError(
            f"depthwise_weight: got shape {depthwise.shape}, expected (channels * multiplier, 1, "
            "kernel_height, kernel_width)"
        )
    if depthwise.shape[0] != pointwise.shape[1]:
        raise ValueError(
            f"{pointwise_name}: got shape {pointwise.shape}, expected in_channels = "
            f"{depthwise.shape[0]}, the output channels of depthwise_weight"
        )
    same_dtype(pointwise_name, pointwise, depthwise, "depthwise_weight")


def batch_norm_arrays(weight: Array, **arrays: object) -> dict[str, Array]:
    """Arrays (C_out,) of a batch normalisation; None is 1 for gamma and 0 for bias and beta."""
    if weight.ndim < 1:
        raise ValueError(f"weight: got shape {weight.shape}, expected (out_channels, ...)")
    shape = weight.shape[:1]
    checked = {}
    for name, value in arrays.items():
        if value is None and name in ("bias", "beta", "gamma"):
            checked[name] = np.full(shape, float(name == "gamma"))
            continue
        array = float_array(name, value)
        if array.shape != shape:
            raise ValueError(
                f"{name}: got shape {array.shape}, expected {shape}, one per output channel"
            )
        checked[name] = array
    if (checked["var"] < 0).any():
        raise ValueError(f"var: got {checked['var'].min()}, expected variances of at least 0")
    return checked


def pointwise_weight(name: str, weight: object) -> Array:
    """A weight (C_out, C) or (C_out, C, 1, 1) as the latter."""
    array = float_array(name, weight)
    if array.ndim == 2:
        return array[:, :, None, None]
    if array.ndim != 4 or array.shape[2:] != (1, 1):
        raise ValueError(
            f"{name}: got shape {array.shape}, expected (out_channels, in_channels) or "
            "(out_channels, in_channels, 1, 1)"
        )
    return array


def _axes(rank: int) -> str:
    return ", ".join(("kernel_depth", "kernel_height", "kernel_width")[3 - rank :])


def bias(value: object, out_channels: int, like: Array, name: str = "bias") -> Array | None:
    """A contiguous array (out_channels,), or None."""
    if value is None:
        return None
    array = _float_array_like(name, value, like)
    if array.shape != (out_channels,):
        raise ValueError(
            f"{name}: got shape {array.shape}, expected ({out_channels},), one per output channel"
        )
    return array if array.flags.c_contiguous else array.copy()


def causal_weight(value: object) -> Array:
    """A weight (C, 1, K) or (C, K) as the former."""
    array = float_array("weight", value)
    if array.ndim == 2:
        array = array[:, None]
    if array.ndim != 3 or array.shape[1] != 1 or array.shape[2] < 1:
        raise ValueError(
            f"weight: got shape {array.shape}, expected (channels, 1, kernel) or (channels, "
            "kernel) with a kernel of at least 1"
        )
    return array


def causal_input(x: Array, weight: Array) -> None:
    """The input of a causal convolution has as many channels as its weight."""
    if x.ndim not in (2, 3) or x.shape[-2] != weight.shape[0] or x.shape[-2] < 1:
        raise ValueError(
            f"x: got shape {x.shape}, expected (batch, {weight.shape[0]}, length), or without the "
            f"batch, for a weight of shape {weight.shape}"
        )
    same_dtype("weight", weight, x)


def causal_state(value: object, x: Array, length: int) -> Array:
    """The inputs before `x`."""
    array = float_array("state", value)
    shape = (*x.shape[:-1], length)
    if array.shape != shape:
        raise ValueError(
            f"state: got shape {array.shape}, expected {shape}: the last kernel - 1 inputs before x"
        )
    same_dtype("state", array, x)
    return array


def residual_and_out(
    residual: object,
    out: object,
    shape: tuple[int, ...],
    x: Array,
    others: Sequence[Array | None],
) -> tuple[Array | None, Array | None]:
    """Arrays of the output's shape and the dtype of `x`, or None; `others` are inputs beside x."""
    added = None if residual is None else _residual(residual, shape, x)
    return added, None if out is None else _out(out, shape, x, (x, *others, added))


def _residual(value: object, shape: tuple[int, ...], like: Array) -> Array:
    """An array of the output's shape."""
    array = _float_array_like("residual", value, like)
    if array.shape != shape:
        raise ValueError(
            f"residual: got shape {array.shape}, expected {shape}, the shape of the output"
        )
    return array


def _out(
    value: object, shape: tuple[int, ...], like: Array, inputs: Sequence[Array | None]
) -> Array:
    """An array to write the result to: never a copy, never memory of an input."""
    if not isinstance(value, np.ndarray) or _is_masked(value):
        raise TypeError(f"out: got {type(value).__name__}, expected a numpy.ndarray")
    if _core.may_overlap(value, inputs) and any(_overlap(value, array) for array in inputs):
        raise ValueError("out: got memory that an input uses, expected no overlap")
    if value.shape != shape:
        raise ValueError(f"out: got shape {value.shape}, expected {shape}")
    if value.dtype not in _FLOATS:
        raise TypeError(_dtype_message("out", value.dtype))
    same_dtype("out", value, like)
    if not value.flags.carray:
        _writeable_once(value)
    return value


def _overlap(a: Array, b: Array | None) -> bool:
    if b is None:
        return False
    try:
        # The stub knows two values of max_work only.
        return np.shares_memory(a, b, max_work=1000)  # type: ignore[arg-type]
    except np.exceptions.TooHardError:
        return True


def _writeable_once(out: Array) -> None:
    """Every element of `out` can be written, at an address of its own."""
    if not out.flags.writeable:
        raise ValueError("out: got a read-only array, expected a writeable one")
    if not out.flags.aligned:
        raise ValueError("out: got misaligned memory, expected whole elements at their alignment")
    if _repeats_elements(out):
        raise ValueError(
            f"out: got strides {out.strides} for shape {out.shape}, in which elements share "
            "memory, expected every element at its own address"
        )


def _repeats_elements(array: Array) -> bool:
    if array.flags.c_contiguous or array.size < 2:
        return False
    # Sorted by stride, every axis must step over all that the finer axes reach.
    reach = 0
    axes = sorted((abs(s), n) for s, n in zip(array.strides, array.shape, strict=True) if n > 1)
    for stride, length in axes:
        if stride <= reach:
            return True
        reach += stride * (length - 1)
    return False


# ---- geometry ----------------------------------------------------------------------------------


class Geometry(NamedTuple):
    """A convolution whose shapes fit: what the core needs to know, and what follows from it."""

    batch: int
    groups: tuple[tuple[int, int], ...]  # (in_channels, out_channels) of each
    axes: tuple[tuple[int, int, int, int, int, int], ...]
    """(in, out, kernel, stride, dilation, padding before) of each spatial axis."""
    output_shape: tuple[int, ...]
    out_channels: int
    macs: int


def conv_geometry(
    x_shape: tuple[int, ...],
    weight_shapes: tuple[tuple[int, ...], ...],
    stride: tuple[int, ...],
    padding: str | tuple[tuple[int, int], ...],
    dilation: tuple[int, ...],
    groups: int | tuple[tuple[int, int], ...],
    padding_mode: str,
    data_format: str,
    names: tuple[str, str] = ("x", "weight"),
) -> Geometry:
    """Check that shapes fit each other, and compute the output's. `names` are those in messages."""
    x_name, weight_name = names
    rank = len(stride)
    kernel = weight_shapes[0][2:]
    if len(x_shape) not in (rank + 1, rank + 2):
        raise ValueError(
            f"{x_name}: got shape {x_shape}, expected {rank + 2} axes, or {rank + 1} without the "
            "batch"
        )
    batched = len(x_shape) == rank + 2
    if data_format == "channels_first":
        channels, spatial = x_shape[-rank - 1], x_shape[-rank:]
    else:
        channels, spatial = x_shape[-1], x_shape[-rank - 1 : -1]
    group_pairs = fit_groups(f"{x_name}: got shape {x_shape}", channels, weight_shapes, groups)
    out_channels = sum(pair[1] for pair in group_pairs)
    for length in kernel:
        if length < 1:
            raise ValueError(
                f"{weight_name}: got shape {weight_shapes[0]}, expected a kernel of at least 1 "
                "along every axis"
            )
    axes = tuple(
        _fit_axis(axis, spatial, kernel, stride, padding, dilation, padding_mode, weight_name)
        for axis in range(rank)
    )
    out_spatial = tuple(axis[1] for axis in axes)
    batch = x_shape[0] if batched else 1
    output_shape = (
        (out_channels, *out_spatial)
        if data_format == "channels_first"
        else (*out_spatial, out_channels)
    )
    if batched:
        output_shape = (batch, *output_shape)
    macs = (
        batch
        * math.prod(out_spatial)
        * math.prod(kernel)
        * sum(n_in * n_out for n_in, n_out in group_pairs)
    )
    _fit_memory(output_shape, weight_shapes, macs)
    return Geometry(batch, group_pairs, axes, output_shape, out_channels, macs)


def geometry_from_shapes(
    input_shape: Sequence[int],
    weight_shape: Sequence[int],
    stride: object,
    padding_value: object,
    dilation: object,
    group_count: object,
    data_format: str,
) -> Geometry:
    """Geometry of a convolution that is described by shapes alone."""
    x_shape = shape("input_shape", input_shape)
    w_shape = shape("weight_shape", weight_shape)
    rank = len(w_shape) - 2
    if rank not in (1, 2, 3):
        raise ValueError(
            f"weight_shape: got {w_shape}, expected (out_channels, in_channels / groups, *kernel) "
            "with 1, 2 or 3 kernel axes"
        )
    return conv_geometry(
        x_shape,
        (w_shape,),
        ints("stride", stride, rank, minimum=1),
        padding(padding_value, rank),
        ints("dilation", dilation, rank, minimum=1),
        integer("groups", group_count, 1),
        "zeros",
        choice("data_format", data_format, DATA_FORMATS),
        ("input_shape", "weight_shape"),
    )


def fit_groups(
    name: str,
    channels: int,
    weight_shapes: tuple[tuple[int, ...], ...],
    groups: int | tuple[tuple[int, int], ...],
) -> tuple[tuple[int, int], ...]:
    """(in_channels, out_channels) of every group; `name` is who has `channels`."""
    if isinstance(groups, int):
        out_channels, per_group = weight_shapes[0][:2]
        most = min(max(channels, out_channels, 1), MAX_GROUPS)
        if groups > most:
            raise ValueError(f"groups: got {groups}, expected at most {most}")
        if out_channels % groups:
            raise ValueError(
                f"groups: got {groups}, expected a divisor of out_channels = {out_channels} "
                f"(weight has shape {weight_shapes[0]})"
            )
        if channels != per_group * groups:
            raise ValueError(
                f"{name} with {channels} channels, expected {per_group * groups} "
                f"channels = weight.shape[1] * groups = {per_group} * {groups}"
            )
        return ((per_group, out_channels // groups),) * groups
    for index, (shape, (n_in, n_out)) in enumerate(zip(weight_shapes, groups, strict=True)):
        expected = (n_out, n_in, *weight_shapes[0][2:])
        if shape != expected:
            raise ValueError(
                f"weight: got shape {shape} for group {index}, expected {expected} because "
                f"groups[{index}] is {(n_in, n_out)}"
            )
    total = sum(pair[0] for pair in groups)
    if channels != total:
        raise ValueError(
            f"{name} with {channels} channels, expected {total} channels, the sum over groups"
        )
    return groups


def _fit_axis(
    axis: int,
    spatial: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: str | tuple[tuple[int, int], ...],
    dilation: tuple[int, ...],
    mode: str,
    weight_name: str,
) -> tuple[int, int, int, int, int, int]:
    length, taps, step, gap = spatial[axis], kernel[axis], stride[axis], dilation[axis]
    window = gap * (taps - 1) + 1
    if isinstance(padding, str):
        before, after = _named_padding(padding, length, window, step)
    else:
        before, after = padding[axis]
    padded = length + before + after
    if padded > MAX_SIZE // 2 or window > MAX_SIZE // 2:
        raise ValueError(
            f"padding: got {padding} with dilation {dilation}, expected a padded input and a "
            f"dilated kernel shorter than 2**62 along axis {axis}"
        )
    _fit_padding_mode(axis, length, before, after, padding, mode)
    # A step beyond the input, and a gap in a kernel of one tap, are the same as less: so the core
    # may add either to any position without overflow.
    step, gap = min(step, max(padded, 1)), gap if taps > 1 else 1
    if padding in ("same", "same_lower"):
        return (length, -(-length // step), taps, step, gap, before)
    if padded < window:
        raise ValueError(
            f"{weight_name}: got kernel size {kernel}, which dilation {dilation} makes {window} "
            f"long on axis {axis}, expected at most {padded}, the padded input size (input "
            f"{spatial}, padding {padding})"
        )
    return (length, (padded - window) // step + 1, taps, step, gap, before)


def _named_padding(name: str, length: int, window: int, stride: int) -> tuple[int, int]:
    """Padding before and after that gives ceil(length / stride) outputs (ONNX SAME_UPPER/LOWER)."""
    if name == "valid" or length == 0:
        return 0, 0
    total = max((-(-length // stride) - 1) * stride + window - length, 0)
    small, large = total // 2, total - total // 2
    return (large, small) if name == "same_lower" else (small, large)


def _fit_padding_mode(
    axis: int, length: int, before: int, after: int, padding: object, mode: str
) -> None:
    """Keep padding within what torch defines: one reflection, one period, a border to repeat."""
    most = max(before, after)
    if mode == "zeros" or most == 0:
        return
    limit = {"reflect": length - 1, "circular": length}.get(mode, most if length else 0)
    if most > limit:
        raise ValueError(
            f"padding: got {padding} on axis {axis} of length {length}, expected at most "
            f"{max(limit, 0)} with padding_mode={mode!r}"
        )


def layer_weight_shapes(
    pairs: Sequence[tuple[int, int]], kernel: tuple[int, ...]
) -> tuple[tuple[int, ...], ...]:
    """Shapes of a layer's weights, which NumPy must be able to make."""
    shapes = tuple((n_out, n_in, *kernel) for n_in, n_out in pairs)
    _fit_memory((), shapes, 0)
    return shapes


def _fit_memory(
    output_shape: tuple[int, ...], weight_shapes: tuple[tuple[int, ...], ...], macs: int
) -> None:
    # 8 bytes an element; weights are padded to at most 16 outputs more. NumPy has no array beyond
    # that either, be it empty.
    if math.prod(max(length, 1) for length in output_shape) * 8 > MAX_SIZE:
        raise ValueError(
            f"x: got shapes whose output would be {output_shape}, more than 2**63 bytes"
        )
    packed = sum((shape[0] + 16) * max(math.prod(shape[1:]), 1) for shape in weight_shapes)
    if macs > MAX_SIZE or packed * 8 > MAX_SIZE:
        raise ValueError(
            f"weight: got shapes {_listed([str(shape) for shape in weight_shapes])}, expected "
            "fewer than 2**63 multiply-accumulates and bytes"
        )
