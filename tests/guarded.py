"""Run one algorithm on arrays that end, or begin, where memory that may not be touched begins.

A read or write beyond an array ends the process, hence a script of its own: the file named by the
second argument always holds the case that is running. Prints how many cases ran.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import oracle
import pytest
from oracle import Array
from problems import Problem, make

PROT_NONE = 0
ROLES = ("x", "weight", "bias", "residual", "out")
SIDES = ("after", "before")
LAYOUTS = ("dense", "gaps", "stepped")

# Up to two vectors of 16 lanes and one more, and around the panel of three.
TAILS = (*range(1, 34), 47, 48, 49)


class Arena:
    """Memory between two protected pages."""

    def __init__(self, size: int) -> None:
        page = mmap.PAGESIZE
        size = -(-size // page) * page
        pages = mmap.mmap(-1, size + 2 * page)
        libc = ctypes.CDLL(None, use_errno=True)
        start = ctypes.addressof(ctypes.c_char.from_buffer(pages))
        for guard in (start, start + page + size):
            if libc.mprotect(ctypes.c_void_p(guard), ctypes.c_size_t(page), PROT_NONE):
                raise OSError(ctypes.get_errno(), "mprotect")
        self.bytes: Array = np.frombuffer(pages, np.uint8)[page:-page]

    def place(self, values: Array, side: str, layout: str) -> tuple[Array, Array]:
        """A copy of `values` that touches the protected page on one side, and its bytes.

        Bytes between elements are 0xff, which is NaN.
        """
        stride = values.itemsize * (2 if layout == "stepped" else 1)
        strides: list[int] = []
        for length in reversed(values.shape):
            strides.insert(0, stride)
            stride = stride * length + (3 * values.itemsize if layout == "gaps" else 0)
        reach = sum((n - 1) * s for n, s in zip(values.shape, strides, strict=True))
        span = reach + values.itemsize
        taken = self.bytes[-span:] if side == "after" else self.bytes[:span]
        taken[:] = 0xFF
        view: Array = np.ndarray(values.shape, values.dtype, taken, 0, strides)
        view[...] = values
        return view, taken


def shapes(n: int) -> dict[str, tuple[Sequence[int], Any, dict[str, Any]]]:
    """Problems with a tail of n along the pixels, the outputs or the inputs."""
    return {
        "1x1 width": ((1, 3, 2, n), (5, 3, 1, 1), {}),
        "1x1 wide": ((1, 18, 1, n), (33, 18, 1, 1), {}),
        "1x1 narrowing": ((1, 18, 2, n), (5, 18, 1, 1), {}),
        "1x1 strided": ((1, 3, 3, 2 * n), (5, 3, 1, 1), dict(stride=2)),
        "1x1 wide strided": ((1, 3, 3, 2 * n), (18, 3, 1, 1), dict(stride=2)),
        "1x1 strided, last": ((1, 3, 3, 2 * n - 1), (5, 3, 1, 1), dict(stride=2)),
        "one phase": ((1, 3, 7, 2 * n + 3), (5, 3, 2, 2), dict(stride=2, dilation=2)),
        "depthwise wide": ((1, n, 3, 19), (n, 1, 1, 9), dict(groups=n)),
        "depthwise wide strided": ((1, n, 3, 19), (n, 1, 1, 9), dict(groups=n, stride=(1, 2))),
        "1x1 out": ((1, 3, 2, 3), (n, 3, 1, 1), {}),
        "1x1 in": ((1, n, 2, 3), (5, n, 1, 1), {}),
        "3x3 width": ((1, 3, 3, n), (5, 3, 3, 3), dict(padding=1)),
        "3x3 valid": ((1, 3, 3, n + 2), (5, 3, 3, 3), {}),
        "3x3 stride 2": ((1, 3, 4, 2 * n), (5, 3, 3, 3), dict(stride=2, padding=1)),
        "3x3 stride 3": ((1, 3, 4, 3 * n + 1), (5, 3, 3, 3), dict(stride=3)),
        "4x4 stride 4": ((1, 3, 4, 4 * n), (5, 3, 4, 4), dict(stride=4)),
        "3x3 dilated": ((1, 3, 5, n + 1), (5, 3, 3, 3), dict(padding=2, dilation=2)),
        "3x3 out": ((1, 3, 3, 5), (n, 3, 3, 3), dict(padding=1)),
        "3x3 in": ((1, n, 3, 5), (5, n, 3, 3), dict(padding=1)),
        "3x3 tall": ((2, 17, n, 6), (18, 17, 3, 3), dict(padding=1)),
        "7x7": ((1, 3, 8, 2 * n), (5, 3, 7, 7), dict(stride=2, padding=3)),
        "grouped": ((1, 8, 3, n), (12, 4, 3, 3), dict(padding=1, groups=2)),
        "grouped out": ((1, 6, 3, 4), (2 * n, 3, 2, 2), dict(groups=2)),
        "uneven groups": ((1, n + 2, 3, 5), [(3, n, 2, 2), (n, 2, 2, 2)], {}),
        "depthwise width": ((1, 3, 4, n), (3, 1, 3, 3), dict(padding=1, groups=3)),
        "depthwise channels": ((1, n, 4, 5), (n, 1, 3, 3), dict(padding=1, groups=n)),
        "depthwise 5x5": ((1, 2, 6, n + 1), (4, 1, 5, 5), dict(padding=2, groups=2)),
        "depthwise 5x5 dilated": (
            (1, 2, 7, n + 1),
            (2, 1, 5, 5),
            dict(padding=4, dilation=2, groups=2),
        ),
        "depthwise 5x5 stride 2": (
            (1, 2, 6, 2 * n),
            (2, 1, 5, 5),
            dict(padding=2, stride=2, groups=2),
        ),
        "depthwise 7x7": ((1, 2, 7, n + 1), (2, 1, 7, 7), dict(padding=3, groups=2)),
        "depthwise 7x7 stride 2": (
            (1, 2, 8, 2 * n),
            (2, 1, 7, 7),
            dict(padding=3, stride=2, groups=2),
        ),
        "depthwise 4x4 width": ((1, 2, 5, n + 1), (2, 1, 4, 4), dict(padding=1, groups=2)),
        "depthwise 4x4 padding": ((1, 2, 5, n + 1), (2, 1, 4, 4), dict(padding=3, groups=2)),
        "depthwise 4x4 stride 2": (
            (1, 2, 6, 2 * n),
            (2, 1, 4, 4),
            dict(padding=1, stride=2, groups=2),
        ),
        "depthwise stride 2": ((1, 2, 5, 2 * n), (2, 1, 3, 3), dict(padding=1, stride=2, groups=2)),
        "depthwise pairs": ((1, n, 5, 6), (2 * n, 1, 3, 3), dict(stride=2, groups=n)),
        "depthwise multiplier": ((1, n, 4, 9), (3 * n, 1, 3, 3), dict(padding=1, groups=n)),
        "depthwise 4x4": ((1, n, 5, 13), (n, 1, 4, 4), dict(padding=2, groups=n)),
        "groups of three": ((1, 3 * n, 3, 8), (3 * n, 3, 3, 3), dict(padding=1, groups=n)),
        "depthwise padding": ((1, 3, 9, n), (3, 1, 3, 3), dict(padding=6, groups=3)),
        "reflect": ((1, 3, 4, n + 2), (5, 3, 5, 5), dict(padding=2, padding_mode="reflect")),
        "circular": (
            (1, 2, 4, n + 2),
            (2, 1, 3, 3),
            dict(padding=2, padding_mode="circular", groups=2),
        ),
        "circular stride 2": (
            (1, 3, 3, n + 2),
            (5, 3, 3, 3),
            dict(stride=2, padding=(3, n + 2), padding_mode="circular"),
        ),
        "replicate": ((1, 3, 4, n), (5, 3, 3, 3), dict(padding=3, padding_mode="replicate")),
        "1d": ((2, 3, n + 1), (5, 3, 2), {}),
        "3d": ((1, 2, 2, 3, n), (5, 2, 2, 3, 3), dict(padding=1)),
        "over depth": ((1, 3, 4, 2, n), (5, 3, 3, 1, 1), dict(padding=(1, 0, 0))),
    }


def cases(algorithm: str) -> Iterator[tuple[str, Problem, Array]]:
    """Every problem that the algorithm serves, its name and its result."""
    for dtype in (np.float32, np.float64):
        for data_format in ("channels_first", "channels_last"):
            for n in TAILS:
                for number, (name, (x_shape, weight_shape, arguments)) in enumerate(
                    shapes(n).items()
                ):
                    problem = make(
                        x_shape,
                        weight_shape,
                        dtype,
                        residual=True,
                        data_format=data_format,
                        activation=oracle.ACTIVATIONS[(n + number) % len(oracle.ACTIVATIONS)],
                        **arguments,
                    )
                    try:
                        result = problem.run(algorithm)
                    except pytest.skip.Exception:
                        continue
                    yield f"{name} {n} {np.dtype(dtype)} {data_format}", problem, result


def main(algorithm: str, current: Path) -> None:
    """Run every case of an algorithm."""
    arenas = {role: Arena(2**18) for role in ROLES}
    count = 0
    with current.open("wb", buffering=0) as file:
        for name, problem, result in cases(algorithm):
            for side in SIDES:
                for layout in LAYOUTS:
                    line = f"{algorithm} {name} {layout}, guarded {side}"
                    os.pwrite(file.fileno(), line.encode().ljust(200), 0)
                    run(algorithm, problem, result, arenas, side, layout)
                    count += 1
    print(count)


def run(
    algorithm: str,
    problem: Problem,
    result: Array,
    arenas: dict[str, Arena],
    side: str,
    layout: str,
) -> None:
    """Convolve guarded arrays: the same bits, and nothing else of `out` is written."""

    def place(role: str, values: Array) -> Array:
        return arenas[role].place(values, side, layout)[0]

    if isinstance(problem.weight, list):
        # One array touches the page; the others stand on their own.
        weight: Any = [*problem.weight[:-1], place("weight", problem.weight[-1])]
    else:
        weight = place("weight", problem.weight)
    assert problem.bias is not None and problem.residual is not None
    guarded = replace(
        problem,
        x=place("x", problem.x),
        weight=weight,
        bias=place("bias", problem.bias),
        residual=place("residual", problem.residual),
    )
    out, taken = arenas["out"].place(np.zeros_like(result), side, layout)
    guarded.run(algorithm, out=out)
    assert np.array_equal(out, result), "other bits"
    out.view(f"u{out.itemsize}")[...] = 2 ** (8 * out.itemsize) - 1
    assert (taken == 0xFF).all(), "bytes between the elements of out were written"


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
