"""Check, then time, a list of libraries on a list of layers."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import pyconv
from pyconv import _core
from pyconv.benchmarks.peers import Peer, PyConv, convolve_taps
from pyconv.benchmarks.timing import FmaProbe, Rounds, Runner, Spread, copy_bandwidth, measure
from pyconv.benchmarks.workloads import Layer

__all__ = ["Comparison", "LayerResult", "WrongResultError", "compare", "environment", "installed"]

OURS = PyConv.name

TOLERANCES = {"float32": 1e-4, "float64": 1e-12}
"""Largest error that passes, as a share of the largest output; leaves room for F(6,3) Winograd."""


MAX_CALL_SECONDS = 2.0
"""A call that takes longer is not worth a place in the rounds; some peers need 10 s in 3-D."""


class WrongResultError(RuntimeError):
    """A library's result is not the convolution."""


@dataclass(frozen=True)
class LayerResult:
    """What was measured of one layer.

    Attributes
    ----------
    layer : Layer
        The layer.
    rounds : Rounds
        The samples of every library that ran it.
    skipped : dict of str to str
        Why each other library did not.
    """

    layer: Layer
    rounds: Rounds
    skipped: dict[str, str]

    def gflops(self, name: str, rounds: Rounds) -> float:
        """Effective GFLOP/s: the direct algorithm's operations over the median time."""
        return 2 * self.layer.macs / rounds.time(name).median / 1e9

    def best_peer(self, rounds: Rounds) -> str | None:
        """Return the quickest library but pyconv, if any ran."""
        peers = [name for name in rounds.seconds if name != OURS]
        return min(peers, key=lambda name: rounds.time(name).median, default=None)


@dataclass(frozen=True)
class Comparison:
    """The results of one run: every layer, one number of threads.

    Attributes
    ----------
    environment : dict
        Machine, versions and settings; see `environment`.
    peers : list of str
        Names of the libraries that took part, pyconv last.
    peak : float
        Best value of the FMA probe in the whole run, GFLOP/s on all threads.
    layers : list of LayerResult
        One entry per layer.
    """

    environment: dict[str, str]
    peers: list[str]
    peak: float
    layers: list[LayerResult]

    def quiet(self, result: LayerResult) -> Rounds:
        """Return the quiet rounds of a layer, or all where none was quiet."""
        quiet, contended = result.rounds.split(self.peak)
        return quiet if len(quiet) else contended

    def contended(self, result: LayerResult) -> Rounds:
        """Return the contended rounds of a layer; there may be none."""
        return result.rounds.split(self.peak)[1]

    def speedups(self, peer: str | None = None, *, contended: bool = False) -> dict[str, Spread]:
        """How many times faster pyconv is than a peer, or than the best one, by layer name.

        Layers without such rounds, or that pyconv or the peer did not run, are left out.
        """
        found = {}
        for result in self.layers:
            rounds = self.contended(result) if contended else self.quiet(result)
            if not len(rounds) or OURS not in rounds.seconds:
                continue
            reference = peer or result.best_peer(rounds)
            if reference is not None and reference in rounds.seconds:
                found[result.layer.name] = rounds.speedup(OURS, reference)
        return found

    def to_json(self) -> dict[str, Any]:
        """Return everything measured, raw samples included, as plain JSON values."""
        return {
            "environment": self.environment,
            "fma_peak_gflops": self.peak,
            "geometric_mean": {
                "quiet": geometric_mean(self.speedups()),
                "contended": geometric_mean(self.speedups(contended=True)),
            },
            "layers": [self._layer_json(result) for result in self.layers],
        }

    def _layer_json(self, result: LayerResult) -> dict[str, Any]:
        entry: dict[str, Any] = {
            "name": result.layer.name,
            "macs": result.layer.macs,
            "kind": result.layer.kind,
            "skipped": result.skipped,
            "seconds": {name: list(values) for name, values in result.rounds.seconds.items()},
            "probe_gflops": list(result.rounds.probe),
        }
        for label, rounds in zip(
            ("quiet", "contended"), result.rounds.split(self.peak), strict=True
        ):
            if not len(rounds):
                continue
            best = result.best_peer(rounds)
            entry[label] = {
                "rounds": len(rounds),
                "gflops": {name: result.gflops(name, rounds) for name in rounds.seconds},
                "best_peer": best,
            }
            if best and OURS in rounds.seconds:
                entry[label]["speedup"] = vars(rounds.speedup(OURS, best))
        return entry


def geometric_mean(speedups: dict[str, Spread]) -> float | None:
    """Return the geometric mean of the medians; None without any."""
    if not speedups:
        return None
    return float(np.exp(np.mean([np.log(spread.median) for spread in speedups.values()])))


def installed(classes: Iterable[Callable[[], Peer]]) -> list[Peer]:
    """Return those libraries that can be imported."""
    found = []
    for peer in classes:
        try:
            found.append(peer())
        except ImportError:
            continue
    return found


def environment(peers: Sequence[Peer], threads: int, **settings: str) -> dict[str, str]:
    """Describe machine, versions and settings, for the head of a table.

    Parameters
    ----------
    peers : sequence of Peer
        Libraries that take part.
    threads : int
        Threads per call.
    **settings : str
        Whatever else decides the numbers.
    """
    return {
        "machine": f"{pyconv.info()['cpu']}, {_core.openmp_processors()} cores usable",
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "threads": str(threads),
        "isa": _core.current_isa(),
        "versions": ", ".join(f"{peer.name} {peer.version}" for peer in peers),
        **settings,
        "copy, L2 / memory": f"{copy_bandwidth(1 << 17):.0f} / {copy_bandwidth(1 << 26):.0f} GB/s "
        "read + written, one thread",
    }


def compare(
    layers: Sequence[Layer],
    peers: Sequence[Peer],
    *,
    threads: int,
    rounds: int,
    dtype: str = "float32",
    on_layer: Callable[[Layer], None] = lambda _: None,
    on_round: Callable[[], None] = lambda: None,
    **settings: str,
) -> Comparison:
    """Check and time every library on every layer.

    Parameters
    ----------
    layers : sequence of Layer
        What to convolve, one image each.
    peers : sequence of Peer
        Who convolves; pyconv is one of them.
    threads, rounds : int
        Threads per call and samples per library.
    dtype : str
        ``"float32"`` or ``"float64"``.
    on_layer, on_round : callable
        Called before each layer and after each round, for progress.
    **settings : str
        Recorded in the environment.

    Raises
    ------
    WrongResultError
        If pyconv's result is wrong; a peer that is wrong is left out of that layer instead.
    """
    probe = FmaProbe(dtype, threads)
    results = []
    for layer in layers:
        on_layer(layer)
        runners, skipped = _checked_runners(layer, peers, threads, dtype)
        results.append(LayerResult(layer, measure(runners, probe, rounds, on_round), skipped))
    described = environment(peers, threads, dtype=dtype, rounds=str(rounds), **settings)
    return Comparison(described, [peer.name for peer in peers], probe.peak, results)


def _checked_runners(
    layer: Layer, peers: Sequence[Peer], threads: int, dtype: str
) -> tuple[dict[str, Runner], dict[str, str]]:
    """Prepare every library and compare its result with a float64 one."""
    x, weight, bias = _arrays(layer, dtype)
    expected = convolve_taps(layer, *(array.astype(np.float64) for array in (x, weight, bias)))
    runners: dict[str, Runner] = {}
    skipped: dict[str, str] = {}
    for peer in peers:
        try:
            runner = peer.prepare(layer, x, weight, bias, threads)
            start = time.perf_counter()
            result = runner()
            seconds = time.perf_counter() - start
            _check(peer.name, layer, result, expected, TOLERANCES[dtype])
        except WrongResultError as error:
            if peer.name == OURS:
                raise
            skipped[peer.name] = str(error)
        # The runtimes report what they lack as either of these.
        except (ValueError, RuntimeError) as error:
            skipped[peer.name] = str(error)
        else:
            if seconds > MAX_CALL_SECONDS:
                skipped[peer.name] = f"one call takes {seconds:.1f} s, not timed"
            else:
                runners[peer.name] = runner
    return runners, skipped


def _arrays(layer: Layer, dtype: str) -> list[NDArray[Any]]:
    """Input, weight and bias, the same in every run, of outputs near one."""
    rng = np.random.default_rng(0)
    fan_in = math.prod(layer.weight_shape[1:])
    shapes = (layer.input_shape(), layer.weight_shape, (layer.out_channels,))
    x, weight, bias = (rng.standard_normal(shape, np.float64).astype(dtype) for shape in shapes)
    weight /= math.sqrt(fan_in)
    return [x, weight, bias]


def _check(
    name: str, layer: Layer, result: NDArray[Any], expected: NDArray[Any], tolerance: float
) -> None:
    if result.shape != expected.shape:
        raise WrongResultError(
            f"{name} on {layer.name}: shape {result.shape}, expected {expected.shape}"
        )
    error = float(np.max(np.abs(result - expected)) / np.max(np.abs(expected)))
    # Written so that NaN fails too.
    if not error <= tolerance:
        raise WrongResultError(
            f"{name} on {layer.name}: error {error:.1e} of the largest output, "
            f"at most {tolerance:.0e} allowed; not timed"
        )
