"""Denormal numbers, rounding modes and traps: the floating-point state of caller and pyconv."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import oracle
import pytest
from oracle import Activation
from problems import DIRECT, make, tiny
from processes import run_script

import pyconv

LIBM = ctypes.CDLL("libm.so.6")
MODES = {"down": 0x400, "up": 0x800, "to zero": 0xC00}  # FE_DOWNWARD and so on, on x86

flushed = pytest.mark.skipif(
    " fma " not in Path("/proc/cpuinfo").read_text(), reason="denormals stay without FMA"
)


@contextmanager
def rounding(mode: int) -> Iterator[None]:
    """Round in another direction, and see that nobody changes it."""
    before = LIBM.fegetround()
    LIBM.fesetround(mode)
    try:
        yield
        after = LIBM.fegetround()
    finally:
        LIBM.fesetround(before)
    assert after == mode


@pytest.mark.parametrize("threads", [1, 4])
def test_denormals_of_the_caller_stay(algorithm: str, dtype: Any, threads: int) -> None:
    problem = make((2, 16, 32, 32), (16, 16, 3, 3), dtype, padding=1)
    least = np.array(np.finfo(dtype).smallest_subnormal)
    problem.run(algorithm, num_threads=threads)
    assert least * 2 != 0
    assert np.array(np.finfo(dtype).tiny) / 2 != 0


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
@pytest.mark.parametrize("threads", [1, 3])
def test_the_rounding_of_the_caller_is_neither_used_nor_changed(
    algorithm: str, dtype: Any, mode: int, threads: int
) -> None:
    problem = make((2, 16, 24, 24), (16, 16, 3, 3), dtype, padding=1, activation="gelu")
    y = problem.run(algorithm)
    with rounding(mode):
        rounded = problem.run(algorithm, num_threads=threads)
    np.testing.assert_array_equal(rounded, y)


def test_the_traps_of_the_caller_are_neither_sprung_nor_removed() -> None:
    # A trap ends the process.
    run_script("""
import ctypes, numpy, pyconv
libm = ctypes.CDLL("libm.so.6")
x = numpy.full((2, 16, 40, 40), 1e38, numpy.float32)
x[0, 0, 0, :3] = numpy.nan, numpy.inf, -numpy.inf
layer = pyconv.Conv2d.from_weights(x[:, :, :3, :3].copy(), activation="sigmoid")
traps = 0x1D  # invalid, division by zero, overflow, underflow
for threads in (1, 4):
    libm.feenableexcept(traps)
    layer(x, num_threads=threads)
    kept = libm.fegetexcept()
    libm.fedisableexcept(traps)
    assert kept == traps, kept
""")


@flushed
@pytest.mark.parametrize("activation", oracle.ACTIVATIONS, ids=str)
def test_no_result_is_denormal(
    algorithm: str, dtype: Any, data_format: str, activation: Activation
) -> None:
    problem = tiny(
        make((1, 18, 9, 19), (6, 18, 3, 3), dtype, residual=True, data_format=data_format)
    )
    y = problem.run(algorithm, activation=activation)
    assert np.isfinite(y).all()
    size = np.abs(y)
    assert not ((size > 0) & (size < np.finfo(dtype).tiny)).any()
    if activation is None:
        assert (y == 0).any() and (y != 0).any()


@flushed
@pytest.mark.parametrize("activation", [("clip", 1e-310, 1e-309), ("leaky_relu", 1e-310)], ids=str)
def test_denormal_parameters_are_zeros_too(dtype: Any, activation: Activation) -> None:
    x = np.linspace(-1, 1, 37).astype(dtype).reshape(1, 1, 37)
    for algorithm in DIRECT:
        if algorithm == "depthwise":
            continue
        y = pyconv.conv1d(x, np.ones((1, 1, 1), dtype), activation=activation, algorithm=algorithm)
        np.testing.assert_array_equal(y, x * (activation[0] == "leaky_relu") * (x > 0))  # type: ignore[index]


@flushed
def test_denormals_are_zeros_in_every_operand(algorithm: str, dtype: Any) -> None:
    problem = make((1, 5, 6, 21), (4, 5, 3, 3), dtype, residual=True)
    least = np.finfo(dtype).tiny / 2
    huge = np.finfo(dtype).max / 1e4  # Winograd adds weights up before it multiplies

    def full(like: Any, value: Any) -> Any:
        return np.full_like(like, value)

    nothing = full(problem.bias, 0)
    for x, weight in ((least, huge), (huge, least)):
        y = replace(
            problem,
            x=full(problem.x, x),
            weight=full(problem.weight, weight),
            bias=nothing,
            residual=full(problem.residual, 0),
        ).run(algorithm)
        np.testing.assert_array_equal(y, 0)
    for bias, residual in ((least, 0), (0, least), (least, least), (-least, least)):
        y = replace(
            problem,
            x=full(problem.x, 0),
            bias=full(problem.bias, bias),
            residual=full(problem.residual, residual),
        ).run(algorithm)
        np.testing.assert_array_equal(y, 0)


@pytest.mark.parametrize("direct", DIRECT)
def test_the_same_bits_for_tiny_numbers(direct: str, dtype: Any, data_format: str) -> None:
    problem = tiny(make((2, 18, 24, 40), (18, 18, 3, 3), dtype, padding=1, data_format=data_format))
    y = problem.run("reference", num_threads=1)
    for threads in (1, 2, 3, 8):
        np.testing.assert_array_equal(problem.run(direct, num_threads=threads), y)


@pytest.mark.parametrize("activation", oracle.ACTIVATIONS, ids=str)
def test_special_numbers_have_the_same_bits_in_body_and_tail(
    dtype: Any, activation: Activation
) -> None:
    info = np.finfo(dtype)
    positive = [0.0, info.smallest_subnormal, info.tiny / 2, info.tiny, 1.0, info.max, np.inf]
    special = np.array([np.nan, *positive, *np.negative(positive)], dtype)
    kernel = np.ones((1, 1, 1), dtype)
    sums = [pyconv.conv1d(v.reshape(1, 1, 1), kernel, activation=activation) for v in special]
    for length in (1, 3, 4, 5, 8, 15, 16, 17, 31, 33, 47, 50):
        for offset in range(0, len(special), 4):
            order = np.resize(np.roll(np.arange(len(special)), offset), length)
            expected = np.array([sums[i].item() for i in order], dtype)
            for algorithm in ("im2col_gemm", "direct", "pointwise", "reference"):
                y = pyconv.conv1d(
                    special[order].reshape(1, 1, -1),
                    kernel,
                    activation=activation,
                    algorithm=algorithm,
                )
                np.testing.assert_array_equal(y.ravel(), expected)
                zeros = expected == 0
                np.testing.assert_array_equal(
                    np.signbit(y.ravel()[zeros]), np.signbit(expected[zeros])
                )
            # Before the activation, but after the sum.
            y = pyconv.conv1d(
                np.zeros((1, 1, length), dtype),
                kernel,
                residual=special[order].reshape(1, 1, -1),
                activation=activation,
            )
            np.testing.assert_array_equal(y.ravel(), expected)
