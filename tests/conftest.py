"""Hypothesis profiles, and the enumeration of what the binary under test reports."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from problems import DIRECT

import pyconv

settings.register_profile(
    "ci",
    max_examples=60,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("thorough", settings.get_profile("ci"), max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


# A test that takes an argument of one of these names runs with each of its values; a general
# algorithm serves every problem.
ENUMERATED = {
    "algorithm": ("auto", *pyconv.algorithms()),
    "general": ("auto", *DIRECT),
    "dtype": (np.float32, np.float64),
    "data_format": ("channels_first", "channels_last"),
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Multiply each test by the algorithms, element types and formats that it asks for."""
    for name, values in ENUMERATED.items():
        if name in metafunc.fixturenames:
            ids = [getattr(value, "__name__", value) for value in values]
            metafunc.parametrize(name, values, ids=ids)
