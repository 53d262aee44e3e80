"""Fast grouped convolution on CPUs for NumPy arrays, without a framework."""

from importlib.metadata import version as _version

from pyconv.cost import conv_macs, conv_params
from pyconv.functional import (
    causal_conv1d,
    conv1d,
    conv2d,
    conv3d,
    depthwise_conv2d,
    pointwise_conv2d,
    separable_conv2d,
)
from pyconv.layers import (
    Conv1d,
    Conv2d,
    Conv3d,
    DepthwiseSeparableConv2d,
    InvertedResidual,
    Plan,
    fold_batch_norm,
)
from pyconv.runtime import (
    algorithms,
    get_num_threads,
    info,
    isas,
    num_threads,
    set_num_threads,
)
from pyconv.shapes import conv_output_shape, receptive_field

__version__ = _version("pyconv")

__all__ = [
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "DepthwiseSeparableConv2d",
    "InvertedResidual",
    "Plan",
    "algorithms",
    "causal_conv1d",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_macs",
    "conv_output_shape",
    "conv_params",
    "depthwise_conv2d",
    "fold_batch_norm",
    "get_num_threads",
    "info",
    "isas",
    "num_threads",
    "pointwise_conv2d",
    "receptive_field",
    "separable_conv2d",
    "set_num_threads",
]
