"""The 1x1 kernel: pixels that a stride or a view takes from the image, across blocks and rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from problems import make, relayout


@pytest.mark.parametrize("stride", [2, 3, 4, 5, (1, 2), (2, 1), (50, 1), (1, 50)], ids=str)
@pytest.mark.parametrize("channels", [3, 100, 700])
@pytest.mark.parametrize("threads", [1, 2])
def test_strides(dtype: Any, stride: Any, channels: int, threads: int) -> None:
    problem = make((1, channels, 41, 45), (9, channels, 1, 1), dtype, residual=True, stride=stride)
    problem.expected().check(problem.run("pointwise", num_threads=threads))


@pytest.mark.parametrize("stride", [1, (3, 1, 1), (1, 2, 1), (2, 3, 2)], ids=str)
def test_depth(dtype: Any, stride: Any) -> None:
    weight = [(2, 3, 1, 1, 1), (11, 40, 1, 1, 1)]
    make((2, 43, 5, 9, 31), weight, dtype, residual=True, stride=stride).check("pointwise")


@pytest.mark.parametrize("layout", ["stepped", "reversed", "moved", "fortran"])
@pytest.mark.parametrize("stride", [1, 2])
def test_views(dtype: Any, layout: str, stride: int) -> None:
    problem = make((2, 20, 33, 47), (17, 20, 1, 1), dtype, stride=stride)
    y = replace(problem, x=relayout(problem.x, layout)).run("pointwise")
    np.testing.assert_array_equal(y, problem.run("reference"))


def test_planes_that_share_cache_sets(dtype: Any) -> None:
    make((1, 33, 32, 64), (9, 33, 1, 1), dtype, residual=True).check("pointwise")
