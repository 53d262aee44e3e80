"""Print a digest of many results, one line of JSON, for comparison between processes.

Arguments are words that the names of the samples must contain.
"""

from __future__ import annotations

import hashlib
import json
import sys
from typing import Any

import numpy as np
import oracle
import pytest
from problems import PADDING_MODES, Problem, make, tiny

import pyconv


def samples() -> dict[str, Problem]:
    """Problems that reach every kind of tail, with every argument."""
    shapes: dict[str, tuple[Any, Any, dict[str, Any]]] = {
        "3x3": ((2, 35, 9, 21), (37, 35, 3, 3), dict(padding=1)),
        "3x3 deep": ((1, 150, 14, 34), (70, 150, 3, 3), dict(padding=(2, 1))),
        "1x1": ((1, 65, 7, 7), (70, 65, 1, 1), {}),
        "7x7 stride 2": ((1, 3, 23, 23), (17, 3, 7, 7), dict(stride=2, padding=3)),
        "grouped": ((1, 36, 9, 10), (45, 4, 3, 3), dict(groups=9, padding=(1, 0))),
        "uneven groups": ((1, 20, 6, 7), [(3, 1, 2, 2), (18, 19, 2, 2)], {}),
        "depthwise": ((1, 19, 9, 33), (38, 1, 3, 3), dict(groups=19, padding=1)),
        "dilated": ((1, 18, 11, 12), (19, 18, 3, 3), dict(dilation=2, padding=2)),
        "1d": ((2, 17, 101), (33, 17, 5), dict(padding="same", stride=2)),
        "3d": ((1, 5, 5, 6, 7), (9, 5, 3, 2, 3), dict(padding=1)),
        "over depth": ((1, 33, 6, 3, 17), (18, 33, 3, 1, 1), dict(padding=(1, 0, 0))),
        "one output": ((1, 64, 8, 8), (1, 64, 3, 3), {}),
    }
    problems = {}
    for dtype in (np.float32, np.float64):
        for data_format in ("channels_first", "channels_last"):
            suffix = f"{np.dtype(dtype)} {data_format}"
            shared: dict[str, Any] = dict(dtype=dtype, data_format=data_format, residual=True)
            for name, (x_shape, weight_shape, arguments) in shapes.items():
                problems[f"{name} {suffix}"] = make(x_shape, weight_shape, **arguments, **shared)
            for mode in PADDING_MODES[1:]:
                problems[f"{mode} {suffix}"] = make(
                    (1, 4, 9, 19), (5, 4, 5, 5), padding=4, padding_mode=mode, **shared
                )
            for activation in oracle.ACTIVATIONS[1:]:
                problems[f"{activation} {suffix}"] = make(
                    (1, 4, 9, 19), (5, 4, 3, 3), activation=activation, **shared
                )
                problems[f"{activation} tiny {suffix}"] = tiny(
                    make((1, 18, 9, 19), (5, 18, 3, 3), activation=activation, **shared)
                )
    return problems


def main() -> None:
    """Convolve every sample with every algorithm."""
    digests = {}
    for name, problem in samples().items():
        if not all(word in name for word in sys.argv[1:]):
            continue
        for algorithm in ("auto", *pyconv.algorithms()):
            try:
                result = problem.run(algorithm).tobytes()
            except pytest.skip.Exception:
                continue  # a special algorithm that cannot serve this problem
            digests[f"{name} {algorithm}"] = hashlib.sha256(result).hexdigest()
    print(json.dumps(digests))


if __name__ == "__main__":
    main()
