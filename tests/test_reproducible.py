"""The same bits whatever the threads, batch, place, strides, vector width or direct algorithm."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from functools import cache
from math import frexp
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracle import Array, source
from problems import DIRECT, Problem, make
from processes import run_python

import pyconv

SHAPES: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    # Large enough to be shared out among threads.
    "3x3": ((1, 32, 28, 30), (40, 32, 3, 3), dict(padding=1)),
    "3x3 deep": ((1, 130, 24, 21), (70, 130, 3, 3), dict(padding=1)),
    "1x1": ((1, 64, 28, 28), (70, 64, 1, 1), {}),
    "grouped": ((1, 32, 28, 28), (48, 4, 3, 3), dict(groups=8, stride=2, padding=1)),
    "depthwise": ((1, 64, 40, 40), (64, 1, 5, 5), dict(groups=64, padding=2)),
    "small plane": ((1, 96, 7, 7), (96, 96, 3, 3), dict(padding=1)),
}


def rounded(value: Fraction, dtype: Any) -> Fraction:
    """The nearest number of `dtype`, ties to even, of a value in its normal range."""
    ulp = Fraction(2) ** (frexp(float(value))[1] - np.finfo(dtype).nmant - 1)
    return round(value / ulp) * ulp


def chain(problem: Problem) -> Array:
    """The documented order, in exact arithmetic with one rounding per step.

    Blocks of 16 input channels, in each the kernel taps row by row, in each the channels of the
    block: one chain of fused multiply-adds from zero. Then bias and residual are added.
    """
    x, weight, bias, residual = problem.x, problem.weight, problem.bias, problem.residual
    assert isinstance(weight, np.ndarray) and bias is not None and residual is not None
    y = np.empty_like(residual)
    for n, o, *position in np.ndindex(*y.shape):
        total = Fraction(0)
        for block in range(0, x.shape[1], 16):
            for tap in np.ndindex(*weight.shape[2:]):
                where = [
                    source(p + t - 1, size, "zeros")
                    for p, t, size in zip(position, tap, x.shape[2:], strict=True)
                ]
                if any(i == size for i, size in zip(where, x.shape[2:], strict=True)):
                    continue  # adds a zero
                for channel in range(block, min(block + 16, x.shape[1])):
                    product = Fraction(float(x[(n, channel, *where)])) * Fraction(
                        float(weight[(o, channel, *tap)])
                    )
                    total = rounded(total + product, x.dtype)
        total = rounded(total + Fraction(float(bias[o])), x.dtype)
        total = rounded(total + Fraction(float(residual[(n, o, *position)])), x.dtype)
        y[(n, o, *position)] = float(total)
    return y


@pytest.mark.parametrize("channels", [3, 16, 37])
def test_the_order_of_accumulation(dtype: Any, channels: int) -> None:
    problem = make((1, channels, 3, 4), (2, channels, 3, 3), dtype, residual=True, padding=1)
    assert problem.residual is not None
    y = chain(problem)
    for algorithm in DIRECT:
        np.testing.assert_array_equal(problem.run(algorithm), y)
        last = replace(
            problem,
            x=np.moveaxis(problem.x, 1, -1),
            residual=np.moveaxis(problem.residual, 1, -1),
            arguments={**problem.arguments, "data_format": "channels_last"},
        )
        np.testing.assert_array_equal(np.moveaxis(last.run(algorithm), -1, 1), y)


@cache
def digests(isa: str) -> dict[str, str]:
    """The results of a process that uses one instruction set."""
    script = Path(__file__).with_name("digest.py")
    result: dict[str, str] = json.loads(run_python(str(script), PYCONV_ISA=isa))
    return result


@pytest.mark.parametrize("isa", pyconv.isas())
def test_every_instruction_set_gives_the_same_bits(isa: str) -> None:
    first = digests(pyconv.isas()[0])
    differing = [name for name, digest in digests(isa).items() if digest != first[name]]
    assert not differing


@pytest.mark.parametrize("direct", DIRECT)
def test_direct_algorithms_give_the_same_bits(direct: str) -> None:
    found = digests(pyconv.isas()[0])
    samples = [name.removesuffix(f" {direct}") for name in found if name.endswith(f" {direct}")]
    assert samples
    differing = [s for s in samples if found[f"{s} {direct}"] != found[f"{s} reference"]]
    assert not differing


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("batch", [1, 3])
def test_any_number_of_threads(
    algorithm: str, dtype: Any, data_format: str, name: str, batch: int
) -> None:
    (_, *image), weight_shape, arguments = SHAPES[name]
    problem = make((batch, *image), weight_shape, dtype, data_format=data_format, **arguments)
    y = problem.run(algorithm, num_threads=1)
    for threads in (2, 3, 8):
        np.testing.assert_array_equal(problem.run(algorithm, num_threads=threads), y)


@pytest.mark.parametrize("name", SHAPES)
def test_any_batch_and_place_in_it(algorithm: str, dtype: Any, data_format: str, name: str) -> None:
    (_, *image), weight_shape, arguments = SHAPES[name]
    problem = make((4, *image), weight_shape, dtype, data_format=data_format, **arguments)
    y = problem.run(algorithm)
    reverse = replace(problem, x=problem.x[::-1])
    np.testing.assert_array_equal(reverse.run(algorithm), y[::-1])
    for first, last in ((0, 1), (2, 3), (1, 4)):
        part = replace(problem, x=problem.x[first:last])
        np.testing.assert_array_equal(part.run(algorithm), y[first:last])
    alone = replace(problem, x=problem.x[3])
    np.testing.assert_array_equal(alone.run(algorithm), y[3])


@pytest.mark.parametrize("name", SHAPES)
def test_any_alignment_of_input_and_output(algorithm: str, dtype: Any, name: str) -> None:
    x_shape, weight_shape, arguments = SHAPES[name]
    problem = make(x_shape, weight_shape, dtype, **arguments)
    y = problem.run(algorithm)
    for offset in (1, 4, 8, 24):
        raw = np.empty(problem.x.nbytes + 64, np.uint8)
        view = raw[offset : offset + problem.x.nbytes].view(dtype).reshape(problem.x.shape)
        view[...] = problem.x
        out = np.empty(y.size + 16, dtype)[offset // 4 :][: y.size].reshape(y.shape)
        replace(problem, x=view).run(algorithm, out=out)
        np.testing.assert_array_equal(out, y)


@pytest.mark.parametrize("scale", [1.0, 1e-20, 1e15])
def test_auto_is_about_as_accurate_as_direct(data_format: str, scale: float) -> None:
    problem = make((1, 64, 10, 10), (32, 64, 3, 3), bias=False, data_format=data_format)
    problem = replace(problem, x=problem.x * np.float32(scale))
    exact = problem.expected().value
    error = {name: np.abs(problem.run(name) - exact) for name in ("auto", "reference")}
    assert error["auto"].max() <= 4 * error["reference"].max()
    assert np.sqrt((error["auto"] ** 2).mean()) <= 4 * np.sqrt((error["reference"] ** 2).mean())
