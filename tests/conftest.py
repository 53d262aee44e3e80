"""Hypothesis profiles, and the enumeration of what the binary under test reports."""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import Any
from zlib import crc32

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from problems import GENERAL

import pyconv

settings.register_profile(
    "ci",
    max_examples=60,
    derandomize=True,
    deadline=None,
    # An algorithm for some problems only rejects the others.
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
settings.register_profile("thorough", settings.get_profile("ci"), max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


# A test that takes an argument of one of these names runs with each of its values; a general
# algorithm serves every problem.
ENUMERATED = {
    "algorithm": ("auto", *pyconv.algorithms()),
    "general": ("auto", *GENERAL),
    "dtype": (np.float32, np.float64),
    "data_format": ("channels_first", "channels_last"),
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Multiply each test by the algorithms, element types and formats that it asks for."""
    for name, values in ENUMERATED.items():
        if name in metafunc.fixturenames:
            ids = [getattr(value, "__name__", value) for value in values]
            metafunc.parametrize(name, values, ids=ids)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare --sample."""
    parser.addoption(
        "--sample",
        type=int,
        default=1,
        metavar="N",
        help="run each test with its first parameters, and with one in N of the others",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what --sample leaves out: by a hash, lest every N-th be of one dtype."""
    number = config.getoption("sample")
    seen: set[str] = set()
    chosen: dict[bool, list[pytest.Item]] = {True: [], False: []}
    for item in items:
        test = item.nodeid.partition("[")[0]
        chosen[test not in seen or crc32(item.nodeid.encode()) % number == 0].append(item)
        seen.add(test)
    items[:] = chosen[True]
    config.hook.pytest_deselected(items=chosen[False])


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, Any, Any]:
    """Skip a test whose named algorithm is not made for its problem."""
    try:
        return (yield)
    except ValueError as error:
        parameters = pyfuncitem.callspec.params if hasattr(pyfuncitem, "callspec") else {}
        algorithm = parameters.get("algorithm")
        if algorithm is None or f"algorithm: {algorithm} cannot serve" not in str(error):
            raise
        pytest.skip(str(error))
