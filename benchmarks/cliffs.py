"""No cliffs: the time per multiply-accumulate of layers whose shapes differ by one.

Run ``python -m pyconv.benchmarks.cliffs --plot cliffs.png``. Each sweep varies one size of a layer,
through counts that fill vectors and counts that do not; a step is the time per multiply-accumulate
over that of the better neighbour.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np

import pyconv
from pyconv.benchmarks.crossover import best_time

__all__ = ["SWEEPS", "Sweep", "main", "steps"]

MARGIN = 1.5
"""A step of more than this factor is a cliff."""

FORMATS = ("channels_first", "channels_last")


@dataclass(frozen=True)
class Sweep:
    """Layers that differ in one size.

    Attributes
    ----------
    name : str
        What varies, and of what layer.
    values : iterable of int
        The sizes.
    layer : callable
        From a size to the arguments of `pyconv.Conv2d`, and the height and width of the input.
    """

    name: str
    values: Iterable[int]
    layer: Callable[[int], tuple[dict[str, Any], tuple[int, int]]]


def _grouped(groups: int, per_group: int, kernel: int = 3, outputs: int = 0) -> dict[str, Any]:
    return dict(
        in_channels=groups * per_group,
        out_channels=groups * (outputs or per_group),
        kernel_size=kernel,
        padding="same",
        groups=groups,
    )


SWEEPS = (
    Sweep("groups of 16 channels, 3x3 @28", range(1, 17), lambda n: (_grouped(n, 16), (28, 28))),
    Sweep(
        "channels of a group, 3x3 @28",
        range(2, 34),
        lambda n: (_grouped(max(2, 128 // n), n), (28, 28)),
    ),
    Sweep("depthwise channels, 3x3 @28", range(24, 73), lambda n: (_grouped(n, 1), (28, 28))),
    Sweep("depthwise kernel, 64 @28", range(3, 14), lambda n: (_grouped(64, 1, n), (28, 28))),
    Sweep(
        "depthwise multiplier, 48 3x3 @28",
        range(1, 9),
        lambda n: (_grouped(48, 1, outputs=n), (28, 28)),
    ),
    Sweep("depthwise width, 64 3x3", range(7, 72), lambda n: (_grouped(64, 1), (28, n))),
    Sweep("channels, 3x3 @14", range(24, 73), lambda n: (_grouped(1, n), (14, 14))),
    Sweep("channels, 1x1 @28", range(24, 73), lambda n: (_grouped(1, n, 1), (28, 28))),
    Sweep("width, 64 3x3", range(7, 72), lambda n: (_grouped(1, 64), (14, n))),
    Sweep("kernel, 32 @28", range(3, 12), lambda n: (_grouped(1, 32, n), (28, 28))),
)


def time_per_mac(sweep: Sweep, value: int, data_format: str, seconds: float) -> float:
    """Return picoseconds per multiply-accumulate of one layer on one thread."""
    arguments, size = sweep.layer(value)
    layer = pyconv.Conv2d(**arguments, data_format=data_format, rng=0)
    channels = arguments["in_channels"]
    shape = (1, channels, *size) if data_format == FORMATS[0] else (1, *size, channels)
    x = np.random.default_rng(0).standard_normal(shape, np.float32)
    out = layer(x, num_threads=1)
    call = partial(layer, x, out=out, num_threads=1)
    return best_time(call, seconds) / layer.plan(shape).macs * 1e12


def steps(times: list[float]) -> list[float]:
    """Divide each time by that of its better neighbour."""
    neighbours = (times[max(0, i - 1) : i] + times[i + 1 : i + 2] for i in range(len(times)))
    return [time / min(beside) for time, beside in zip(times, neighbours, strict=True)]


def plot(curves: dict[str, dict[str, list[float]]], path: str) -> None:
    """Draw one panel per sweep, one line per data format."""
    rows = -(-len(SWEEPS) // 2)
    new_figure = import_module("matplotlib.figure").Figure
    figure = new_figure(figsize=(12, 2.4 * rows), layout="constrained")
    for axes, sweep in zip(figure.subplots(rows, 2).flat, SWEEPS, strict=False):
        for data_format, times in curves[sweep.name].items():
            axes.plot(list(sweep.values), times, marker=".", linewidth=1, label=data_format)
        axes.set_title(sweep.name, fontsize="medium")
        axes.set_ylim(bottom=0)
        axes.set_ylabel("ps per MAC")
        axes.grid(alpha=0.3)
    figure.axes[0].legend()
    figure.savefig(path, dpi=120)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the largest steps of every sweep; the exit code is 1 if one is a cliff."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=0.03, help="per layer")
    parser.add_argument("--plot", metavar="PATH", help="draw the curves, with matplotlib")
    arguments = parser.parse_args(argv)
    curves: dict[str, dict[str, list[float]]] = {}
    cliffs = 0
    print(f"{'sweep':36}{'format':16}{'ps per MAC':>16}   largest steps")
    for sweep in SWEEPS:
        curves[sweep.name] = {}
        for data_format in FORMATS:
            # Twice, apart in time: what a busy neighbour slows once is not a step.
            passes = [
                [time_per_mac(sweep, n, data_format, arguments.seconds) for n in sweep.values]
                for _ in range(2)
            ]
            times = [min(pair) for pair in zip(*passes, strict=True)]
            curves[sweep.name][data_format] = times
            largest = sorted(zip(steps(times), sweep.values, strict=True), reverse=True)[:3]
            cliffs += largest[0][0] > MARGIN
            print(
                f"{sweep.name:36}{data_format:16}{min(times):7.1f} to {max(times):5.1f}   "
                + ", ".join(f"{step:.2f} at {n}" for step, n in largest),
                flush=True,
            )
    print(f"\n{cliffs} sweeps have a step of more than {MARGIN:.1f}")
    if arguments.plot:
        plot(curves, arguments.plot)
    return 1 if cliffs else 0


if __name__ == "__main__":
    sys.exit(main())
