"""The error of Winograd against float64, as a multiple of direct float32's own.

Run ``python -m pyconv.benchmarks.accuracy``. ``"auto"`` may choose an algorithm whose largest and
whose root mean square error, over a few images of a kind, stay within 4 times those of direct
accumulation, on every row. (Of one image a few outputs may decide the largest error of either.)
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import pyconv

__all__ = ["INPUTS", "KINDS", "WEIGHTS", "Error", "channel_counts", "direct_and_winograd"]

Array = NDArray[Any]

INPUTS = (
    "normal",
    "relu",
    "constant",
    "constant channels",
    "mean 10",
    "mean 1e4",
    "large range",
    "ramp",
    "spikes",
)
"""Kinds of input; large means and constants cancel against weights of zero sum."""

WEIGHTS = ("normal", "positive", "zero sum")
"""Kinds of weight; "zero sum" holds for each window, as in an edge detector."""

KINDS = (
    ((3, 3), 1),
    ((4, 4), 1),
    ((5, 5), 1),
    ((7, 7), 1),
    ((4, 4), 2),
    ((5, 5), 2),
    ((7, 7), 2),
    ((1, 3), 1),
    ((5, 1), 1),
    ((1, 7), 1),
)
"""Kernel and stride."""

CHANNELS = (8, 16, 24, 32, 64, 256, 512, 2048)
OUT_CHANNELS = 32
SIZE = 21  # whole tiles and those of fewer outputs
IMAGES = 4


@dataclass(frozen=True)
class Error:
    """Largest and root mean square error, as a share of the largest output of each image."""

    largest: float
    rms: float


def _input(kind: str, channels: int, rng: np.random.Generator) -> Array:
    shape = (1, channels, SIZE, SIZE)
    x = rng.standard_normal(shape)
    match kind:
        case "relu":
            x = np.maximum(x, 0)
        case "constant":
            x = np.full(shape, 0.7371)
        case "constant channels":
            x = np.broadcast_to(rng.standard_normal((1, channels, 1, 1)), shape)
        case "mean 10":
            x += 10
        case "mean 1e4":
            x += 1e4
        case "large range":
            x *= np.exp(rng.uniform(-9, 9, shape))
        case "ramp":
            x = 0.1 * x + np.arange(SIZE)
        case "spikes":
            x[rng.uniform(size=shape) < 0.002] *= 1e4
    return np.asarray(x, np.float32)


def _weight(kind: str, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    weight = rng.standard_normal(shape)
    weight /= np.sqrt(np.prod(shape[1:]))
    match kind:
        case "positive":
            weight = np.abs(weight)
        case "zero sum":
            weight -= weight.mean((2, 3), keepdims=True)
    return np.asarray(weight, np.float32)


def channel_counts(kernel: tuple[int, int], stride: int) -> list[int]:
    """Return input channels of which ``"auto"`` may choose Winograd.

    Kernels of 7x7, and strides of 2, divide them among four parts of the kernel.
    """
    large = min(kernel) >= 7
    most = 1024 if large or stride == 2 else 4096
    return [channels for channels in CHANNELS if (8 if large else 16) <= channels <= most]


def direct_and_winograd(
    kernel: tuple[int, int],
    stride: int,
    values: str,
    weights: str,
    channels: int,
    out_channels: int = OUT_CHANNELS,
) -> tuple[Error, Error]:
    """Measure direct float32 accumulation, and Winograd, against float64.

    Parameters
    ----------
    kernel, stride : tuple of int, int
        Of the convolution.
    values, weights : str
        One of `INPUTS`, one of `WEIGHTS`.
    channels, out_channels : int
        Input and output channels.
    """
    errors: dict[str, list[Array]] = {"im2col_gemm": [], "winograd": []}
    for image in range(IMAGES):
        rng = np.random.default_rng(image)
        x = _input(values, channels, rng)
        weight = _weight(weights, (out_channels, channels, *kernel), rng)
        # The error of float64 is 2**-29 of that of float32 in any order of summation.
        exact = pyconv.conv2d(
            x.astype(np.float64), weight.astype(np.float64), stride=stride, algorithm="im2col_gemm"
        )
        for name, of_images in errors.items():
            y = pyconv.conv2d(x, weight, stride=stride, algorithm=name)
            of_images.append((y - exact) / np.abs(exact).max())

    def error(name: str) -> Error:
        e = np.stack(errors[name])
        return Error(float(np.abs(e).max()), float(np.sqrt((e**2).mean())))

    return error("im2col_gemm"), error("winograd")


def main() -> int:
    """Print the tables; the exit code is 1 if a row is out of bounds."""
    within = True
    print("max and rms error over max |y|: of direct, and of Winograd as a multiple of it")
    for kernel, stride in KINDS:
        print(f"\n{kernel[0]}x{kernel[1]} kernels at stride {stride}")
        print(f"{'channels':>8} {'weights':10}{'input':18}{'direct':>16}{'Winograd':>18}")
        for channels in channel_counts(kernel, stride):
            worst = [0.0, 0.0]
            for weights in WEIGHTS:
                for values in INPUTS:
                    direct, other = direct_and_winograd(kernel, stride, values, weights, channels)
                    ratios = other.largest / direct.largest, other.rms / direct.rms
                    worst = [max(pair) for pair in zip(worst, ratios, strict=True)]
                    measured = f"{direct.largest:9.1e}{direct.rms:8.1e}"
                    cell = f"{ratios[0]:12.2f}{ratios[1]:6.2f}"
                    print(f"{channels:8} {weights:10}{values:18}{measured:>17}{cell}")
            print(f"{channels:8} {'worst':45}{worst[0]:12.2f}{worst[1]:6.2f}")
            within &= max(worst) <= 4
    return 0 if within else 1


if __name__ == "__main__":
    sys.exit(main())
