"""Cost of convolutions: learnable parameters and multiply-accumulates."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pyconv import _validation as validate

__all__ = ["conv_macs", "conv_params"]


def conv_params(
    in_channels: int,
    out_channels: int,
    kernel_size: validate.Ints,
    groups: int = 1,
    bias: bool = True,
) -> int:
    """Number of learnable parameters of a convolution layer.

    Parameters
    ----------
    in_channels, out_channels
        Channel counts, both divisible by `groups`.
    kernel_size
        One int per spatial axis, of which there are 1 to 3, or a single int for a square
        two-dimensional kernel.
    groups
        Number of groups.
    bias
        Whether every output channel has a bias.

    Returns
    -------
    int
        ``prod(kernel_size) * in_channels * out_channels / groups``, plus `out_channels` biases.

    Raises
    ------
    ValueError
        If `groups` does not divide both channel counts, a count is less than 1, or the kernel has
        none or more than 3 axes.
    TypeError
        If a count is not an int.

    Examples
    --------
    >>> import pyconv
    >>> pyconv.conv_params(3, 64, 7, bias=False)
    9408
    """
    rank = validate.kernel_rank(kernel_size)
    kernel = validate.ints("kernel_size", kernel_size, rank, minimum=1)
    in_channels, out_channels, groups = validate.layer_channels(in_channels, out_channels, groups)
    weights = math.prod(kernel) * in_channels * out_channels // groups
    return weights + (out_channels if bias else 0)


def conv_macs(
    input_shape: Sequence[int],
    weight_shape: Sequence[int],
    stride: validate.Ints = 1,
    padding: validate.Padding = 0,
    dilation: validate.Ints = 1,
    groups: int = 1,
    data_format: str = "channels_first",
) -> int:
    """Multiply-accumulates of a convolution, those with padding included.

    Parameters
    ----------
    input_shape, weight_shape, stride, padding, dilation, groups, data_format
        As in `pyconv.conv_output_shape`.

    Returns
    -------
    int
        ``N * prod(output spatial shape) * prod(weight_shape)``.

    Raises
    ------
    ValueError, TypeError
        As `pyconv.conv_output_shape`.

    Examples
    --------
    >>> import pyconv
    >>> pyconv.conv_macs((1, 192, 28, 28), (32, 192, 5, 5), padding=2)
    120422400
    """
    return validate.geometry_from_shapes(
        input_shape, weight_shape, stride, padding, dilation, groups, data_format
    ).macs
