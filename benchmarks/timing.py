"""The timing protocol, in one place.

All runners of a layer are timed in one process, once per round, in an order that rotates from
round to round. Between two rounds a register-only loop of fused multiply-adds runs on the same
number of threads: it knows no memory and no other code, so when it falls short, a neighbour had
the core, and the round counts as contended. Comparisons are medians of per-round ratios, whose
two samples saw the same machine.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyconv import _core

__all__ = ["FmaProbe", "Rounds", "Runner", "Spread", "copy_bandwidth", "fastest", "measure"]

Runner = Callable[[], NDArray[Any]]

MIN_SECONDS = 5e-3
"""Length of one sample: a thousand times the resolution of the clock and of a context switch."""

QUIET_SHARE = 0.93
"""Share of the best probe below which a round is contended; quiet probes repeat within 5 %."""


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of a quantity over rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> Spread:
        """Summarise the values of all rounds."""
        low, median, high = np.percentile(values, (25, 50, 75))
        return cls(float(median), float(low), float(high))


@dataclass(frozen=True)
class Rounds:
    """Seconds per call of every runner, and the probe's GFLOP/s, one number per round."""

    seconds: Mapping[str, NDArray[np.float64]]
    probe: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.probe)

    def split(self, peak: float) -> tuple[Rounds, Rounds]:
        """Return the quiet rounds and the contended ones, given the best probe of the run."""
        quiet = self.probe >= QUIET_SHARE * peak
        return self._where(quiet), self._where(~quiet)

    def time(self, name: str) -> Spread:
        """Seconds per call of a runner."""
        return Spread.of(self.seconds[name])

    def speedup(self, name: str, reference: str) -> Spread:
        """How many times faster `name` is than `reference`, round by round."""
        return Spread.of(self.seconds[reference] / self.seconds[name])

    def _where(self, keep: NDArray[np.bool_]) -> Rounds:
        seconds = {name: values[keep] for name, values in self.seconds.items()}
        return Rounds(seconds, self.probe[keep])


class FmaProbe:
    """Fused multiply-adds from registers on every thread at once, in GFLOP/s.

    Parameters
    ----------
    dtype : str
        ``"float32"`` or ``"float64"``.
    threads : int
        How many threads compute at the same time.

    Attributes
    ----------
    peak : float
        The best value so far: what the machine can do when nobody else uses it.

    Raises
    ------
    ValueError
        If this process may not use so many processors: threads that take turns measure nothing.
    """

    def __init__(self, dtype: str = "float32", threads: int = 1) -> None:
        processors = _core.openmp_processors()
        if threads > processors:
            raise ValueError(f"threads: got {threads}, expected at most {processors}, one per CPU")
        self._dtype = dtype
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads)
        self.peak = 0.0
        for _ in range(20):
            self()

    def __call__(self) -> float:
        """Run the probe once."""
        total = sum(self._pool.map(_mean_rate, [self._dtype] * self._threads))
        self.peak = max(self.peak, total)
        return total


def _mean_rate(dtype: str, seconds: float = 0.02) -> float:
    """Average the FMA rate of one thread, time lost to others included.

    A single long probe returns its best stretch, which a neighbour that takes turns leaves intact;
    the harmonic mean of short ones is operations over time.
    """
    bursts = 0
    total = 0.0
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        total += 1 / _core.fma_peak(dtype, seconds=0)
        bursts += 1
    return bursts / total


def copy_bandwidth(nbytes: int, seconds: float = 0.05) -> float:
    """Copy one buffer to another with one thread.

    Parameters
    ----------
    nbytes : int
        Size of each of the two buffers; twice that should fit the cache under test.
    seconds : float
        How long to copy; the best call counts.

    Returns
    -------
    float
        Bytes read plus bytes written, in GB/s.
    """
    source = np.ones(nbytes, np.uint8)
    target = np.zeros_like(source)
    calls = max(1, (1 << 20) // nbytes)
    best = math.inf
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        start = time.perf_counter()
        for _ in range(calls):
            np.copyto(target, source)
        best = min(best, (time.perf_counter() - start) / calls)
    return 2 * nbytes / best / 1e9


def fastest(candidates: Sequence[Runner]) -> Runner:
    """Return the quickest of several ways to run the same layer."""
    if len(candidates) == 1:
        return candidates[0]
    best = [math.inf] * len(candidates)
    deadline = time.perf_counter() + 0.5
    for _ in range(5):
        for index, run in enumerate(candidates):
            _wait_for_idle_threads()
            best[index] = min(best[index], _sample(run, repeats=2))
        if time.perf_counter() > deadline:
            break
    return candidates[best.index(min(best))]


def measure(
    runners: Mapping[str, Runner],
    probe: FmaProbe,
    rounds: int,
    on_round: Callable[[], None] = lambda: None,
) -> Rounds:
    """Time every runner once per round, in rotating order, between two probes.

    Parameters
    ----------
    runners : mapping of str to callable
        What to time; each call does the whole layer.
    probe : FmaProbe
        Tells a quiet round from a contended one; a round takes the lower of its two neighbours.
    rounds : int
        Number of samples of each runner.
    on_round : callable
        Called after each round, for progress.
    """
    repeats = {name: _repeats(run) for name, run in runners.items()}
    names = list(runners)
    seconds = np.empty((rounds, len(names)))
    probes = [probe()]
    for index in range(rounds):
        for offset in range(len(names)):
            column = (index + offset) % len(names)
            _wait_for_idle_threads()
            seconds[index, column] = _sample(runners[names[column]], repeats[names[column]])
        _wait_for_idle_threads()
        probes.append(probe())
        on_round()
    lower = np.minimum(probes[:-1], probes[1:])
    return Rounds({name: seconds[:, column] for column, name in enumerate(names)}, lower)


def _repeats(run: Runner) -> int:
    """Count the calls that fill one sample."""
    return max(1, math.ceil(MIN_SECONDS / min(_sample(run, repeats=1) for _ in range(2))))


def _sample(run: Runner, repeats: int) -> float:
    """Measure seconds per call, caches and worker threads warmed by a few calls before."""
    for _ in range(1 + repeats // 8):
        run()
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - start) / repeats


def _wait_for_idle_threads() -> None:
    """Sleep until the worker threads of the runner before stop spinning.

    ONNX Runtime's workers spin for some 40 ms after a call and OpenMP's for some 5 ms; with as
    many threads as cores they would take a core from whoever is timed next.
    """
    # Longer than two ticks of the scheduler: the system adds what a running thread has used at its
    # ticks, 4 ms apart, and a thread that spins would look idle between them.
    slice_seconds = 10e-3
    for _ in range(20):
        before = time.process_time()
        time.sleep(slice_seconds)
        if time.process_time() - before < slice_seconds / 4:
            return
