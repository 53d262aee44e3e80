"""Ctrl-C and other signals during a call that would take minutes."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from problems import Problem, make

PROMPT = 5.0  # a second and a quarter, on a quiet machine


def endless(algorithm: str) -> Problem:
    """A problem that takes an algorithm seconds at the very least, in blocks of less than one."""
    if algorithm == "depthwise":
        x, weight, groups = (192, 64, 160, 160), (64, 1, 61, 61), 64
    elif algorithm in ("auto", "pointwise"):
        x, weight, groups = (192, 2048, 64, 64), (512, 2048, 1, 1), 1
    else:
        x, weight, groups = (384, 512, 34, 34), (512, 512, 3, 3), 1
    image = np.ones(x[1:], np.float32)
    return Problem(
        np.broadcast_to(image, x),
        np.ones(weight, np.float32),
        arguments=dict(groups=groups, padding=weight[-1] // 2),
    )


@contextmanager
def handler(number: int, function: Callable[..., Any]) -> Iterator[None]:
    """Handle a signal in another way."""
    before = signal.signal(number, function)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(number, before)


@pytest.fixture(autouse=True)
def ctrl_c() -> Iterator[None]:
    """Raise KeyboardInterrupt also where the shell ignores Ctrl-C, as for background jobs."""
    with handler(signal.SIGINT, signal.default_int_handler):
        yield


@pytest.mark.parametrize("threads", [1, 2])
def test_ctrl_c_ends_a_call(algorithm: str, threads: int) -> None:
    problem = endless(algorithm)
    sent: list[float] = []

    def interrupt() -> None:
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Timer(0.4, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            timer.start()
            problem.run(algorithm, num_threads=threads)
    finally:
        timer.cancel()  # or, where the algorithm cannot serve, it would interrupt another test
    assert time.monotonic() - sent[0] < PROMPT
    timer.join()
    # Nothing is left behind.
    small = make((2, 16, 40, 40), (16, 16, 3, 3), padding=1)
    np.testing.assert_array_equal(small.run(num_threads=threads), small.run("auto", num_threads=1))


def test_handlers_run_during_a_call_in_the_state_of_the_caller() -> None:
    problem = endless("direct")
    small = make((1, 4, 12, 12), (4, 4, 3, 3))
    y = small.run()
    least = np.array(np.finfo(np.float32).smallest_subnormal)
    seen = []

    def tick(*_: object) -> None:
        np.testing.assert_array_equal(small.run(num_threads=4), y)  # a call within the call
        seen.append(least * 1 != 0)
        if len(seen) == 3:
            signal.setitimer(signal.ITIMER_REAL, 0)
            raise ZeroDivisionError

    with handler(signal.SIGALRM, tick), pytest.raises(ZeroDivisionError):
        signal.setitimer(signal.ITIMER_REAL, 0.2, 0.2)
        problem.run("direct", num_threads=2)
    assert seen == [True] * 3
    assert least * 1 != 0


def test_an_interrupted_call_has_written_whole_results_or_nothing() -> None:
    problem = endless("direct")
    problem = replace(problem, x=problem.x[:48])
    out = np.full((48, 512, 34, 34), -1, np.float32)
    with handler(signal.SIGALRM, signal.default_int_handler), pytest.raises(KeyboardInterrupt):
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        problem.run("direct", out=out, num_threads=1)
    inside = out[:, :, 1:-1, 1:-1]
    untouched = inside == -1
    assert (untouched | (inside == 9 * 512)).all()
    assert untouched.any() and not untouched.all()


def test_a_call_in_another_thread_goes_on() -> None:
    problem = make((1, 64, 64, 64), (64, 64, 3, 3))
    y = problem.run("reference")
    ticks = []
    with (
        handler(signal.SIGALRM, lambda *_: ticks.append(None)),
        ThreadPoolExecutor(1) as pool,
    ):
        signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
        result = pool.submit(problem.run, "reference", num_threads=1)
        while not result.done():
            time.sleep(0.01)
    np.testing.assert_array_equal(result.result(), y)
    assert ticks
