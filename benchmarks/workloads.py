"""The convolution layers of well-known networks, by name.

A name is ``network.block.kernel``, for example ``vgg16.conv3_2.3x3``. Layers of one network with
the same geometry stand once, under the name of the first, with ``count`` telling how often the
network uses it; so the sum of ``count * macs`` over a network is its convolution cost.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

__all__ = ["BENCH_DEFAULT", "COMPARE_DEFAULT", "WORKLOADS", "Layer", "random_layers", "select"]


@dataclass(frozen=True)
class Layer:
    """One convolution layer: everything but the batch and the values.

    Attributes
    ----------
    name : str
        ``network.block.kernel``, unique in `WORKLOADS`.
    network : str
        The network that the layer belongs to.
    spatial : tuple of int
        Spatial shape of the input; its length is the rank (1, 2 or 3).
    in_channels, out_channels, groups : int
        Channel counts and the number of groups that divides both.
    kernel, stride, padding, dilation : tuple of int
        One number per spatial axis; the padding is the same before and after.
    count : int
        How often the network uses a layer of this geometry.
    """

    name: str
    network: str
    spatial: tuple[int, ...]
    in_channels: int
    out_channels: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int = 1
    count: int = 1

    @property
    def rank(self) -> int:
        """Number of spatial axes."""
        return len(self.spatial)

    @property
    def kind(self) -> str:
        """``"dense"``, ``"grouped"`` or ``"depthwise"`` (one input channel per group)."""
        if self.groups == 1:
            return "dense"
        return "depthwise" if self.groups == self.in_channels else "grouped"

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Shape of the weights, ``(C_out, C_in / groups, *kernel)``."""
        return (self.out_channels, self.in_channels // self.groups, *self.kernel)

    @property
    def output_spatial(self) -> tuple[int, ...]:
        """Spatial shape of the output."""
        return tuple(
            (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
            for size, kernel, stride, padding, dilation in zip(
                self.spatial, self.kernel, self.stride, self.padding, self.dilation, strict=True
            )
        )

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one image."""
        return math.prod(self.weight_shape) * math.prod(self.output_spatial)

    def input_shape(self, batch: int = 1, data_format: str = "channels_first") -> tuple[int, ...]:
        """Shape of the input for a batch in ``"channels_first"`` or ``"channels_last"``."""
        if data_format == "channels_last":
            return (batch, *self.spatial, self.in_channels)
        return (batch, self.in_channels, *self.spatial)


Axes = int | tuple[int, ...]


def _conv(
    block: str,
    spatial: Axes,
    in_channels: int,
    out_channels: int,
    kernel: Axes,
    stride: Axes = 1,
    *,
    padding: Axes | None = None,
    dilation: Axes = 1,
    groups: int = 1,
    count: int = 1,
) -> Layer:
    """Describe a layer: ints are squares, and the default padding keeps the size at stride 1."""
    rank = len(spatial) if isinstance(spatial, tuple) else 2

    def axes(value: Axes) -> tuple[int, ...]:
        return value if isinstance(value, tuple) else (value,) * rank

    kernel, dilation = axes(kernel), axes(dilation)
    if padding is None:
        padding = tuple(d * (k - 1) // 2 for k, d in zip(kernel, dilation, strict=True))
    return Layer(
        name=f"{block}.{'x'.join(map(str, kernel))}",
        network="",
        spatial=axes(spatial),
        in_channels=in_channels,
        out_channels=out_channels,
        kernel=kernel,
        stride=axes(stride),
        padding=axes(padding),
        dilation=dilation,
        groups=groups,
        count=count,
    )


def _depthwise(
    block: str, spatial: Axes, channels: int, kernel: Axes, stride: Axes = 1, *, count: int = 1
) -> Layer:
    return _conv(block, spatial, channels, channels, kernel, stride, groups=channels, count=count)


def _network(name: str, layers: Iterable[Layer]) -> list[Layer]:
    """Name the layers after their network and merge those of equal geometry."""
    distinct: dict[Layer, Layer] = {}
    for layer in layers:
        geometry = replace(layer, name="", count=0)
        known = distinct.get(geometry)
        distinct[geometry] = (
            replace(known, count=known.count + layer.count)
            if known
            else replace(layer, name=f"{name}.{layer.name}", network=name)
        )
    return list(distinct.values())


_ALEXNET = (  # the single-tower variant of torchvision
    _conv("conv1", 224, 3, 64, 11, 4, padding=2),
    _conv("conv2", 27, 64, 192, 5),
    _conv("conv3", 13, 192, 384, 3),
    _conv("conv4", 13, 384, 256, 3),
    _conv("conv5", 13, 256, 256, 3),
)

_ALEXNET_2012 = (  # two towers, the first grouped convolution
    _conv("conv1", 227, 3, 96, 11, 4, padding=0),
    _conv("conv2", 27, 96, 256, 5, groups=2),
    _conv("conv3", 13, 256, 384, 3),
    _conv("conv4", 13, 384, 384, 3, groups=2),
    _conv("conv5", 13, 384, 256, 3, groups=2),
)

_VGG16 = (
    _conv("conv1_1", 224, 3, 64, 3),
    _conv("conv1_2", 224, 64, 64, 3),
    _conv("conv2_1", 112, 64, 128, 3),
    _conv("conv2_2", 112, 128, 128, 3),
    _conv("conv3_1", 56, 128, 256, 3),
    _conv("conv3_2", 56, 256, 256, 3, count=2),
    _conv("conv4_1", 28, 256, 512, 3),
    _conv("conv4_2", 28, 512, 512, 3, count=2),
    _conv("conv5_1", 14, 512, 512, 3, count=3),
)


def _resnet(
    blocks: Sequence[int] = (3, 4, 6, 3), width: int = 64, groups: int = 1
) -> Iterator[Layer]:
    """List a ResNet or ResNeXt; the 3x3 convolution carries the stride."""
    yield _conv("conv1", 224, 3, 64, 7, 2)
    channels, size = 64, 56
    for stage, count in enumerate(blocks):
        stride = 1 if stage == 0 else 2
        inner, outer = width << stage, 256 << stage
        first, rest = f"conv{stage + 2}_1", f"conv{stage + 2}_x"
        yield _conv(f"{first}.reduce", size, channels, inner, 1)
        if stage > 0:
            yield _conv(first, size, inner, inner, 3, 2, groups=groups)
        reduced = size // stride
        yield _conv(rest, reduced, inner, inner, 3, groups=groups, count=count - (stage > 0))
        yield _conv(f"{rest}.expand", reduced, inner, outer, 1, count=count)
        yield _conv(f"{rest}.reduce", reduced, outer, inner, 1, count=count - 1)
        yield _conv(f"{first}.shortcut", size, channels, outer, 1, stride)
        channels, size = outer, reduced


def _inception_v1() -> Iterator[Layer]:
    yield _conv("conv1", 224, 3, 64, 7, 2)
    yield _conv("conv2.reduce", 56, 64, 64, 1)
    yield _conv("conv2", 56, 64, 192, 3)
    # block, size, in, 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool projection
    modules = (
        ("3a", 28, 192, 64, 96, 128, 16, 32, 32),
        ("3b", 28, 256, 128, 128, 192, 32, 96, 64),
        ("4a", 14, 480, 192, 96, 208, 16, 48, 64),
        ("4b", 14, 512, 160, 112, 224, 24, 64, 64),
        ("4c", 14, 512, 128, 128, 256, 24, 64, 64),
        ("4d", 14, 512, 112, 144, 288, 32, 64, 64),
        ("4e", 14, 528, 256, 160, 320, 32, 128, 128),
        ("5a", 7, 832, 256, 160, 320, 32, 128, 128),
        ("5b", 7, 832, 384, 192, 384, 48, 128, 128),
    )
    for block, size, channels, one, reduce3, three, reduce5, five, pool in modules:
        yield _conv(f"{block}.branch1", size, channels, one, 1)
        yield _conv(f"{block}.reduce3", size, channels, reduce3, 1)
        yield _conv(f"{block}.branch3", size, reduce3, three, 3)
        yield _conv(f"{block}.reduce5", size, channels, reduce5, 1)
        yield _conv(f"{block}.branch5", size, reduce5, five, 5)
        yield _conv(f"{block}.pool", size, channels, pool, 1)


def _inception_v3() -> Iterator[Layer]:
    yield _conv("stem1", 299, 3, 32, 3, 2, padding=0)
    yield _conv("stem2", 149, 32, 32, 3, padding=0)
    yield _conv("stem3", 147, 32, 64, 3)
    yield _conv("stem4", 73, 64, 80, 1)
    yield _conv("stem5", 73, 80, 192, 3, padding=0)
    for block, channels, pool in (("5b", 192, 32), ("5c", 256, 64), ("5d", 288, 64)):
        yield _conv(f"{block}.branch1", 35, channels, 64, 1)
        yield _conv(f"{block}.reduce5", 35, channels, 48, 1)
        yield _conv(f"{block}.branch5", 35, 48, 64, 5)
        yield _conv(f"{block}.reduce_double", 35, channels, 64, 1)
        yield _conv(f"{block}.double1", 35, 64, 96, 3)
        yield _conv(f"{block}.double2", 35, 96, 96, 3)
        yield _conv(f"{block}.pool", 35, channels, pool, 1)
    yield _conv("6a.branch3", 35, 288, 384, 3, 2, padding=0)
    yield _conv("6a.reduce_double", 35, 288, 64, 1)
    yield _conv("6a.double1", 35, 64, 96, 3)
    yield _conv("6a.double2", 35, 96, 96, 3, 2, padding=0)
    for block, inner in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
        yield _conv(f"{block}.branch1", 17, 768, 192, 1, count=2)
        yield _conv(f"{block}.reduce7", 17, 768, inner, 1, count=2)
        yield _conv(f"{block}.row", 17, inner, inner, (1, 7), count=2)
        yield _conv(f"{block}.column", 17, inner, inner, (7, 1), count=2)
        yield _conv(f"{block}.column_out", 17, inner, 192, (7, 1))
        yield _conv(f"{block}.row_out", 17, inner, 192, (1, 7))
    yield _conv("7a.reduce", 17, 768, 192, 1, count=2)
    yield _conv("7a.branch3", 17, 192, 320, 3, 2, padding=0)
    yield _conv("7a.row", 17, 192, 192, (1, 7))
    yield _conv("7a.column", 17, 192, 192, (7, 1))
    yield _conv("7a.branch7", 17, 192, 192, 3, 2, padding=0)
    for block, channels in (("7b", 1280), ("7c", 2048)):
        yield _conv(f"{block}.branch1", 8, channels, 320, 1)
        yield _conv(f"{block}.reduce3", 8, channels, 384, 1)
        yield _conv(f"{block}.row", 8, 384, 384, (1, 3), count=2)
        yield _conv(f"{block}.column", 8, 384, 384, (3, 1), count=2)
        yield _conv(f"{block}.reduce_double", 8, channels, 448, 1)
        yield _conv(f"{block}.double", 8, 448, 384, 3)
        yield _conv(f"{block}.pool", 8, channels, 192, 1)


def _densenet121() -> Iterator[Layer]:
    growth = 32
    yield _conv("conv1", 224, 3, 64, 7, 2)
    channels, size = 64, 56
    blocks = (6, 12, 24, 16)
    for block, count in enumerate(blocks, start=1):
        for index in range(1, count + 1):
            yield _conv(f"block{block}_{index}.reduce", size, channels, 4 * growth, 1)
            yield _conv(f"block{block}", size, 4 * growth, growth, 3)
            channels += growth
        if block < len(blocks):
            yield _conv(f"transition{block}", size, channels, channels // 2, 1)
            channels, size = channels // 2, size // 2


def _mobilenet_v1() -> Iterator[Layer]:
    yield _conv("conv1", 224, 3, 32, 3, 2)
    channels, size = 32, 112
    rows = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2))
    for index, (outputs, stride) in enumerate((*rows, *((512, 1),) * 5, (1024, 2), (1024, 1)), 1):
        yield _depthwise(f"depthwise{index}", size, channels, 3, stride)
        size //= stride
        yield _conv(f"pointwise{index}", size, channels, outputs, 1)
        channels = outputs


def _inverted_residuals(
    channels: int, rows: Iterable[tuple[int, int, int, int]], head: int
) -> Iterator[Layer]:
    """List a MobileNet-like network from rows of (kernel, expanded, out channels, stride)."""
    yield _conv("stem", 224, 3, channels, 3, 2)
    size = 112
    for index, (kernel, expanded, outputs, stride) in enumerate(rows, 1):
        if expanded != channels:
            yield _conv(f"block{index}.expand", size, channels, expanded, 1)
        yield _depthwise(f"block{index}.depthwise", size, expanded, kernel, stride)
        size = -(-size // stride)
        yield _conv(f"block{index}.project", size, expanded, outputs, 1)
        channels = outputs
    yield _conv("head", size, channels, head, 1)


def _repeated(
    channels: int, stages: Iterable[tuple[int, int, int, int, int]]
) -> Iterator[tuple[int, int, int, int]]:
    """Make such rows from stages of (kernel, expansion, out channels, repeats, stride)."""
    for kernel, expansion, outputs, repeats, stride in stages:
        for index in range(repeats):
            yield kernel, expansion * channels, outputs, stride if index == 0 else 1
            channels = outputs


_MOBILENET_V2_STAGES = (
    (3, 1, 16, 1, 1),
    (3, 6, 24, 2, 2),
    (3, 6, 32, 3, 2),
    (3, 6, 64, 4, 2),
    (3, 6, 96, 3, 1),
    (3, 6, 160, 3, 2),
    (3, 6, 320, 1, 1),
)

_MOBILENET_V3_LARGE_ROWS = (
    (3, 16, 16, 1),
    (3, 64, 24, 2),
    (3, 72, 24, 1),
    (5, 72, 40, 2),
    (5, 120, 40, 1),
    (5, 120, 40, 1),
    (3, 240, 80, 2),
    (3, 200, 80, 1),
    (3, 184, 80, 1),
    (3, 184, 80, 1),
    (3, 480, 112, 1),
    (3, 672, 112, 1),
    (5, 672, 160, 2),
    (5, 960, 160, 1),
    (5, 960, 160, 1),
)

_EFFICIENTNET_B0_STAGES = (
    (3, 1, 16, 1, 1),
    (3, 6, 24, 2, 2),
    (5, 6, 40, 2, 2),
    (3, 6, 80, 3, 2),
    (5, 6, 112, 3, 1),
    (5, 6, 192, 4, 2),
    (3, 6, 320, 1, 1),
)


def _regnet_x_1_6gf() -> Iterator[Layer]:
    group_width = 24
    yield _conv("stem", 224, 3, 32, 3, 2)
    channels, size = 32, 112
    for stage, (width, depth) in enumerate(zip((72, 168, 408, 912), (2, 4, 10, 2), strict=True), 1):
        groups = width // group_width
        yield _conv(f"stage{stage}_1.shortcut", size, channels, width, 1, 2)
        yield _conv(f"stage{stage}_1.reduce", size, channels, width, 1)
        yield _conv(f"stage{stage}_1", size, width, width, 3, 2, groups=groups)
        size //= 2
        yield _conv(f"stage{stage}_x", size, width, width, 3, groups=groups, count=depth - 1)
        yield _conv(f"stage{stage}_x.pointwise", size, width, width, 1, count=2 * depth - 1)
        channels = width


def _shufflenet_v1_g3() -> Iterator[Layer]:
    yield _conv("conv1", 224, 3, 24, 3, 2)
    channels, size = 24, 56
    # out channels, units, groups of the first convolution: the stem's 24 channels are too few
    stages = ((240, 4, 1), (480, 8, 3), (960, 4, 3))
    for stage, (outputs, count, groups) in enumerate(stages, start=2):
        inner, first, rest = outputs // 4, f"stage{stage}_1", f"stage{stage}_x"
        yield _conv(f"{first}.reduce", size, channels, inner, 1, groups=groups)
        yield _depthwise(f"{first}.depthwise", size, inner, 3, 2)
        size //= 2
        # The pooled input is concatenated, so the first unit adds only the missing channels.
        yield _conv(f"{first}.expand", size, inner, outputs - channels, 1, groups=3)
        yield _conv(f"{rest}.reduce", size, outputs, inner, 1, groups=3, count=count - 1)
        yield _depthwise(f"{rest}.depthwise", size, inner, 3, count=count - 1)
        yield _conv(f"{rest}.expand", size, inner, outputs, 1, groups=3, count=count - 1)
        channels = outputs


def _xception() -> Iterator[Layer]:
    def separable(block: str, size: int, channels: int, outputs: int) -> Iterator[Layer]:
        yield _depthwise(f"{block}.depthwise", size, channels, 3)
        yield _conv(f"{block}.pointwise", size, channels, outputs, 1)

    yield _conv("conv1", 299, 3, 32, 3, 2, padding=0)
    yield _conv("conv2", 149, 32, 64, 3, padding=0)
    channels, size = 64, 147
    for index, outputs in enumerate((128, 256, 728), 1):
        yield from separable(f"entry{index}_1", size, channels, outputs)
        yield from separable(f"entry{index}_2", size, outputs, outputs)
        yield _conv(f"entry{index}.shortcut", size, channels, outputs, 1, 2)
        channels, size = outputs, -(-size // 2)
    for _ in range(8 * 3):
        yield from separable("middle", 19, 728, 728)
    yield from separable("exit1", 19, 728, 728)
    yield from separable("exit2", 19, 728, 1024)
    yield _conv("exit.shortcut", 19, 728, 1024, 1, 2)
    yield from separable("exit3", 10, 1024, 1536)
    yield from separable("exit4", 10, 1536, 2048)


def _convnext_tiny() -> Iterator[Layer]:
    yield _conv("stem", 224, 3, 96, 4, 4, padding=0)
    size = 56
    for stage, count in enumerate((3, 3, 9, 3), 1):
        width = 96 << (stage - 1)
        if stage > 1:
            yield _conv(f"downsample{stage}", 2 * size, width // 2, width, 2, 2, padding=0)
        yield _depthwise(f"stage{stage}.depthwise", size, width, 7, count=count)
        yield _conv(f"stage{stage}.expand", size, width, 4 * width, 1, count=count)
        yield _conv(f"stage{stage}.project", size, 4 * width, width, 1, count=count)
        size //= 2


def _unet() -> Iterator[Layer]:
    """List the original unpadded network on 572x572, without its transposed convolutions."""
    channels, size = 1, 572
    for level, outputs in enumerate((64, 128, 256, 512, 1024), 1):
        yield _conv(f"down{level}_1", size, channels, outputs, 3, padding=0)
        yield _conv(f"down{level}_2", size - 2, outputs, outputs, 3, padding=0)
        channels, size = outputs, (size - 4) // 2
    for level, size in ((4, 56), (3, 104), (2, 200), (1, 392)):
        outputs = 32 << level
        yield _conv(f"up{level}_1", size, 2 * outputs, outputs, 3, padding=0)
        yield _conv(f"up{level}_2", size - 2, outputs, outputs, 3, padding=0)
    yield _conv("out", 388, 64, 2, 1)


def _darknet53() -> Iterator[Layer]:
    """List the backbone of YOLOv3, at its 416x416."""
    yield _conv("conv1", 416, 3, 32, 3)
    size = 416
    for stage, count in enumerate((1, 2, 8, 8, 4), 1):
        width = 32 << stage
        yield _conv(f"down{stage}", size, width // 2, width, 3, 2)
        size //= 2
        yield _conv(f"stage{stage}.reduce", size, width, width // 2, 1, count=count)
        yield _conv(f"stage{stage}", size, width // 2, width, 3, count=count)


_HRNET_W32 = (  # the branches and exchange paths of stage 4, not the whole network
    *(_conv(f"branch{i + 1}", 56 >> i, 32 << i, 32 << i, 3) for i in range(4)),
    _conv("fuse1_2", 56, 32, 64, 3, 2),
    _conv("fuse2_1", 28, 64, 32, 1),
)

_DEEPLAB_V2 = (  # the dilated layers on top of VGG-16 at output stride 8
    _conv("conv5", 28, 512, 512, 3, dilation=2, count=3),
    *(_conv(f"aspp{rate}", 28, 512, 1024, 3, dilation=rate) for rate in (6, 12, 18, 24)),
    _conv("aspp.fc7", 28, 1024, 1024, 1, count=4),
)

_DEEPLAB_V3 = (  # the dilated layers on top of ResNet-50 at output stride 16
    _conv("conv5_x", 32, 512, 512, 3, dilation=2, count=2),
    *(_conv(f"aspp{rate}", 32, 2048, 256, 3, dilation=rate) for rate in (6, 12, 18)),
    _conv("aspp.pointwise", 32, 2048, 256, 1),
)

_SRCNN = (  # the 9-5-5 variant on an interpolated 256x256 image
    _conv("extract", 256, 1, 64, 9),
    _conv("map", 256, 64, 32, 5),
    _conv("reconstruct", 256, 32, 1, 5),
)

_ESPCN = (  # times 3
    _conv("conv1", 128, 1, 64, 5),
    _conv("conv2", 128, 64, 32, 3),
    _conv("conv3", 128, 32, 9, 3),
)

_EDSR = (  # the baseline of 16 blocks, times 2
    _conv("head", 128, 3, 64, 3),
    _conv("body", 128, 64, 64, 3, count=33),
    _conv("upsample", 128, 64, 256, 3),
    _conv("tail", 256, 64, 3, 3),
)

_VIT_B16 = (_conv("stem", 224, 3, 768, 16, 16, padding=0),)

_IMAGE = (  # filters of image processing
    _depthwise("blur_rgb", 512, 3, 5),
    _conv("gaussian", 512, 1, 1, 7),
    _conv("color", 6, 4, 2, 1),  # so small that little but the call counts
)

_WAVENET = (  # one second of 16 kHz speech; the causal padding is already in the input
    *(
        _conv(f"dilated{d}", (16000 + d,), 128, 256, 2, padding=0, dilation=d, count=2)
        for d in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
    ),
    _conv("residual", (16000,), 128, 128, 1, count=20),
)

_WAV2VEC2 = (
    _conv("conv1", (16000,), 1, 512, 10, 5, padding=0),
    _conv("conv2", (3199,), 512, 512, 3, 2, padding=0),
    _conv("position", (49,), 768, 768, 128, padding=64, groups=16),
)

_WHISPER_BASE = (
    _conv("conv1", (3000,), 80, 512, 3),
    _conv("conv2", (3000,), 512, 512, 3, 2),
)

_CONFORMER = (_depthwise("module", (400,), 256, 31),)

_C3D = (
    _conv("conv1", (16, 112, 112), 3, 64, 3),
    _conv("conv2", (16, 56, 56), 64, 128, 3),
    _conv("conv3_1", (8, 28, 28), 128, 256, 3),
    _conv("conv3_2", (8, 28, 28), 256, 256, 3),
    _conv("conv4_1", (4, 14, 14), 256, 512, 3),
    _conv("conv4_2", (4, 14, 14), 512, 512, 3),
    _conv("conv5_1", (2, 7, 7), 512, 512, 3, count=2),
)

_R2PLUS1D_18 = (  # the stem and the first stage
    _conv("stem.spatial", (16, 112, 112), 3, 45, (1, 7, 7), (1, 2, 2)),
    _conv("stem.temporal", (16, 56, 56), 45, 64, (3, 1, 1)),
    _conv("layer1.spatial", (16, 56, 56), 64, 144, (1, 3, 3), count=4),
    _conv("layer1.temporal", (16, 56, 56), 144, 64, (3, 1, 1), count=4),
)

_X3D_M = (_depthwise("res2.depthwise", (16, 56, 56), 54, 3),)

_NETWORKS: dict[str, Iterable[Layer]] = {
    "alexnet": _ALEXNET,
    "alexnet2012": _ALEXNET_2012,
    "vgg16": _VGG16,
    "resnet50": _resnet(),
    "inception_v1": _inception_v1(),
    "inception_v3": _inception_v3(),
    "densenet121": _densenet121(),
    "mobilenet_v1": _mobilenet_v1(),
    "mobilenet_v2": _inverted_residuals(32, _repeated(32, _MOBILENET_V2_STAGES), 1280),
    "mobilenet_v3": _inverted_residuals(16, _MOBILENET_V3_LARGE_ROWS, 960),
    "efficientnet_b0": _inverted_residuals(32, _repeated(32, _EFFICIENTNET_B0_STAGES), 1280),
    "resnext50_32x4d": _resnet(width=128, groups=32),
    "resnext101_32x8d": _resnet((3, 4, 23, 3), width=256, groups=32),
    "resnext101_64x4d": _resnet((3, 4, 23, 3), width=256, groups=64),
    "regnet_x_1_6gf": _regnet_x_1_6gf(),
    "shufflenet_v1_g3": _shufflenet_v1_g3(),
    "xception": _xception(),
    "convnext_tiny": _convnext_tiny(),
    "vit_b16": _VIT_B16,
    "darknet53": _darknet53(),
    "hrnet_w32": _HRNET_W32,
    "deeplab_v2": _DEEPLAB_V2,
    "deeplab_v3": _DEEPLAB_V3,
    "unet": _unet(),
    "srcnn": _SRCNN,
    "espcn": _ESPCN,
    "edsr": _EDSR,
    "image": _IMAGE,
    "wavenet": _WAVENET,
    "wav2vec2": _WAV2VEC2,
    "whisper_base": _WHISPER_BASE,
    "conformer": _CONFORMER,
    "c3d": _C3D,
    "r2plus1d_18": _R2PLUS1D_18,
    "x3d_m": _X3D_M,
}

WORKLOADS: tuple[Layer, ...] = tuple(
    layer for name, layers in _NETWORKS.items() for layer in _network(name, layers)
)
"""Every layer, network by network."""

BENCH_DEFAULT = (
    "vgg16.conv3_2.3x3",
    "resnet50.conv1.7x7",
    "resnet50.conv2_x.3x3",
    "resnet50.conv3_x.expand.1x1",
    "resnet50.conv5_x.3x3",
    "inception_v1.3b.branch5.5x5",
    "resnext50_32x4d.conv3_x.3x3",
    "mobilenet_v1.depthwise3.3x3",
    "mobilenet_v1.pointwise3.1x1",
    "convnext_tiny.stage1.depthwise.7x7",
    "shufflenet_v1_g3.stage3_x.reduce.1x1",
    "edsr.tail.3x3",
    "wavenet.dilated16.2",
)
"""A dozen names, one per kind of layer."""

COMPARE_DEFAULT = (
    "alexnet.conv1.11x11",
    "alexnet2012.conv2.5x5",
    "vgg16.conv1_2.3x3",
    "vgg16.conv3_2.3x3",
    "vgg16.conv4_2.3x3",
    "resnet50.conv1.7x7",
    "resnet50.conv2_x.3x3",
    "resnet50.conv3_x.3x3",
    "resnet50.conv4_x.3x3",
    "resnet50.conv5_x.3x3",
    "resnet50.conv3_1.3x3",
    "resnet50.conv2_x.reduce.1x1",
    "resnet50.conv5_x.expand.1x1",
    "resnet50.conv4_1.shortcut.1x1",
    "inception_v1.3a.reduce5.1x1",
    "inception_v1.3a.branch5.5x5",
    "inception_v3.6b.row.1x7",
    "densenet121.block2.3x3",
    "resnext50_32x4d.conv2_x.3x3",
    "resnext50_32x4d.conv3_x.3x3",
    "resnext50_32x4d.conv4_x.3x3",
    "resnext50_32x4d.conv5_x.3x3",
    "resnext101_32x8d.conv3_x.3x3",
    "resnext101_64x4d.conv4_x.3x3",
    "regnet_x_1_6gf.stage3_x.3x3",
    "shufflenet_v1_g3.stage3_x.reduce.1x1",
    "mobilenet_v1.depthwise1.3x3",
    "mobilenet_v1.pointwise3.1x1",
    "mobilenet_v2.block3.depthwise.3x3",
    "mobilenet_v2.block8.depthwise.3x3",
    "efficientnet_b0.block4.depthwise.5x5",
    "convnext_tiny.stem.4x4",
    "convnext_tiny.stage1.depthwise.7x7",
    "vit_b16.stem.16x16",
    "darknet53.down3.3x3",
    "deeplab_v2.conv5.3x3",
    "deeplab_v2.aspp12.3x3",
    "unet.up3_2.3x3",
    "srcnn.extract.9x9",
    "edsr.body.3x3",
    "edsr.tail.3x3",
    "image.blur_rgb.5x5",
    "wavenet.dilated16.2",
    "c3d.conv3_2.3x3x3",
)
"""The names that stand for every kind of layer in the published tables."""


def select(patterns: Iterable[str], layers: Sequence[Layer] = WORKLOADS) -> list[Layer]:
    """Return the layers whose name matches any pattern, in the order of `layers`.

    Parameters
    ----------
    patterns : iterable of str
        Full names; globs such as ``"resnet50.*.3x3"``; or any part of a name.
    layers : sequence of Layer
        Where to look.

    Raises
    ------
    ValueError
        If a pattern matches nothing.

    Examples
    --------
    >>> [layer.name for layer in select(["vgg16.conv3_*"])]
    ['vgg16.conv3_1.3x3', 'vgg16.conv3_2.3x3']
    """
    chosen: set[str] = set()
    names = {layer.name for layer in layers}
    for pattern in patterns:
        if pattern in names:
            chosen.add(pattern)
            continue
        glob = pattern if any(mark in pattern for mark in "*?[") else f"*{pattern}*"
        matches = [name for name in names if fnmatchcase(name, glob)]
        if not matches:
            raise ValueError(f"no layer matches {pattern!r}; see `pyconv bench --list`")
        chosen.update(matches)
    return [layer for layer in layers if layer.name in chosen]


_SIZES = (7, 8, 10, 13, 14, 16, 19, 20, 26, 28, 32, 35, 38, 40, 48, 52, 56, 64, 80, 96, 112, 128)
_CHANNELS = (3, 8, 12, 16, 20, 24, 32, 40, 48, 64, 80, 96, 112, 128, 160, 192, 256, 320, 384, 512)
_MOST_CHANNELS = (768, 1024)
_GROUPS = (2, 3, 4, 8, 16, 32)
_PER_GROUP = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
_MACS = (1_000_000, 600_000_000)
_MOST_INPUTS = 3_000_000


def random_layers(count: int, seed: int = 0) -> list[Layer]:
    """Draw layers that no network has: where nobody has looked, nobody has tuned.

    Half of them are dense, a third depthwise and the others grouped, of 1 to 600 million
    multiply-accumulates.

    Parameters
    ----------
    count : int
        How many.
    seed : int
        The same layers for the same seed.

    Examples
    --------
    >>> layers = random_layers(20, seed=1)
    >>> len({layer.name for layer in layers}), {layer.network for layer in layers}
    (20, {'random'})
    """
    draw = random.Random(seed).choice
    layers: list[Layer] = []
    while len(layers) < count:
        layer = _draw_layer(draw, len(layers))
        fits = layer.in_channels * math.prod(layer.spatial) <= _MOST_INPUTS
        reaches = all(
            dilation * (kernel - 1) < size
            for dilation, kernel, size in zip(
                layer.dilation, layer.kernel, layer.spatial, strict=True
            )
        )
        if fits and reaches and _MACS[0] <= layer.macs <= _MACS[1]:
            layers.append(layer)
    return layers


def _draw_layer(draw: Callable[[Sequence[Any]], Any], number: int) -> Layer:
    kind = draw(("dense", "dense", "dense", "depthwise", "depthwise", "grouped"))
    height = draw(_SIZES)
    width = height * draw((2, 2, 2, 2, 1, 3, 4)) // 2
    if kind == "dense":
        kernel = draw((1, 1, 1, 3, 3, 3, 5, 7))
        groups, in_channels = 1, draw(_CHANNELS + _MOST_CHANNELS)
        out_channels = draw(_CHANNELS[1:])
    elif kind == "depthwise":
        kernel = draw((3, 3, 3, 4, 5, 5, 7, 9))
        groups = in_channels = draw(_CHANNELS[3:] + _MOST_CHANNELS)
        out_channels = in_channels * draw((1, 1, 1, 1, 2))
    else:
        kernel = draw((1, 3, 3, 5))
        groups = draw(_GROUPS)
        in_channels = groups * draw(_PER_GROUP)
        out_channels = draw((in_channels, in_channels, groups * draw(_PER_GROUP)))
    stride = draw((1, 1, 1, 2))
    dilation = draw((1, 1, 1, 1, 2, 3)) if stride == 1 and kernel > 1 else 1
    block = f"{number:03}.{kind}.{height}x{width}.{in_channels}-{out_channels}"
    for mark, value in (("g", groups), ("s", stride), ("d", dilation)):
        if value > 1 and not (mark == "g" and kind == "depthwise"):
            block += f".{mark}{value}"
    layer = _conv(
        block,
        (height, width),
        in_channels,
        out_channels,
        (kernel, kernel),
        stride,
        dilation=dilation,
        groups=groups,
    )
    return replace(layer, name=f"random.{layer.name}", network="random")
