"""``pyconv bench``: pyconv against NumPy and, where it is installed, PyTorch."""

from __future__ import annotations

from collections.abc import Sequence

from threadpoolctl import threadpool_limits

from pyconv.benchmarks.comparison import installed
from pyconv.benchmarks.peers import NumPy, PyConv, Torch
from pyconv.benchmarks.report import (
    claim_json,
    compare_with_progress,
    layer_table,
    new_console,
    print_comparison,
    write_json,
)
from pyconv.benchmarks.workloads import BENCH_DEFAULT, WORKLOADS, select

__all__ = ["list_layers", "run"]


def list_layers(patterns: Sequence[str] | None = None) -> None:
    """Print the layers that match any pattern, or all of them."""
    new_console().print(layer_table(select(patterns) if patterns else WORKLOADS))


def run(
    patterns: Sequence[str] | None = None,
    *,
    threads: int,
    rounds: int,
    dtype: str = "float32",
    data_format: str = "channels_first",
    algorithm: str = "auto",
    json_path: str | None = None,
) -> None:
    """Check, time and print the chosen layers.

    Parameters
    ----------
    patterns : sequence of str, optional
        Names, globs or parts of names; a dozen representative layers by default.
    threads, rounds : int
        Threads of every library, and samples of each.
    dtype, data_format, algorithm : str
        As for `pyconv.Conv2d`; the peers have channels-first arrays in any case.
    json_path : str, optional
        Where to write the samples; ``"-"`` is stdout, and the table then goes to stderr.

    Raises
    ------
    ValueError
        If a pattern matches nothing, or there are fewer processors than threads.
    OSError
        If `json_path` cannot be written.
    WrongResultError
        If pyconv's result is wrong.
    """
    claim_json(json_path)
    console = new_console(stderr=json_path == "-")
    layers = select(patterns or BENCH_DEFAULT)
    peers = [*installed([NumPy, Torch]), PyConv(data_format, algorithm)]
    with threadpool_limits(threads, user_api="blas"):
        comparison = compare_with_progress(
            console,
            layers,
            peers,
            rounds,
            threads=threads,
            dtype=dtype,
            data_format=data_format,
            algorithm=algorithm,
        )
    print_comparison(console, comparison)
    if json_path:
        write_json([comparison], json_path)
