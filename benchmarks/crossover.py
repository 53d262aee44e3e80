"""Where Winograd pays: its time against the best direct algorithm's, over a grid of layers.

Run ``python -m pyconv.benchmarks.crossover``. The table marks the layers where the rule by which
``algorithm="auto"`` chooses Winograd and the clock disagree.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

import pyconv
from pyconv.benchmarks.accuracy import KINDS

__all__ = ["main"]

CHANNELS = (
    (16, 32),
    (24, 24),
    (32, 64),
    (64, 64),
    (64, 256),
    (128, 128),
    (256, 256),
    (256, 64),
    (512, 512),
)
OUTPUT_SIZES = (4, 7, 8, 10, 13, 14, 17, 20, 28, 35, 56)
MARGIN = 1.05
"""A choice that costs less than this factor is not called wrong."""


def best_time(call: Callable[[], object], seconds: float) -> float:
    """Return the least time of a call."""
    least = float("inf")
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        call()
        least = min(least, time.perf_counter() - start)
    return least


def speedup(
    kernel: tuple[int, int], stride: int, channels: tuple[int, int], size: int, seconds: float
) -> tuple[float, bool]:
    """Time one layer on one thread.

    Returns
    -------
    tuple of float and bool
        How many times faster Winograd is, and whether ``"auto"`` chooses it.
    """
    padding = tuple((taps - 1) // 2 for taps in kernel)
    sizes = ((size - 1) * stride + k - 2 * pad for k, pad in zip(kernel, padding, strict=True))
    x = np.ones((1, channels[0], *sizes), np.float32)
    weight = np.ones((channels[1], channels[0], *kernel), np.float32)

    def layer(algorithm: str) -> pyconv.Conv2d:
        return pyconv.Conv2d.from_weights(
            weight, stride=stride, padding=padding, algorithm=algorithm
        )

    times = []
    for conv in (layer("winograd"), layer("auto_direct")):
        out = conv(x, num_threads=1)
        times.append(best_time(partial(conv, x, out=out, num_threads=1), seconds))
    chosen = layer("auto").plan(x.shape).algorithm == "winograd"
    return times[1] / times[0], chosen


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=0.05, help="per layer and algorithm")
    arguments = parser.parse_args(argv)
    wrong = 0
    cost = 0.0
    print("speed-up of Winograd by size of the output; + where auto chooses it, ! where it errs")
    for kernel, stride in KINDS:
        print(
            f"\n{kernel[0]}x{kernel[1]} stride {stride}:  "
            + "".join(f"{s:>8}" for s in OUTPUT_SIZES)
        )
        for channels in CHANNELS:
            cells = []
            for size in OUTPUT_SIZES:
                ratio, chosen = speedup(kernel, stride, channels, size, arguments.seconds)
                loss = 1 / ratio if chosen else ratio
                wrong += loss > MARGIN
                cost = max(cost, loss)
                mark = ("+" if chosen else "") + ("!" if loss > MARGIN else "")
                cells.append(f"{ratio:6.2f}{mark:2}")
            print(f"{channels[0]:5} -> {channels[1]:4}   " + "".join(cells), flush=True)
    print(f"\n{wrong} choices cost more than {MARGIN:.2f} times the best; the worst {cost:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
