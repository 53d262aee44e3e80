"""Layers of several convolutions in one pass, against pyconv's own calls one after the other.

Run ``python benchmarks/fused.py``. Weights are packed before, and every result is compared bit for
bit before it is timed. A speed-up is the median over rounds of the ratio within a round.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

import pyconv
from pyconv.benchmarks.timing import FmaProbe, measure
from pyconv.cli import positive

Array = NDArray[Any]
Pair = tuple[Callable[[], Array], Callable[[], Array], pyconv.Plan]

SEPARABLE = (
    # MobileNetV1: in_channels, out_channels, size, stride
    (32, 64, 112, 1),
    (64, 128, 112, 2),
    (128, 128, 56, 1),
    (128, 256, 56, 2),
    (256, 256, 28, 1),
    (256, 512, 28, 2),
    (512, 512, 14, 1),
    (512, 1024, 14, 2),
    (1024, 1024, 7, 1),
)
INVERTED = (
    # MobileNetV2, expansion 6
    (16, 24, 112, 2),
    (24, 24, 56, 1),
    (24, 32, 56, 2),
    (32, 32, 28, 1),
    (32, 64, 28, 2),
    (64, 64, 14, 1),
    (64, 96, 14, 1),
    (96, 96, 14, 1),
    (96, 160, 14, 2),
    (160, 160, 7, 1),
)


def _image(batch: int, channels: int, size: int, data_format: str) -> Array:
    shape = (batch, channels, size, size)
    if data_format == "channels_last":
        shape = (batch, size, size, channels)
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def _separable(case: tuple[int, ...], batch: int, data_format: str, threads: int) -> Pair:
    channels, out_channels, size, stride = case
    layer = pyconv.DepthwiseSeparableConv2d(
        channels,
        out_channels,
        3,
        stride,
        1,
        data_format=data_format,
        depthwise_activation="relu6",
        activation="relu6",
        rng=0,
    )
    x = _image(batch, channels, size, data_format)

    def apart() -> Array:
        middle = layer.depthwise(x, num_threads=threads)
        return layer.pointwise(middle, num_threads=threads)

    return lambda: layer(x, num_threads=threads), apart, layer.plan(x.shape)


def _inverted(case: tuple[int, ...], batch: int, data_format: str, threads: int) -> Pair:
    channels, out_channels, size, stride = case
    block = pyconv.InvertedResidual(
        channels, out_channels, 3, stride, data_format=data_format, rng=0
    )
    x = _image(batch, channels, size, data_format)
    residual = x if block.has_residual else None
    expand = block.expand
    assert expand is not None

    def apart() -> Array:
        middle = block.depthwise(expand(x, num_threads=threads), num_threads=threads)
        return block.project(middle, residual, num_threads=threads)

    return lambda: block(x, num_threads=threads), apart, block.plan(x.shape)


def main(argv: Sequence[str] | None = None) -> int:
    """Print one row per layer; the exit code is 1 if bits differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=positive, default=1)
    parser.add_argument("--threads", type=positive, default=1)
    parser.add_argument("--rounds", type=positive, default=21)
    formats = ("channels_first", "channels_last")
    parser.add_argument("--data-format", choices=formats, nargs="+", default=formats)
    options = parser.parse_args(argv)
    probe = FmaProbe(threads=options.threads)
    print(f"{'layer':34}{'format':16}{'one pass':>10}{'apart':>10}{'speed-up':>10}{'GFLOP/s':>9}")
    for kind, cases, make in (
        ("separable", SEPARABLE, _separable),
        ("inverted residual", INVERTED, _inverted),
    ):
        for case in cases:
            for data_format in options.data_format:
                fused, apart, plan = make(case, options.batch, data_format, options.threads)
                name = f"{kind} {case[0]}-{case[1]}@{case[2]} /{case[3]}"
                if fused().tobytes() != apart().tobytes():
                    print(f"{name}: the bits differ")
                    return 1
                rounds = measure({"fused": fused, "apart": apart}, probe, options.rounds)
                quiet, _ = rounds.split(probe.peak)
                best = quiet if len(quiet) else rounds
                seconds = best.time("fused").median
                print(
                    f"{name:34}{data_format:16}{seconds * 1e6:8.0f}us"
                    f"{best.time('apart').median * 1e6:8.0f}us"
                    f"{best.speedup('fused', 'apart').median:10.2f}"
                    f"{2 * plan.macs / seconds / 1e9:9.0f}",
                    flush=True,
                )
    return 0


if __name__ == "__main__":
    sys.exit(main())
