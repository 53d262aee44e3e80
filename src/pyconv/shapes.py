"""Shapes of convolutions: output lengths, "same" padding, receptive fields."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pyconv import _validation as validate

__all__ = ["conv_output_shape", "receptive_field"]


def conv_output_shape(
    input_shape: Sequence[int],
    weight_shape: Sequence[int],
    stride: validate.Ints = 1,
    padding: validate.Padding = 0,
    dilation: validate.Ints = 1,
    groups: int = 1,
    data_format: str = "channels_first",
) -> tuple[int, ...]:
    """Shape of the output of a convolution.

    Along every spatial axis the length is
    ``floor((in + before + after - dilation * (kernel - 1) - 1) / stride) + 1``.

    Parameters
    ----------
    input_shape
        ``(N, C, *spatial)`` or ``(N, *spatial, C)``, or the same without ``N``.
    weight_shape
        ``(C_out, C_in / groups, *kernel)``; its length decides between 1, 2 and 3 spatial axes.
    stride, padding, dilation, data_format
        As in `pyconv.conv2d`.
    groups
        How many groups of equally many channels.

    Returns
    -------
    tuple of int
        The output's shape, with a batch axis exactly if the input has one.

    Raises
    ------
    ValueError
        If the shapes do not fit each other, or the kernel is longer than the padded input.
    TypeError
        If an argument is of another type.

    Examples
    --------
    >>> import pyconv
    >>> pyconv.conv_output_shape((1, 3, 224, 224), (64, 3, 7, 7), stride=2, padding=3)
    (1, 64, 112, 112)
    """
    return validate.geometry_from_shapes(
        input_shape, weight_shape, stride, padding, dilation, groups, data_format
    ).output_shape


def receptive_field(layers: Iterable[tuple[int, int, int]]) -> int:
    """Length, in input elements, of what one output element of a stack of layers sees.

    Parameters
    ----------
    layers
        ``(kernel, stride, dilation)`` of every layer along one axis, first layer first.

    Returns
    -------
    int
        ``1 + sum((kernel_i - 1) * dilation_i * product of the strides before layer i)``
        (Araujo, Norris, Sim 2019, Computing receptive fields of convolutional neural networks).

    Raises
    ------
    ValueError
        If a kernel, stride or dilation is less than 1, or a layer is not a triple.
    TypeError
        If a kernel, stride or dilation is not an int, or `layers` are not several.

    Examples
    --------
    >>> import pyconv
    >>> pyconv.receptive_field([(3, 1, 1), (3, 1, 1)])
    5
    """
    field = step = 1
    for kernel, stride, dilation in validate.receptive_field_layers(layers):
        field += (kernel - 1) * dilation * step
        step *= stride
    return field
