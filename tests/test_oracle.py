"""The oracle itself, against hand-made results, NumPy and torch."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import oracle
import pytest
from problems import PADDING_MODES, make


def test_one_window_is_a_dot_product() -> None:
    x = np.arange(9.0).reshape(1, 1, 3, 3)
    weight = np.array([[[[1.0, 2.0], [3.0, 4.0]]]])
    expected = oracle.expect(x, weight, np.array([0.5]))
    np.testing.assert_array_equal(expected.value, [[[[27.5, 37.5], [57.5, 67.5]]]])


def test_agrees_with_numpy_correlate() -> None:
    rng = np.random.default_rng(0)
    x, taps = rng.standard_normal(20), rng.standard_normal(5)
    expected = oracle.expect(x[np.newaxis], taps[np.newaxis, np.newaxis], padding=2)
    np.testing.assert_allclose(expected.value[0], np.correlate(x, taps, "same"), rtol=1e-13)


@pytest.mark.parametrize("mode", PADDING_MODES)
def test_sources_are_those_of_numpy_pad(mode: str) -> None:
    numpy_mode: Any = {
        "zeros": "constant",
        "reflect": "reflect",
        "replicate": "edge",
        "circular": "wrap",
    }[mode]
    padded = np.pad(np.arange(1, 6), 4, mode=numpy_mode)
    sources = [oracle.source(i, 5, mode) for i in range(-4, 9)]
    assert np.array([1, 2, 3, 4, 5, 0])[sources].tolist() == padded.tolist()


def test_axes_without_outputs() -> None:
    for shape in ((1, 2, 4, 0), (1, 2, 0, 4)):
        y = oracle.expect(np.ones(shape, np.float32), np.ones((3, 2, 1, 1), np.float32)).value
        assert y.shape == (1, 3, *shape[2:])


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("mode", PADDING_MODES)
def test_agrees_with_torch(rank: int, mode: str) -> None:
    torch = pytest.importorskip("torch")
    names = {"zeros": "constant", "replicate": "replicate"}
    sizes, kernel = (9, 8, 7)[:rank], (3, 2, 4)[:rank]
    for stride, dilation, groups in itertools.product((1, 3), (1, 2), (1, 2)):
        pads = [(2, 1), (0, 4), (3, 3)][:rank]
        problem = make(
            (2, 4, *sizes),
            (6, 4 // groups, *kernel),
            np.float64,
            stride=stride,
            padding=pads,
            dilation=dilation,
            groups=groups,
            padding_mode=mode,
        )
        flat = [p for pair in reversed(pads) for p in pair]
        padded = torch.nn.functional.pad(
            torch.from_numpy(problem.x), flat, mode=names.get(mode, mode)
        )
        function = getattr(torch.nn.functional, f"conv{rank}d")
        answer = function(
            padded,
            torch.from_numpy(problem.weight),
            torch.from_numpy(problem.bias),
            stride=stride,
            dilation=dilation,
            groups=groups,
        )
        problem.expected().check(answer.numpy())


@pytest.mark.parametrize("activation", oracle.ACTIVATIONS[1:], ids=str)
def test_activations_are_those_of_torch(activation: Any) -> None:
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    values = np.linspace(-12, 12, 481)
    match activation:
        case "leaky_relu", slope:
            answer = functional.leaky_relu(torch.from_numpy(values), slope)
        case "clip", low, high:
            answer = torch.clip(torch.from_numpy(values), low, high)
        case name:
            answer = getattr(functional, name)(torch.from_numpy(values))
    no_error = np.zeros_like(values)
    oracle.activated(values, no_error, activation, np.float64).check(answer.numpy())


def test_the_bound_is_tight_enough_to_see_one_wrong_tap() -> None:
    problem = make((1, 8, 6, 6), (4, 8, 3, 3))
    expected = problem.expected()
    wrong = expected.value.astype(np.float32)
    wrong[0, 2, 1, 3] *= 1.0001
    with pytest.raises(AssertionError, match=r"first at \(0, 2, 1, 3\)"):
        expected.check(wrong)
