"""Convolution layers: weights packed once, for repeated inference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

import numpy as np
import numpy.typing as npt

from pyconv import _core
from pyconv import _validation as validate
from pyconv._validation import Activation, Array, Groups, Ints, Padding
from pyconv.functional import (
    Fused,
    Planned,
    Spec,
    execute_fused,
    fused_plan_for,
    parse_spec,
    plan_for,
)
from pyconv.runtime import get_num_threads, resolve_num_threads

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = [
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "DepthwiseSeparableConv2d",
    "InvertedResidual",
    "Plan",
    "fold_batch_norm",
]


@dataclass(frozen=True)
class Plan:
    """How a layer computes an input of a given shape.

    Attributes
    ----------
    algorithm : str
        Name from `pyconv.algorithms`; several, in order, for a layer of several convolutions.
    reason : str
        Why this algorithm, in this form.
    isa : str
        Instruction set, from `pyconv.isas`.
    tile : str
        Output elements that the innermost kernel keeps in registers.
    threads : int
        Threads that a call uses now.
    partition : str
        The tasks that these threads share, each a contiguous range of them; several such lists,
        in order, where a layer of several convolutions computes one after the other. A
        contiguous array that begins at a cache line may be cut otherwise.
    output_shape : tuple of int
        Shape of the result.
    macs : int
        Multiply-accumulates.
    bytes_moved : int
        Bytes of input, weights, bias and output: the least that memory must move.
    workspace_bytes : int
        Memory that a call takes beside its arrays, over all threads.
    packed_weight_bytes : int
        Memory that the packed weights take for the life of the layer.
    """

    algorithm: str
    reason: str
    isa: str
    tile: str
    threads: int
    partition: str
    output_shape: tuple[int, ...]
    macs: int
    bytes_moved: int
    workspace_bytes: int
    packed_weight_bytes: int

    def __str__(self) -> str:
        width = max(len(item.name) for item in fields(self))
        rows = []
        for item in fields(self):
            value = getattr(self, item.name)
            text = f"{value:,}" if isinstance(value, int) else str(value)
            rows.append(f"{item.name.replace('_', ' '):<{width}}  {text}")
        return "\n".join(rows)


@dataclass(frozen=True)
class _Weights:
    """Weights as plain arrays, and packed as far as calls have needed them."""

    arrays: tuple[Array, ...]
    shapes: tuple[tuple[int, ...], ...]
    bias: Array | None
    packed: dict[str, _core.PackedWeights] = field(default_factory=dict)

    def packed_for(self, plan: _core.Plan, packing: str) -> _core.PackedWeights:
        # There are as many keys as packings, a few. Two threads may both pack the first time.
        packed = self.packed.get(packing)
        if packed is None:
            packed = self.packed[packing] = plan.pack(self.arrays)
        return packed


def _described(
    plan: _core.Plan | _core.FusedPlan,
    stages: Sequence[_core.Plan],
    geometries: Sequence[validate.Geometry],
    weights: Sequence[_Weights],
    input_shape: tuple[int, ...],
) -> Plan:
    """What users see of a plan that has these stages."""
    threads = plan.useful_threads(get_num_threads())
    output_shape = geometries[-1].output_shape
    arrays = [array for each in weights for array in (*each.arrays, each.bias) if array is not None]
    elements = math.prod(input_shape) + math.prod(output_shape)
    return Plan(
        algorithm=plan.algorithm,
        reason=plan.reason,
        isa=_core.current_isa(),
        tile=plan.tile,
        threads=threads,
        partition=plan.partition(threads),
        output_shape=output_shape,
        macs=sum(geometry.macs for geometry in geometries),
        bytes_moved=elements * arrays[0].itemsize + sum(array.nbytes for array in arrays),
        workspace_bytes=plan.workspace_bytes(threads),
        packed_weight_bytes=sum(stage.packed_bytes for stage in stages),
    )


class _Layer:
    """An object that does not change while it is called: any number of threads may share it."""

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(
            f"{type(self).__name__}.{name} is read-only: make a new layer, or use set_weights"
        )

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{type(self).__name__}.{name} is read-only: make a new layer")

    def _set(self, **attributes: object) -> None:
        for name, value in attributes.items():
            object.__setattr__(self, name, value)


class _Conv(_Layer):
    """What Conv1d, Conv2d and Conv3d share."""

    _rank: ClassVar[int]

    in_channels: int
    out_channels: int
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: str | tuple[int, ...] | tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int | tuple[tuple[int, int], ...]
    padding_mode: str
    dtype: np.dtype[Any]
    data_format: str
    activation: Activation
    algorithm: str
    _spec: Spec
    _weights: _Weights

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Ints,
        stride: Ints = 1,
        padding: Padding = 0,
        dilation: Ints = 1,
        groups: Groups = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        *,
        dtype: npt.DTypeLike = np.float32,
        data_format: str = "channels_first",
        activation: Activation = None,
        algorithm: str = "auto",
        rng: int | np.random.Generator | None = None,
    ) -> None:
        n_in, n_out, parsed = validate.layer_groups(in_channels, out_channels, groups)
        kernel = validate.ints("kernel_size", kernel_size, self._rank, minimum=1)
        dtype = validate.layer_dtype(dtype)
        pairs = ((n_in // parsed, n_out),) if isinstance(parsed, int) else parsed
        generator = validate.generator(rng)

        def uniform(shape: tuple[int, ...], fan_in: int) -> Array:
            bound = 1 / math.sqrt(fan_in)
            return generator.uniform(-bound, bound, shape).astype(dtype)

        shapes = validate.layer_weight_shapes(pairs, kernel)
        fans = [math.prod(shape[1:]) for shape in shapes]
        weights = [uniform(shape, fan_in) for shape, fan_in in zip(shapes, fans, strict=True)]
        biases = None
        if validate.boolean("bias", bias):
            biases = np.concatenate(
                [uniform((n,), fan_in) for (_, n), fan_in in zip(pairs, fans, strict=True)]
            )
        self._configure(
            stride, padding, dilation, parsed, padding_mode, data_format, activation, algorithm
        )
        self._adopt(weights[0] if isinstance(parsed, int) else weights, biases)

    @classmethod
    def from_weights(
        cls,
        weight: Any,
        bias: Any = None,
        stride: Ints = 1,
        padding: Padding = 0,
        dilation: Ints = 1,
        groups: Groups = 1,
        padding_mode: str = "zeros",
        *,
        data_format: str = "channels_first",
        activation: Activation = None,
        algorithm: str = "auto",
    ) -> Self:
        """Make a layer of given weights, which are copied; channels, kernel and dtype are theirs.

        Parameters
        ----------
        weight : array, or a sequence of arrays with uneven groups
            ``(C_out, C_in / groups, *kernel)``.
        bias : array, optional
            ``(C_out,)``.
        stride, padding, dilation, groups, padding_mode, data_format, activation, algorithm
            As in the constructor.

        Returns
        -------
        Conv1d, Conv2d or Conv3d
            A layer of the class that was asked.

        Raises
        ------
        ValueError, TypeError
            As the constructor, or if an array does not fit.

        Examples
        --------
        >>> import numpy as np, pyconv
        >>> layer = pyconv.Conv2d.from_weights(np.ones((8, 3, 5, 5), np.float32), padding="same")
        >>> layer.in_channels, layer.out_channels, layer.kernel_size
        (3, 8, (5, 5))
        """
        layer = cls.__new__(cls)
        layer._configure(
            stride, padding, dilation, groups, padding_mode, data_format, activation, algorithm
        )
        layer._adopt(weight, bias)
        return layer

    @classmethod
    def from_torch(
        cls,
        torch_module: Any,
        batch_norm: Any = None,
        *,
        data_format: str = "channels_first",
        activation: Activation = None,
        algorithm: str = "auto",
    ) -> Self:
        """Make a layer of a ``torch.nn.Conv1d/2d/3d``, with its weights copied.

        Parameters
        ----------
        torch_module
            Anything with torch's attributes ``weight``, ``bias``, ``stride``, ``padding``,
            ``dilation``, ``groups`` and ``padding_mode``. pyconv does not import torch.
        batch_norm : optional
            A ``torch.nn.BatchNorm*`` in evaluation mode that follows, to fold into the weights.
        data_format, activation, algorithm
            As in the constructor.

        Returns
        -------
        Conv1d, Conv2d or Conv3d
            A layer of the class that was asked.

        Raises
        ------
        ValueError, TypeError
            If a module is of another kind or another number of axes, or the batch normalisation is
            in training mode.
        """
        validate.torch_conv(torch_module, cls._rank, cls.__name__)
        weight, bias = _plain(torch_module.weight), _plain(torch_module.bias)
        if batch_norm is not None:
            validate.torch_batch_norm(batch_norm)
            weight, bias = fold_batch_norm(
                weight,
                bias,
                _plain(batch_norm.running_mean),
                _plain(batch_norm.running_var),
                _plain(batch_norm.weight),
                _plain(batch_norm.bias),
                batch_norm.eps,
            )
        return cls.from_weights(
            weight,
            bias,
            torch_module.stride,
            torch_module.padding,
            torch_module.dilation,
            torch_module.groups,
            torch_module.padding_mode,
            data_format=data_format,
            activation=activation,
            algorithm=algorithm,
        )

    def _configure(
        self,
        stride: object,
        padding: object,
        dilation: object,
        groups: object,
        padding_mode: str,
        data_format: str,
        activation: Activation,
        algorithm: str,
    ) -> None:
        spec = parse_spec(
            self._rank,
            stride,
            padding,
            dilation,
            groups,
            padding_mode,
            data_format,
            activation,
            algorithm,
        )
        pairs = spec.padding
        if not isinstance(pairs, str) and all(before == after for before, after in pairs):
            shown: object = tuple(before for before, _ in pairs)
        else:
            shown = pairs
        self._set(
            _spec=spec,
            stride=spec.stride,
            padding=shown,
            dilation=spec.dilation,
            groups=spec.groups,
            padding_mode=padding_mode,
            data_format=data_format,
            activation=tuple(activation) if isinstance(activation, list) else activation,
            algorithm=algorithm,
        )

    def _adopt(self, weight: object, bias: object) -> None:
        """Copy weights of any shape that fits the groups, and take over their channels."""
        views = validate.weights(weight, self.groups, self._rank)
        n_in, n_out = validate.weight_channels(views, self.groups)
        bias = validate.bias(bias, n_out, views[0])
        arrays = tuple(np.array(view, order="C") for view in views)
        copied = None if bias is None else bias.copy()
        for array in (*arrays, copied):
            if array is not None:
                array.flags.writeable = False
        self._set(
            in_channels=n_in,
            out_channels=n_out,
            kernel_size=arrays[0].shape[2:],
            dtype=arrays[0].dtype,
            _weights=_Weights(arrays, validate.shapes(arrays), copied),
        )

    @property
    def weight(self) -> Any:
        """``(C_out, C_in / groups, *kernel)``, read-only; a tuple of them with uneven groups."""
        views = tuple(array.view() for array in self._weights.arrays)
        return views[0] if isinstance(self.groups, int) else views

    @property
    def bias(self) -> Array | None:
        """The bias ``(C_out,)``, read-only, or None."""
        bias = self._weights.bias
        return None if bias is None else bias.view()

    def set_weights(self, weight: Any, bias: Any = None) -> None:
        """Replace the weights by copies of others of the same shapes and dtype.

        Calls that are under way finish with the old ones.

        Parameters
        ----------
        weight : array, or a sequence of arrays with uneven groups
            Of the shape of `weight`.
        bias : array, optional
            ``(C_out,)``; None for no bias.

        Raises
        ------
        ValueError, TypeError
            If a shape or dtype differs.
        """
        views = validate.weights(weight, self.groups, self._rank)
        for new, old in zip(views, self._weights.arrays, strict=True):
            validate.replacement("weight", new, old)
        self._adopt(weight, bias)

    def __call__(
        self,
        x: Any,
        residual: Any = None,
        out: Array | None = None,
        num_threads: int | None = None,
    ) -> Array:
        """Convolve `x`.

        Parameters
        ----------
        x : array
            ``(N, C_in, *spatial)`` or ``(N, *spatial, C_in)``, by `data_format`, of the layer's
            dtype; ``N`` may be absent.
        residual : array, optional
            Of the output's shape, added before the activation.
        out : ndarray, optional
            Of the output's shape and dtype, any strides; receives the result and is returned.
        num_threads : int, optional
            Most threads to use; by default `pyconv.get_num_threads`.

        Returns
        -------
        ndarray
            The output.

        Raises
        ------
        ValueError, TypeError, MemoryError
            As `pyconv.conv2d`.
        """
        weights = self._weights
        x = validate.layer_input(x, weights.arrays[0])
        plan, geometry, packing = self._plan(x.shape)
        if residual is not None or out is not None:
            residual, out = validate.residual_and_out(
                residual, out, geometry.output_shape, x, (weights.bias,)
            )
        packed = weights.packed_for(plan, packing)
        threads = resolve_num_threads(num_threads)
        return plan.run(x, packed, weights.bias, residual, out, threads)

    def plan(self, input_shape: tuple[int, ...]) -> Plan:
        """How the layer computes an input of this shape.

        Parameters
        ----------
        input_shape
            As an input of `__call__` has it.

        Returns
        -------
        Plan
            The algorithm, its memory and its cost. Computes nothing.

        Raises
        ------
        ValueError
            If the shape does not fit the layer.
        """
        shape = validate.shape("input_shape", input_shape)
        plan, geometry, _ = self._plan(shape)
        return _described(plan, [plan], [geometry], [self._weights], shape)

    def _plan(self, shape: tuple[int, ...]) -> Planned:
        return plan_for(shape, self._weights.shapes, self.dtype, self._spec)

    def __getstate__(self) -> dict[str, object]:
        return {
            "weight": self.weight,
            "bias": self.bias,
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
            "groups": self.groups,
            "padding_mode": self.padding_mode,
            "data_format": self.data_format,
            "activation": self.activation,
            "algorithm": self.algorithm,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        weight, bias = state.pop("weight"), state.pop("bias")
        self._configure(**state)
        self._adopt(weight, bias)

    def __repr__(self) -> str:
        ones = (1,) * self._rank
        parts = [
            f"{self.in_channels}, {self.out_channels}",
            f"kernel_size={self.kernel_size}",
            f"stride={self.stride}",
        ]
        if self.padding != (0,) * self._rank:
            parts.append(f"padding={self.padding}")
        if self.dilation != ones:
            parts.append(f"dilation={self.dilation}")
        if self.groups != 1:
            parts.append(f"groups={self.groups}")
        if self.bias is None:
            parts.append("bias=False")
        if self.padding_mode != "zeros":
            parts.append(f"padding_mode={self.padding_mode}")
        if self.dtype != np.float32:
            parts.append(f"dtype={self.dtype}")
        if self.data_format != "channels_first":
            parts.append(f"data_format={self.data_format}")
        if self.activation is not None:
            parts.append(f"activation={self.activation}")
        if self.algorithm != "auto":
            parts.append(f"algorithm={self.algorithm}")
        return f"{type(self).__name__}({', '.join(parts)})"


class Conv1d(_Conv):
    """One-dimensional convolution layer.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode
        As in `Conv2d`, with one spatial axis.
    dtype, data_format, activation, algorithm, rng
        As in `Conv2d`.

    Raises
    ------
    ValueError, TypeError
        As `Conv2d`.

    Examples
    --------
    >>> import numpy as np, pyconv
    >>> conv = pyconv.Conv1d(4, 8, 3, padding=1)
    >>> conv(np.zeros((1, 4, 10), np.float32)).shape
    (1, 8, 10)
    """

    _rank = 1


class Conv2d(_Conv):
    """Two-dimensional convolution layer.

    Parameters
    ----------
    in_channels, out_channels : int
        Channel counts of the input and of the output.
    kernel_size : int or one int per axis
        Size of the kernel.
    stride, padding, dilation, groups, padding_mode
        As in `pyconv.conv2d`. Uneven groups are (in_channels, out_channels) pairs.
    bias : bool
        Whether every output channel has a bias.
    dtype : {float32, float64}
        Of the weights, and of the inputs that the layer takes.
    data_format, activation, algorithm
        As in `pyconv.conv2d`.
    rng : int or numpy.random.Generator, optional
        Source of the initial weights and bias, which are uniform within
        ``+-1 / sqrt(in_channels / groups * prod(kernel_size))`` as in torch.

    Raises
    ------
    ValueError
        If `groups` does not divide both channel counts, or a value is out of range.
    TypeError
        If an argument is of the wrong type.

    Examples
    --------
    >>> import numpy as np, pyconv
    >>> conv = pyconv.Conv2d(3, 8, 3, padding=1, activation="relu")
    >>> conv(np.zeros((1, 3, 32, 32), np.float32)).shape
    (1, 8, 32, 32)
    >>> conv
    Conv2d(3, 8, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), activation=relu)
    """

    _rank = 2


class Conv3d(_Conv):
    """Three-dimensional convolution layer.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode
        As in `Conv2d`, with three spatial axes.
    dtype, data_format, activation, algorithm, rng
        As in `Conv2d`.

    Raises
    ------
    ValueError, TypeError
        As `Conv2d`.

    Examples
    --------
    >>> import numpy as np, pyconv
    >>> conv = pyconv.Conv3d(2, 4, 3)
    >>> conv(np.zeros((1, 2, 5, 5, 5), np.float32)).shape
    (1, 4, 3, 3, 3)
    """

    _rank = 3


class _Block(_Layer):
    """Convolutions of one data format, dtype and algorithm that follow each other, in one pass."""

    _names: ClassVar[tuple[str, ...]]

    @property
    def _parts(self) -> dict[str, Conv2d]:
        parts = {name: getattr(self, name) for name in self._names}
        return {name: part for name, part in parts.items() if part is not None}

    def _run(self, x: Any, residual: Any, out: Array | None, num_threads: int | None) -> Array:
        parts = self._parts.values()
        # Once: set_weights of a part may replace them while this call is under way.
        weights = [part._weights for part in parts]
        x = validate.layer_input(x, weights[0].arrays[0])
        fused = self._plan(x.shape)
        stages = zip(weights, fused.stages, fused.packings, strict=True)
        packed = [each.packed_for(stage, packing) for each, stage, packing in stages]
        biases = [each.bias for each in weights]
        return execute_fused(fused, packed, x, biases, residual, out, num_threads)

    def plan(self, input_shape: tuple[int, ...]) -> Plan:
        """How the layer computes an input of this shape.

        Parameters
        ----------
        input_shape
            As an input of `__call__` has it.

        Returns
        -------
        Plan
            The algorithms, their memory and their cost. Computes nothing.

        Raises
        ------
        ValueError
            If the shape does not fit the layer.
        """
        shape = validate.shape("input_shape", input_shape)
        fused = self._plan(shape)
        weights = [part._weights for part in self._parts.values()]
        return _described(fused.plan, fused.stages, fused.geometries, weights, shape)

    def _plan(self, shape: tuple[int, ...]) -> Fused:
        parts = self._parts.values()
        weights = [part.weight for part in parts]
        specs = tuple(part._spec for part in parts)
        return fused_plan_for(shape, validate.shapes(weights), weights[0].dtype, specs)

    def __getstate__(self) -> dict[str, Conv2d | None]:
        return {name: getattr(self, name) for name in self._names}

    def __setstate__(self, state: dict[str, Conv2d | None]) -> None:
        self._set(**state)

    def __repr__(self) -> str:
        rows = [f"  ({name}): {part!r}\n" for name, part in self._parts.items()]
        return f"{type(self).__name__}(\n{''.join(rows)})"


class DepthwiseSeparableConv2d(_Block):
    """Depthwise convolution followed by a pointwise one, as in MobileNet and Xception.

    One pass: the tensor between the two never exists. The bits are those of
    ``pointwise(depthwise(x))``.

    Parameters
    ----------
    in_channels, out_channels : int
        Channel counts of the input and of the output.
    kernel_size, stride, padding, dilation, padding_mode
        Of the depthwise part, as in `pyconv.conv2d`.
    bias : bool
        Whether both parts have a bias.
    multiplier : int
        Depthwise output channels per input channel.
    dtype, data_format, algorithm, rng
        As in `pyconv.Conv2d`.
    depthwise_activation, activation
        After the depthwise and after the pointwise part, as in `pyconv.conv2d`.

    Attributes
    ----------
    depthwise, pointwise : Conv2d
        The two parts.

    Raises
    ------
    ValueError, TypeError
        As `pyconv.Conv2d`.

    Examples
    --------
    >>> import numpy as np, pyconv
    >>> block = pyconv.DepthwiseSeparableConv2d(3, 8, 3, padding=1)
    >>> block.depthwise.weight.shape, block.pointwise.weight.shape
    ((3, 1, 3, 3), (8, 3, 1, 1))
    >>> block(np.zeros((1, 3, 16, 16), np.float32)).shape
    (1, 8, 16, 16)
    """

    _names = ("depthwise", "pointwise")

    depthwise: Conv2d
    pointwise: Conv2d

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Ints,
        stride: Ints = 1,
        padding: Padding = 0,
        dilation: Ints = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        *,
        multiplier: int = 1,
        dtype: npt.DTypeLike = np.float32,
        data_format: str = "channels_first",
        depthwise_activation: Activation = None,
        activation: Activation = None,
        algorithm: str = "auto",
        rng: int | np.random.Generator | None = None,
    ) -> None:
        validate.activation("depthwise_activation", depthwise_activation)
        channels = validate.integer("in_channels", in_channels, 1)
        between = channels * validate.integer("multiplier", multiplier, 1)
        generator = validate.generator(rng)
        depthwise = Conv2d(
            channels,
            between,
            kernel_size,
            stride,
            padding,
            dilation,
            channels,
            bias,
            padding_mode,
            dtype=dtype,
            data_format=data_format,
            activation=depthwise_activation,
            algorithm=algorithm,
            rng=generator,
        )
        pointwise = Conv2d(
            between,
            out_channels,
            1,
            bias=bias,
            dtype=dtype,
            data_format=data_format,
            activation=activation,
            algorithm=algorithm,
            rng=generator,
        )
        self._set(depthwise=depthwise, pointwise=pointwise)

    @classmethod
    def from_weights(
        cls,
        depthwise_weight: Any,
        pointwise_weight: Any,
        depthwise_bias: Any = None,
        pointwise_bias: Any = None,
        stride: Ints = 1,
        padding: Padding = 0,
        dilation: Ints = 1,
        padding_mode: str = "zeros",
        *,
        in_channels: int | None = None,
        data_format: str = "channels_first",
        depthwise_activation: Activation = None,
        activation: Activation = None,
        algorithm: str = "auto",
    ) -> Self:
        """Make a block of given weights, which are copied.

        Parameters
        ----------
        depthwise_weight : array
            ``(C * multiplier, 1, kernel_height, kernel_width)``.
        pointwise_weight : array
            ``(C_out, C * multiplier)`` or ``(C_out, C * multiplier, 1, 1)``.
        depthwise_bias, pointwise_bias : array, optional
            ``(C * multiplier,)`` and ``(C_out,)``.
        in_channels : int, optional
            ``C``; by default the depthwise output channels, a multiplier of 1.
        stride, padding, dilation, padding_mode, data_format
            As in the constructor.
        depthwise_activation, activation, algorithm
            As in the constructor.

        Returns
        -------
        DepthwiseSeparableConv2d
            The block.

        Raises
        ------
        ValueError, TypeError
            As the constructor, or if an array does not fit.
        """
        validate.activation("depthwise_activation", depthwise_activation)
        (weight,) = validate.weights(depthwise_weight, 1, 2, "depthwise_weight")
        channels = weight.shape[0] if in_channels is None else in_channels
        depthwise = Conv2d.from_weights(
            weight,
            depthwise_bias,
            stride,
            padding,
            dilation,
            channels,
            padding_mode,
            data_format=data_format,
            activation=depthwise_activation,
            algorithm=algorithm,
        )
        pointwise = Conv2d.from_weights(
            validate.pointwise_weight("pointwise_weight", pointwise_weight),
            pointwise_bias,
            data_format=data_format,
            activation=activation,
            algorithm=algorithm,
        )
        validate.separable_parts(depthwise.weight, pointwise.weight)
        block = cls.__new__(cls)
        block._set(depthwise=depthwise, pointwise=pointwise)
        return block

    def __call__(
        self,
        x: Any,
        residual: Any = None,
        out: Array | None = None,
        num_threads: int | None = None,
    ) -> Array:
        """Convolve `x`.

        Parameters
        ----------
        x : array
            ``(N, C_in, H, W)`` or ``(N, H, W, C_in)``, by `data_format`, of the layer's dtype;
            ``N`` may be absent.
        residual, out, num_threads
            As in `Conv2d.__call__`.

        Returns
        -------
        ndarray
            The output.

        Raises
        ------
        ValueError, TypeError, MemoryError
            As `pyconv.conv2d`.
        """
        return self._run(x, residual, out, num_threads)


class InvertedResidual(_Block):
    """The block of MobileNetV2: 1x1 expansion, depthwise convolution, 1x1 projection.

    ``y = project(depthwise(expand(x)))``, plus ``x`` where the stride is 1 and the channel counts
    agree (Sandler et al. 2018, MobileNetV2: inverted residuals and linear bottlenecks). One pass:
    the expanded tensors never exist. The bits are those of the three calls.

    Parameters
    ----------
    in_channels, out_channels : int
        Channel counts of the input and of the output.
    kernel_size : int or one int per axis
        Odd; the depthwise part is padded by half of the dilated kernel on either side.
    stride, dilation : int or one int per axis
        Of the depthwise part.
    expansion : int
        Channels of the depthwise part per input channel; with 1 there is no `expand`.
    bias : bool
        Whether all parts have a bias.
    dtype, data_format, algorithm, rng
        As in `pyconv.Conv2d`.
    activation
        After the expansion and after the depthwise part, as in `pyconv.conv2d`. The projection has
        none.

    Attributes
    ----------
    expand : Conv2d or None
        1x1.
    depthwise, project : Conv2d
        The other two parts.

    Raises
    ------
    ValueError, TypeError
        As `pyconv.Conv2d`; ValueError if the kernel is even along an axis.

    Examples
    --------
    >>> import numpy as np, pyconv
    >>> block = pyconv.InvertedResidual(8, 8)
    >>> block.depthwise.weight.shape, block.project.weight.shape
    ((48, 1, 3, 3), (8, 48, 1, 1))
    >>> x = np.ones((1, 8, 16, 16), np.float32)
    >>> y = block.project(block.depthwise(block.expand(x)), residual=x)
    >>> bool((block(x) == y).all())
    True
    """

    _names = ("expand", "depthwise", "project")

    expand: Conv2d | None
    depthwise: Conv2d
    project: Conv2d

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Ints = 3,
        stride: Ints = 1,
        dilation: Ints = 1,
        expansion: int = 6,
        bias: bool = True,
        *,
        dtype: npt.DTypeLike = np.float32,
        data_format: str = "channels_first",
        activation: Activation = "relu6",
        algorithm: str = "auto",
        rng: int | np.random.Generator | None = None,
    ) -> None:
        n_in = validate.integer("in_channels", in_channels, 1)
        factor = validate.integer("expansion", expansion, 1)
        kernel = validate.ints("kernel_size", kernel_size, 2, minimum=1)
        padding = validate.half_padding("kernel_size", kernel, dilation)
        hidden = n_in * factor
        shared: dict[str, Any] = dict(
            bias=bias,
            dtype=dtype,
            data_format=data_format,
            algorithm=algorithm,
            rng=validate.generator(rng),
        )
        expand = Conv2d(n_in, hidden, 1, activation=activation, **shared) if factor > 1 else None
        depthwise = Conv2d(
            hidden,
            hidden,
            kernel,
            stride,
            padding,
            dilation,
            hidden,
            activation=activation,
            **shared,
        )
        self._set(
            expand=expand, depthwise=depthwise, project=Conv2d(hidden, out_channels, 1, **shared)
        )

    @classmethod
    def from_weights(
        cls,
        expand_weight: Any,
        depthwise_weight: Any,
        project_weight: Any,
        expand_bias: Any = None,
        depthwise_bias: Any = None,
        project_bias: Any = None,
        stride: Ints = 1,
        dilation: Ints = 1,
        *,
        data_format: str = "channels_first",
        activation: Activation = "relu6",
        algorithm: str = "auto",
    ) -> Self:
        """Make a block of given weights, which are copied.

        Parameters
        ----------
        expand_weight : array or None
            ``(hidden, C_in)`` or ``(hidden, C_in, 1, 1)``; None for a block without expansion.
        depthwise_weight : array
            ``(hidden, 1, kernel_height, kernel_width)``, both odd.
        project_weight : array
            ``(C_out, hidden)`` or ``(C_out, hidden, 1, 1)``.
        expand_bias, depthwise_bias, project_bias : array, optional
            ``(hidden,)``, ``(hidden,)`` and ``(C_out,)``.
        stride, dilation, data_format, activation, algorithm
            As in the constructor.

        Returns
        -------
        InvertedResidual
            The block.

        Raises
        ------
        ValueError, TypeError
            As the constructor, or if an array does not fit.
        """
        (weight,) = validate.weights(depthwise_weight, 1, 2, "depthwise_weight")
        padding = validate.half_padding("depthwise_weight", weight.shape[2:], dilation)
        shared: dict[str, Any] = dict(data_format=data_format, algorithm=algorithm)
        expand = None
        if expand_weight is not None:
            first = validate.pointwise_weight("expand_weight", expand_weight)
            validate.expanded_parts(first, weight)
            expand = Conv2d.from_weights(first, expand_bias, activation=activation, **shared)
        elif expand_bias is not None:
            raise ValueError("expand_bias: got an array, expected None without expand_weight")
        last = validate.pointwise_weight("project_weight", project_weight)
        validate.separable_parts(weight, last, "project_weight")
        block = cls.__new__(cls)
        block._set(
            expand=expand,
            depthwise=Conv2d.from_weights(
                weight,
                depthwise_bias,
                stride,
                padding,
                dilation,
                weight.shape[0],
                activation=activation,
                **shared,
            ),
            project=Conv2d.from_weights(last, project_bias, **shared),
        )
        return block

    @property
    def has_residual(self) -> bool:
        """Whether the input is added to the output."""
        first = self.depthwise if self.expand is None else self.expand
        return self.depthwise.stride == (1, 1) and first.in_channels == self.project.out_channels

    def __call__(
        self, x: Any, *, out: Array | None = None, num_threads: int | None = None
    ) -> Array:
        """Compute the block's output.

        Parameters
        ----------
        x : array
            ``(N, C_in, H, W)`` or ``(N, H, W, C_in)``, by `data_format`, of the layer's dtype;
            ``N`` may be absent.
        out, num_threads
            As in `Conv2d.__call__`.

        Returns
        -------
        ndarray
            The output.

        Raises
        ------
        ValueError, TypeError, MemoryError
            As `pyconv.conv2d`.
        """
        x = validate.float_array("x", x)
        return self._run(x, x if self.has_residual else None, out, num_threads)


def fold_batch_norm(
    weight: Any,
    bias: Any,
    mean: Any,
    var: Any,
    gamma: Any,
    beta: Any,
    eps: float = 1e-5,
) -> tuple[Array, Array]:
    """Fold a batch normalisation that follows a convolution into the convolution's weights.

    With ``scale = gamma / sqrt(var + eps)`` these are ``weight * scale`` and
    ``(bias - mean) * scale + beta``, computed in float64 (Ioffe, Szegedy 2015, Batch
    normalization).

    Parameters
    ----------
    weight : array
        ``(C_out, C_in / groups, *kernel)``.
    bias : array or None
        ``(C_out,)``.
    mean, var : array
        ``(C_out,)``, the running mean and variance.
    gamma, beta : array or None
        ``(C_out,)``, the learnt scale and shift; None for 1 and 0.
    eps : float
        Added to the variance; at least 0.

    Returns
    -------
    weight, bias : ndarray
        New arrays of the dtype of `weight`.

    Raises
    ------
    ValueError, TypeError
        If shapes or values do not fit, or an array is not float32 or float64.

    Examples
    --------
    >>> import numpy as np, pyconv
    >>> one = np.ones(1, np.float32)
    >>> weight, bias = pyconv.fold_batch_norm(one.reshape(1, 1, 1), None, one, one, 2 * one, one, 0)
    >>> weight.item(), bias.item()
    (2.0, -1.0)
    """
    kernel = validate.float_array("weight", weight)
    per_channel = validate.batch_norm_arrays(
        kernel, bias=bias, mean=mean, var=var, gamma=gamma, beta=beta
    )
    wide = {name: array.astype(np.float64) for name, array in per_channel.items()}
    scale = wide["gamma"] / np.sqrt(wide["var"] + validate.non_negative("eps", eps))
    folded_bias = (wide["bias"] - wide["mean"]) * scale + wide["beta"]
    folded = kernel * scale.reshape(-1, *(1,) * (kernel.ndim - 1))
    return folded.astype(kernel.dtype), folded_bias.astype(kernel.dtype)


def _plain(tensor: Any) -> Any:
    """A torch tensor, detached from its graph, as an array; None stays."""
    if not hasattr(tensor, "detach"):
        return tensor
    try:
        return tensor.detach().cpu().numpy()
    except TypeError:  # NumPy has no bfloat16
        raise TypeError(
            f"torch_module: got weights of {tensor.dtype}, expected float32 or float64: use float()"
        ) from None
