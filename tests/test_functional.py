"""conv1d, conv2d and conv3d: every argument, every tail, against the oracle."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from problems import GENERAL, PADDING_MODES, make, problems

import pyconv

# Up to two 16-lane vectors and one more, then around the three-vector panel and its double.
TAILS = (*range(1, 34), 47, 48, 49, 95, 96, 97)


@given(data=st.data())
def test_any_problem(general: str, dtype: Any, data: st.DataObject) -> None:
    problem = data.draw(problems(dtype))
    problem.check(general)


@pytest.mark.parametrize("special", sorted(set(pyconv.algorithms()) - set(GENERAL)))
@given(data=st.data())
def test_any_problem_it_is_made_for(special: str, dtype: Any, data: st.DataObject) -> None:
    problem = data.draw(problems(dtype, special))
    problem.check(special)


@pytest.mark.parametrize("width", TAILS)
def test_every_width(algorithm: str, dtype: Any, data_format: str, width: int) -> None:
    problem = make((1, 3, 2, width), (5, 3, 1, 3), dtype, padding=(0, 1), data_format=data_format)
    problem.check(algorithm)


@pytest.mark.parametrize("out_channels", TAILS)
def test_every_count_of_outputs(
    algorithm: str, dtype: Any, data_format: str, out_channels: int
) -> None:
    problem = make((1, 3, 3, 5), (out_channels, 3, 2, 2), dtype, data_format=data_format)
    problem.check(algorithm)


@pytest.mark.parametrize("in_channels", TAILS)
def test_every_count_of_inputs(
    algorithm: str, dtype: Any, data_format: str, in_channels: int
) -> None:
    problem = make((1, in_channels, 3, 5), (3, in_channels, 2, 2), dtype, data_format=data_format)
    problem.check(algorithm)


@pytest.mark.parametrize("stride", [2, 3, 4])
@pytest.mark.parametrize("width", range(1, 20))
def test_every_width_with_a_stride(
    algorithm: str, dtype: Any, data_format: str, stride: int, width: int
) -> None:
    problem = make(
        (1, 2, 3, stride * (width - 1) + 1),
        (3, 2, 3, 3),
        dtype,
        stride=stride,
        padding=1,
        data_format=data_format,
    )
    problem.check(algorithm)


@pytest.mark.parametrize(
    ("x_shape", "weight_shape", "arguments"),
    [
        ((2, 20, 9, 9), (24, 20, 3, 3), dict(padding=1)),
        ((1, 3, 23, 23), (16, 3, 7, 7), dict(stride=2, padding=3)),
        ((1, 40, 7, 7), (50, 40, 1, 1), {}),
        ((1, 12, 8, 8), (12, 1, 3, 3), dict(groups=12, padding=1)),
        ((1, 4, 8, 8), (12, 1, 5, 5), dict(groups=4, padding=2)),
        ((1, 32, 7, 7), (32, 4, 3, 3), dict(groups=8, padding=1)),
        ((1, 21, 5, 6), (35, 3, 3, 3), dict(groups=7, padding=1, stride=2)),
        ((1, 6, 15, 15), (7, 6, 3, 3), dict(dilation=6, padding=6)),
        ((2, 9, 70), (11, 9, 9), dict(padding=4, stride=2)),
        ((1, 5, 4, 6, 7), (6, 5, 3, 3, 3), dict(padding=1, stride=(1, 2, 2))),
        ((1, 5, 6, 4, 7), (6, 5, 3, 1, 1), dict(padding=(1, 0, 0))),
        (
            (2, 4, 5, 3, 8),
            (6, 2, 2, 1, 3),
            dict(padding=(1, 2, 1), stride=(1, 2, 1), dilation=(2, 1, 1), groups=2),
        ),
        (
            (1, 2, 5, 4, 9),
            (3, 2, 3, 1, 2),
            dict(padding=((2, 1), (3, 0), (0, 1)), padding_mode="reflect"),
        ),
        ((1, 2, 16, 3), (3, 2, 8, 1), dict(padding=(7, 0))),
        ((1, 2, 3, 3), (3, 2, 3, 3), dict(padding=9, stride=4)),
    ],
    ids=lambda value: str(value) if isinstance(value, tuple) else None,
)
@pytest.mark.parametrize("residual", [False, True])
def test_layers_of_common_networks(
    algorithm: str,
    dtype: Any,
    data_format: str,
    x_shape: tuple[int, ...],
    weight_shape: tuple[int, ...],
    arguments: dict[str, Any],
    residual: bool,
) -> None:
    problem = make(
        x_shape, weight_shape, dtype, residual=residual, data_format=data_format, **arguments
    )
    problem.check(algorithm)


@pytest.mark.parametrize("mode", PADDING_MODES)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_widest_padding_of_every_mode(
    algorithm: str, dtype: Any, data_format: str, mode: str, rank: int
) -> None:
    size = 4
    widest = {"zeros": 9, "reflect": size - 1, "replicate": 9, "circular": size}[mode]
    problem = make(
        (1, 2, *(size,) * rank),
        (3, 2, *(2,) * rank),
        dtype,
        padding=((widest, 1),) + ((0, widest),) * (rank - 1),
        padding_mode=mode,
        data_format=data_format,
    )
    problem.check(algorithm)


@pytest.mark.parametrize("stride", [1, 2, 3, 5])
@pytest.mark.parametrize("size", [1, 2, 5, 6, 7])
@pytest.mark.parametrize("kernel", [1, 2, 3, 4])
def test_same_padding(stride: int, size: int, kernel: int) -> None:
    for padding in ("same", "same_lower"):
        for dilation in (1, 2):
            problem = make(
                (1, 2, size), (3, 2, kernel), stride=stride, padding=padding, dilation=dilation
            )
            y = problem.run()
            assert y.shape[-1] == -(-size // stride)
            problem.expected().check(y)


def test_same_puts_the_odd_element_after_and_same_lower_before() -> None:
    x = np.array([[1, 2, 3, 4]], np.float32)
    weight = np.array([[[1, 10]]], np.float32)
    np.testing.assert_array_equal(pyconv.conv1d(x, weight, padding="same"), [[21, 32, 43, 4]])
    lower = pyconv.conv1d(x, weight, padding="same_lower")
    np.testing.assert_array_equal(lower, [[10, 21, 32, 43]])


def test_padding_may_be_an_int_or_ints_or_pairs() -> None:
    problem = make((1, 2, 5, 6), (3, 2, 3, 3))
    y = problem.run(padding=((1, 1), (1, 1)))
    np.testing.assert_array_equal(y, problem.run(padding=1))
    np.testing.assert_array_equal(y, problem.run(padding=(1, 1)))
    np.testing.assert_array_equal(problem.run(padding="valid"), problem.run(padding=0))
    assert problem.run(padding=[(0, 1), (2, 3)]).shape == (1, 3, 4, 9)


def test_integer_arguments_may_be_numpy_integers() -> None:
    problem = make((1, 4, 7, 7), (4, 2, 3, 3))
    two = np.int64(2)
    y = problem.run(stride=two, padding=np.array([2, 2]), dilation=(two, two), groups=two)
    np.testing.assert_array_equal(y, problem.run(stride=2, padding=2, dilation=2, groups=2))


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_unbatched_input_gives_unbatched_output(
    algorithm: str, data_format: str, rank: int
) -> None:
    problem = make((4, *(5,) * rank), (6, 4, *(3,) * rank), residual=True, data_format=data_format)
    y = problem.run(algorithm)
    assert y.ndim == rank + 1
    assert problem.residual is not None
    batched = replace(problem, x=problem.x[np.newaxis], residual=problem.residual[np.newaxis])
    np.testing.assert_array_equal(batched.run(algorithm), y[np.newaxis])


@pytest.mark.parametrize("groups", [1, 2, 3, 6])
def test_groups_are_split_convolve_concatenate(algorithm: str, dtype: Any, groups: int) -> None:
    problem = make((2, 6, 5, 5), (12, 6 // groups, 3, 3), dtype, groups=groups)
    assert isinstance(problem.weight, np.ndarray) and problem.bias is not None
    parts = [
        pyconv.conv2d(x, weight, bias, algorithm=algorithm)
        for x, weight, bias in zip(
            np.split(problem.x, groups, axis=1),
            np.split(problem.weight, groups),
            np.split(problem.bias, groups),
            strict=True,
        )
    ]
    np.testing.assert_array_equal(problem.run(algorithm), np.concatenate(parts, axis=1))


@pytest.mark.parametrize(
    "pairs", [[(2, 3)], [(2, 4), (3, 5)], [(1, 1), (17, 2), (4, 19)], [(2, 2), (2, 2)]], ids=str
)
def test_uneven_groups(
    algorithm: str, dtype: Any, data_format: str, pairs: list[tuple[int, int]]
) -> None:
    problem = make(
        (2, sum(i for i, _ in pairs), 6, 5),
        [(o, i, 3, 2) for i, o in pairs],
        dtype,
        residual=True,
        padding=1,
        stride=(1, 2),
        activation="relu",
        data_format=data_format,
    )
    problem.check(algorithm)


@pytest.mark.parametrize("batch", [(), (0,), (2,)])
@pytest.mark.parametrize("mode", PADDING_MODES)
def test_batch_of_none(algorithm: str, data_format: str, batch: tuple[int, ...], mode: str) -> None:
    problem = make(
        (*batch, 3, 5, 5), (4, 3, 3, 3), padding=1, padding_mode=mode, data_format=data_format
    )
    problem.check(algorithm)


def test_no_output_channels_give_an_empty_result(algorithm: str, data_format: str) -> None:
    problem = make((2, 3, 5, 5), (0, 3, 3, 3), data_format=data_format)
    problem.check(algorithm)


@pytest.mark.parametrize("bias", [False, True])
def test_no_input_channels_give_an_empty_sum(algorithm: str, data_format: str, bias: bool) -> None:
    problem = make((2, 0, 5, 5), (4, 0, 3, 3), bias=bias, data_format=data_format)
    problem.check(algorithm)


def test_input_of_size_zero_inside_zeros(algorithm: str, data_format: str) -> None:
    problem = make((2, 3, 0, 5), (4, 3, 3, 3), padding=2, data_format=data_format)
    problem.check(algorithm)


@given(
    size=st.integers(0, 4),
    kernel=st.integers(1, 6),
    dilation=st.integers(1, 3),
    padding=st.integers(0, 2),
    batch=st.integers(0, 2),
)
def test_a_kernel_fits_or_is_refused(
    size: int, kernel: int, dilation: int, padding: int, batch: int
) -> None:
    extent = dilation * (kernel - 1) + 1
    problem = make(
        (batch, 2, 5, size), (2, 1, 1, kernel), dilation=dilation, padding=(0, padding), groups=2
    )
    if extent > size + 2 * padding:
        with pytest.raises(ValueError, match=r"[Kk]ernel size"):
            problem.run()
    else:
        problem.check()


def test_a_huge_view_with_a_small_result(general: str) -> None:
    # 2**60 elements in four bytes: index arithmetic must survive them, and no copy may be made.
    x = np.broadcast_to(np.float32(3), (1, 1, 2**30, 2**30))
    weight = np.full((2, 1, 1, 1), 0.5, np.float32)
    y = pyconv.conv2d(x, weight, stride=2**29, algorithm=general)
    np.testing.assert_array_equal(y, np.full((1, 2, 2, 2), 1.5, np.float32))


@pytest.mark.parametrize("stride", [7, 2**32, 2**62])
def test_a_stride_larger_than_the_input_gives_one_output(algorithm: str, stride: int) -> None:
    problem = make((1, 2, 5, 6), (3, 2, 2, 2), stride=stride)
    problem.check(algorithm)


@pytest.mark.parametrize(
    "arguments",
    [
        dict(padding=((0, 0), (0, 2**33)), stride=(1, 2**33)),
        dict(padding=((0, 0), (0, 2**33)), stride=(1, 2**33), padding_mode="replicate"),
        dict(padding=((0, 0), (2**33, 2**33)), dilation=(1, 2**33), stride=(1, 3)),
        dict(padding=((2**33, 2**33), (1, 1)), dilation=(2**34, 1), stride=2),
        dict(padding="same", stride=2**62),
    ],
    ids=str,
)
def test_arguments_beyond_32_bits(algorithm: str, arguments: dict[str, Any]) -> None:
    kernel = (2, 3) if arguments.get("dilation") == (2**34, 1) else (1, 3)
    problem = make((1, 2, 4, 5), (3, 2, *kernel), **arguments)
    problem.check(algorithm)


def test_algorithms_are_listed_with_the_reference_last() -> None:
    names = pyconv.algorithms()
    assert len(set(names)) == len(names)
    assert "im2col_gemm" in names
    assert names[-1] == "reference"
    assert "auto" not in names


@pytest.mark.parametrize("groups", [2, 3])
def test_a_channel_shuffle_is_a_matter_of_where_groups_write(
    dtype: Any, data_format: str, groups: int
) -> None:
    # ShuffleNet's shuffle, without a copy: output channel i of group g is channel i * groups + g.
    problem = make((2, 12, 9, 10), (18, 12 // groups, 1, 1), dtype, data_format=data_format)
    assert isinstance(problem.weight, np.ndarray)
    assert problem.bias is not None
    shared: dict[str, Any] = dict(data_format=data_format, activation="relu")
    y = pyconv.conv2d(problem.x, problem.weight, problem.bias, groups=groups, **shared)
    axis = 1 if data_format == "channels_first" else 3
    shuffled = np.concatenate(
        [y.take(range(i, 18, 18 // groups), axis) for i in range(18 // groups)], axis
    )
    out = np.moveaxis(np.empty_like(y), axis, 0)
    parts = zip(
        np.split(problem.x, groups, axis),
        np.split(problem.weight, groups),
        np.split(problem.bias, groups),
        strict=True,
    )
    for g, (x, weight, bias) in enumerate(parts):
        pyconv.conv2d(x, weight, bias, out=np.moveaxis(out[g::groups], 0, axis), **shared)
    np.testing.assert_array_equal(np.moveaxis(out, 0, axis), shuffled)
