"""The error of every Winograd algorithm against float64, as a multiple of direct float32's own.

Run ``python -m pyconv.benchmarks.accuracy``. ``"auto"`` may choose an algorithm whose largest and
whose root mean square error stay within 4 times those of direct accumulation, on every row.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import pyconv

__all__ = ["INPUTS", "WEIGHTS", "Error", "direct_and_other"]

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
"""Kinds of weight; "zero sum" holds for each 3x3 window, as in an edge detector."""

CHANNELS = (24, 32, 64, 256, 512, 2048)
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


def _weight(kind: str, channels: int, rng: np.random.Generator) -> Array:
    weight = rng.standard_normal((OUT_CHANNELS, channels, 3, 3)) / np.sqrt(9 * channels)
    match kind:
        case "positive":
            weight = np.abs(weight)
        case "zero sum":
            weight -= weight.mean((2, 3), keepdims=True)
    return np.asarray(weight, np.float32)


def direct_and_other(
    algorithm: str, values: str, weights: str, channels: int
) -> tuple[Error, Error]:
    """Measure direct float32 accumulation, and `algorithm`, against float64.

    Parameters
    ----------
    algorithm : str
        A name from `pyconv.algorithms`.
    values, weights : str
        One of `INPUTS`, one of `WEIGHTS`.
    channels : int
        Input channels.
    """
    rng = np.random.default_rng(0)
    x, weight = _input(values, channels, rng), _weight(weights, channels, rng)
    # The error of float64 is 2**-29 of that of float32 in any order of summation.
    exact = pyconv.conv2d(x.astype(np.float64), weight.astype(np.float64), algorithm="im2col_gemm")
    largest = np.abs(exact).max()

    def error(name: str) -> Error:
        e = pyconv.conv2d(x, weight, algorithm=name) - exact
        return Error(float(np.abs(e).max() / largest), float(np.sqrt((e**2).mean()) / largest))

    return error("im2col_gemm"), error(algorithm)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; the exit code is 1 if a row is out of bounds."""
    names = [name for name in pyconv.algorithms() if name.startswith("winograd")]
    head = "max and rms error over max |y|: of direct, and of each algorithm as a multiple of it"
    print(head)
    print(f"{'channels':>8} {'weights':10}{'input':18}{'direct':>16}", *(f"{n:>18}" for n in names))
    within = True
    for channels in CHANNELS:
        for weights in WEIGHTS:
            for values in INPUTS:
                cells = []
                for name in names:
                    direct, other = direct_and_other(name, values, weights, channels)
                    ratios = other.largest / direct.largest, other.rms / direct.rms
                    within &= max(ratios) <= 4
                    cells.append(f"{ratios[0]:12.2f}{ratios[1]:6.2f}")
                measured = f"{direct.largest:9.1e}{direct.rms:8.1e}"
                print(f"{channels:8} {weights:10}{values:18}{measured:>17}", *cells)
    return 0 if within else 1


if __name__ == "__main__":
    sys.exit(main())
