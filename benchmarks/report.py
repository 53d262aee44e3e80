"""Print comparisons as tables and write them as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from pyconv.benchmarks.comparison import OURS, Comparison, LayerResult, compare, geometric_mean
from pyconv.benchmarks.peers import Peer
from pyconv.benchmarks.timing import Spread
from pyconv.benchmarks.workloads import Layer

__all__ = [
    "claim_json",
    "compare_with_progress",
    "layer_table",
    "new_console",
    "print_comparison",
    "write_json",
]

MIN_WIDTH = 160
"""Columns to print where there is no terminal that knows better."""


def new_console(*, stderr: bool = False) -> Console:
    """Return a console that does not squeeze tables written to a file or a pipe."""
    console = Console(stderr=stderr, highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, MIN_WIDTH)
    return console


def compare_with_progress(
    console: Console, layers: Sequence[Layer], peers: Sequence[Peer], rounds: int, **options: Any
) -> Comparison:
    """Run `compare` with a progress bar on `console`."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    # Redrawn between samples only: a thread that draws would take time from them.
    with Progress(*columns, console=console, auto_refresh=False, transient=True) as progress:
        task = progress.add_task("", total=len(layers) * rounds)

        def on_layer(layer: Layer) -> None:
            progress.update(task, description=layer.name, refresh=True)

        def on_round() -> None:
            progress.update(task, advance=1, refresh=True)

        return compare(
            layers, peers, rounds=rounds, on_layer=on_layer, on_round=on_round, **options
        )


def print_comparison(console: Console, comparison: Comparison) -> None:
    """Print the protocol, the table, its summary, and why libraries were left out."""
    for key, value in comparison.environment.items():
        console.print(f"[bold]{key:18}[/] {value}", soft_wrap=True)
    console.print(
        f"[bold]{'FMA peak':18}[/] {comparison.peak:.0f} GFLOP/s, "
        "a register-only loop on all threads"
    )
    console.print(_comparison_table(comparison))
    _print_summary(console, comparison)
    for result in comparison.layers:
        for name, reason in result.skipped.items():
            console.print(f"- {result.layer.name}: {name}: {reason}", style="dim", markup=False)


def layer_table(layers: Iterable[Layer]) -> Table:
    """Return a table of layers and their geometry."""
    table = Table(box=None, header_style="bold")
    for heading in ("layer", "input", "weight", "stride", "padding", "dilation", "groups"):
        table.add_column(heading, justify="left" if heading == "layer" else "right", no_wrap=True)
    table.add_column("kind")
    table.add_column("MMAC", justify="right")
    for layer in layers:
        geometry = (layer.input_shape(), layer.weight_shape)
        steps = (layer.stride, layer.padding, layer.dilation)
        table.add_row(
            layer.name,
            *(",".join(map(str, numbers)) for numbers in (*geometry, *steps)),
            str(layer.groups),
            layer.kind,
            f"{layer.macs / 1e6:.1f}",
        )
    return table


def claim_json(path: str | None) -> None:
    """Raise OSError now, not after the measurement, where `path` cannot be written."""
    if path and path != "-":
        Path(path).touch()


def write_json(comparisons: Sequence[Comparison], path: str) -> None:
    """Write the raw samples and the summary of each run to `path`, or to stdout for ``"-"``."""
    text = json.dumps([comparison.to_json() for comparison in comparisons], indent=1)
    if path == "-":
        print(text)
    else:
        Path(path).write_text(text + "\n")


def _comparison_table(comparison: Comparison) -> Table:
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), header_style="bold", show_footer=True)
    table.add_column("layer", "geometric mean of pyconv against each", overflow="fold")
    table.add_column("MMAC", justify="right", no_wrap=True)
    for name in comparison.peers:
        footer = "" if name == OURS else _times(geometric_mean(comparison.speedups(name)))
        table.add_column(name.replace(" ", "\n"), footer, justify="right", no_wrap=True)
    table.add_column("of FMA\npeak", justify="right", no_wrap=True)
    quiet, contended = comparison.speedups(), comparison.speedups(contended=True)
    for heading, footer in (
        ("pyconv against\nthe best [IQR]", _times(geometric_mean(quiet))),
        ("contended\nrounds", _times(geometric_mean(contended))),
        ("quiet\nrounds", ""),
    ):
        table.add_column(escape(heading), footer, justify="right", no_wrap=True)
    for result in comparison.layers:
        name = result.layer.name
        table.add_row(*_row(comparison, result, quiet.get(name), contended.get(name)))
    return table


def _row(
    comparison: Comparison,
    result: LayerResult,
    speedup: Spread | None,
    contended_speedup: Spread | None,
) -> list[str]:
    shown = comparison.quiet(result)
    best = result.best_peer(shown)
    cells = [result.layer.name, f"{result.layer.macs / 1e6:.1f}"]
    for name in comparison.peers:
        if name not in shown.seconds:
            cells.append("-")
            continue
        speed = f"{result.gflops(name, shown):.1f}"
        cells.append(f"[bold]{speed}[/]" if name in (best, OURS) else speed)
    ours = OURS in shown.seconds
    cells.append(f"{result.gflops(OURS, shown) / comparison.peak:.0%}" if ours else "-")
    if speedup:
        color = "green" if speedup.median >= 1 else "red"
        interval = escape(f"[{speedup.low:.2f}-{speedup.high:.2f}]")
        cells.append(f"[{color}]{speedup.median:.2f}[/] {interval}")
    else:
        cells.append("-")
    cells.append(_times(contended_speedup.median if contended_speedup else None))
    contended = len(comparison.contended(result))
    cells.append(f"{len(result.rounds) - contended}/{len(result.rounds)}")
    return cells


def _print_summary(console: Console, comparison: Comparison) -> None:
    speedups = comparison.speedups()
    if not speedups:
        console.print("no layer that both pyconv and a peer ran: nothing to compare")
        return
    behind = sum(spread.median < 1 for spread in speedups.values())
    console.print(
        f"[bold]pyconv against the best peer[/]: {_times(geometric_mean(speedups))} over "
        f"{len(speedups)} layers (geometric mean); behind on {behind}"
    )


def _times(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
