"""The error of every Winograd algorithm against float64, as a multiple of direct float32's own.

Run ``python -m pyconv.benchmarks.accuracy``. ``"auto"`` may choose an algorithm whose largest and
whose root mean square error stay within 4 times those of direct accumulation, on every row.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import pyconv

__all__ = ["INPUTS", "KINDS", "WEIGHTS", "Error", "channel_counts", "direct_and_other"]

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
    ("winograd_4x4_3x3", 3, 1),
    ("winograd_3x3_4x4", 4, 1),
    ("winograd_2x2_5x5", 5, 1),
    ("winograd_4x4_3x3", 5, 2),
    ("winograd_3x3_4x4", 8, 2),
    ("winograd_2x2_5x5", 9, 2),
)
"""Algorithm, kernel size and stride."""

CHANNELS = (16, 24, 32, 64, 256, 512, 2048)
OUT_CHANNELS = 32
SIZE = 18


@dataclass(frozen=True)
class Error:
    """Largest and root mean square error, as a share of the largest output."""

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


def _weight(kind: str, channels: int, kernel: int, rng: np.random.Generator) -> Array:
    shape = (OUT_CHANNELS, channels, kernel, kernel)
    weight = rng.standard_normal(shape) / np.sqrt(kernel * kernel * channels)
    match kind:
        case "positive":
            weight = np.abs(weight)
        case "zero sum":
            weight -= weight.mean((2, 3), keepdims=True)
    return np.asarray(weight, np.float32)


def channel_counts(kernel: int, stride: int) -> list[int]:
    """Return input channels of which ``"auto"`` may choose Winograd: 24 or 16 to 4096 / stride²."""
    fewest = 24 if (kernel, stride) == (3, 1) else 16
    return [channels for channels in CHANNELS if fewest <= channels <= 4096 // stride**2]


def direct_and_other(
    algorithm: str, kernel: int, stride: int, values: str, weights: str, channels: int
) -> tuple[Error, Error]:
    """Measure direct float32 accumulation, and `algorithm`, against float64.

    Parameters
    ----------
    algorithm : str
        A name from `pyconv.algorithms`.
    kernel, stride : int
        Of both axes.
    values, weights : str
        One of `INPUTS`, one of `WEIGHTS`.
    channels : int
        Input channels.
    """
    rng = np.random.default_rng(0)
    x, weight = _input(values, channels, rng), _weight(weights, channels, kernel, rng)
    # The error of float64 is 2**-29 of that of float32 in any order of summation.
    exact = pyconv.conv2d(
        x.astype(np.float64), weight.astype(np.float64), stride=stride, algorithm="im2col_gemm"
    )
    largest = np.abs(exact).max()

    def error(name: str) -> Error:
        e = pyconv.conv2d(x, weight, stride=stride, algorithm=name) - exact
        return Error(float(np.abs(e).max() / largest), float(np.sqrt((e**2).mean()) / largest))

    return error("im2col_gemm"), error(algorithm)


def main() -> int:
    """Print the tables; the exit code is 1 if a row is out of bounds."""
    within = True
    print("max and rms error over max |y|: of direct, and of Winograd as a multiple of it")
    for name, kernel, stride in KINDS:
        print(f"\n{name}, {kernel}x{kernel} kernels at stride {stride}")
        print(f"{'channels':>8} {'weights':10}{'input':18}{'direct':>16}{'Winograd':>18}")
        for channels in channel_counts(kernel, stride):
            worst = [0.0, 0.0]
            for weights in WEIGHTS:
                for values in INPUTS:
                    direct, other = direct_and_other(
                        name, kernel, stride, values, weights, channels
                    )
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
