"""Conv1d, Conv2d and Conv3d: construction, weights, plans, copies."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from oracle import Array
from problems import CONVOLUTIONS, LAYERS, PADDING_MODES, make

import pyconv

COPIES: dict[str, Callable[[Any], Any]] = {
    "pickle": lambda layer: pickle.loads(pickle.dumps(layer)),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}


def image(*shape: int, dtype: Any = np.float32) -> Array:
    """A random array."""
    return np.random.default_rng(5).standard_normal(shape).astype(dtype)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("mode", PADDING_MODES)
def test_a_layer_is_the_function(
    general: str, dtype: Any, data_format: str, rank: int, mode: str
) -> None:
    arguments: dict[str, Any] = dict(
        stride=2,
        padding=1,
        dilation=1,
        groups=2,
        padding_mode=mode,
        data_format=data_format,
        activation="silu",
    )
    layer = LAYERS[rank](4, 6, 3, dtype=dtype, algorithm=general, rng=0, **arguments)
    problem = make((2, 4, *(6,) * rank), (6, 2, *(3,) * rank), dtype, residual=True, **arguments)
    problem = replace(problem, weight=layer.weight, bias=layer.bias)
    y = layer(problem.x, residual=problem.residual)
    problem.expected().check(y)
    np.testing.assert_array_equal(y, problem.run(general))
    np.testing.assert_array_equal(layer(problem.x, residual=problem.residual), y)
    out = np.empty_like(y)
    assert layer(problem.x, problem.residual, out, 1) is out
    np.testing.assert_array_equal(out, y)


def test_a_layer_serves_any_input_size_in_any_order() -> None:
    layer = pyconv.Conv2d(3, 5, 3, padding=1, rng=0)
    for shape in [(1, 3, 8, 8), (2, 3, 1, 1), (3, 5, 40), (0, 3, 4, 4), (1, 3, 8, 8)]:
        x = image(*shape)
        np.testing.assert_array_equal(
            layer(x), pyconv.conv2d(x, layer.weight, layer.bias, padding=1)
        )


@pytest.mark.parametrize(
    ("rank", "kernel_size", "kernel"),
    [(1, 3, (3,)), (2, 3, (3, 3)), (2, (1, 5), (1, 5)), (3, 2, (2, 2, 2)), (1, (4,), (4,))],
)
@pytest.mark.parametrize("groups", [1, 2])
def test_weight_and_bias_shapes(
    dtype: Any, rank: int, kernel_size: Any, kernel: tuple[int, ...], groups: int
) -> None:
    layer = LAYERS[rank](4, 6, kernel_size, groups=groups, dtype=dtype)
    assert layer.weight.shape == (6, 4 // groups, *kernel)
    assert layer.bias is not None and layer.bias.shape == (6,)
    assert layer.weight.dtype == layer.bias.dtype == np.dtype(dtype)
    assert LAYERS[rank](4, 6, kernel_size, bias=False).bias is None


@pytest.mark.parametrize(
    ("groups", "shape"), [(1, (6, 6, 1, 1)), (2, (6, 3, 1, 1)), (3, (6, 2, 1, 1))]
)
def test_groups_divide_the_weights(groups: int, shape: tuple[int, ...]) -> None:
    assert pyconv.Conv2d(6, 6, 1, groups=groups).weight.shape == shape


def test_weights_are_read_only_views() -> None:
    layer = pyconv.Conv2d(3, 4, 3)
    assert type(layer.weight) is np.ndarray and type(layer.bias) is np.ndarray
    for array in (layer.weight, layer.bias):
        assert not array.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
        with pytest.raises(ValueError, match="WRITEABLE"):
            array.flags.writeable = True
    with pytest.raises(AttributeError):
        layer.weight = np.zeros((4, 3, 3, 3), np.float32)  # type: ignore[misc]
    with pytest.raises(AttributeError, match="stride"):
        del layer.stride


def test_a_list_that_names_an_activation_may_change_afterwards() -> None:
    activation: Any = ["leaky_relu", 0.1]
    layer = pyconv.Conv2d(3, 4, 3, activation=activation, rng=0)
    x = image(3, 6, 6)
    y = layer(x)
    activation[1] = 0.9
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(layer))(x), y)


@pytest.mark.parametrize("groups", [1, 4])
def test_initialisation_is_kaiming_uniform(dtype: Any, groups: int) -> None:
    layer = pyconv.Conv2d(32, 64, 5, groups=groups, dtype=dtype, rng=0)
    bound = 1 / math.sqrt(32 // groups * 25)
    for array in (layer.weight, layer.bias):
        assert array is not None
        assert np.abs(array).max() <= bound
        assert np.abs(array).max() > 0.9 * bound
        assert abs(float(array.mean())) < 0.3 * bound


def test_rng_is_a_seed_or_a_generator() -> None:
    def weight(rng: Any) -> Array:
        return np.asarray(pyconv.Conv2d(3, 4, 3, rng=rng).weight)

    np.testing.assert_array_equal(weight(7), weight(7))
    np.testing.assert_array_equal(weight(7), weight(np.random.default_rng(7)))
    generator = np.random.default_rng(7)
    assert not np.array_equal(weight(generator), weight(generator))
    assert not np.array_equal(weight(None), weight(None))
    assert not np.array_equal(weight(7), weight(8))


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_from_weights(dtype: Any, data_format: str, rank: int) -> None:
    arguments: dict[str, Any] = dict(
        padding="same", groups=2, data_format=data_format, activation="relu"
    )
    problem = make((2, 4, *(5,) * rank), (6, 2, *(3,) * rank), dtype, **arguments)
    layer = LAYERS[rank].from_weights(problem.weight, problem.bias, **arguments)
    np.testing.assert_array_equal(layer.weight, problem.weight)
    np.testing.assert_array_equal(layer.bias, problem.bias)
    np.testing.assert_array_equal(layer(problem.x), problem.run())


def test_from_weights_without_bias_and_with_positional_arguments() -> None:
    problem = make((2, 4, 7, 7), (6, 2, 3, 3), bias=False, stride=2, padding=1, groups=2)
    layer = pyconv.Conv2d.from_weights(problem.weight, None, 2, 1, 1, 2)
    assert layer.bias is None
    np.testing.assert_array_equal(layer(problem.x), problem.run())


def test_uneven_groups() -> None:
    problem = make((2, 5, 6, 6), [(4, 2, 3, 3), (5, 3, 3, 3)], padding=1)
    pairs = problem.arguments["groups"]
    layer = pyconv.Conv2d.from_weights(problem.weight, problem.bias, padding=1, groups=pairs)
    np.testing.assert_array_equal(layer(problem.x), problem.run())
    for ours, theirs in zip(layer.weight, problem.weight, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    fresh = pyconv.Conv2d(5, 9, 3, groups=pairs, rng=0)
    assert [part.shape for part in fresh.weight] == [(4, 2, 3, 3), (5, 3, 3, 3)]
    with pytest.raises(ValueError, match="groups"):
        pyconv.Conv2d(6, 9, 3, groups=pairs)


def test_a_layer_owns_its_weights() -> None:
    problem = make((1, 3, 5, 5), (4, 3, 3, 3))
    layer = pyconv.Conv2d.from_weights(problem.weight, problem.bias)
    assert isinstance(problem.weight, np.ndarray) and problem.bias is not None
    y, weight = layer(problem.x), layer.weight.copy()
    problem.weight[...] = 0
    problem.bias[...] = 0
    np.testing.assert_array_equal(layer(problem.x), y)
    np.testing.assert_array_equal(layer.weight, weight)


def test_set_weights_repacks(algorithm: str) -> None:
    layer = pyconv.Conv2d(3, 4, 3, algorithm=algorithm, rng=0)
    problem = make((1, 3, 5, 5), (4, 3, 3, 3))
    layer(problem.x)
    layer.set_weights(problem.weight, problem.bias)
    np.testing.assert_array_equal(layer.weight, problem.weight)
    np.testing.assert_array_equal(layer.bias, problem.bias)
    np.testing.assert_array_equal(layer(problem.x), problem.run(algorithm))


def test_set_weights_refuses_others_and_keeps_its_own() -> None:
    layer = pyconv.Conv2d(3, 4, 3, rng=0)
    x = image(1, 3, 5, 5)
    y = layer(x)
    right = np.zeros((4, 3, 3, 3), np.float32)
    with pytest.raises(ValueError, match="weight"):
        layer.set_weights(np.zeros((4, 3, 2, 2), np.float32), np.zeros(4, np.float32))
    with pytest.raises(ValueError, match="bias"):
        layer.set_weights(right, np.zeros(3, np.float32))
    with pytest.raises(TypeError, match="weight"):
        layer.set_weights(right.astype(np.float64), np.zeros(4, np.float32))
    np.testing.assert_array_equal(layer(x), y)


@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        dict(bias=False, stride=2),
        dict(padding="same", dilation=2, groups=3, activation=("clip", -1, 1)),
        dict(padding=((0, 1), (2, 1)), padding_mode="reflect", dtype=np.float64),
        dict(data_format="channels_last", algorithm="reference"),
    ],
    ids=str,
)
def test_copies_compute_the_same(way: str, arguments: dict[str, Any]) -> None:
    layer = pyconv.Conv2d(6, 9, 3, rng=0, **arguments)
    x = image(2, 6, 6, 6, dtype=arguments.get("dtype", np.float32))
    twin = COPIES[way](layer)
    assert type(twin) is pyconv.Conv2d
    assert repr(twin) == repr(layer)
    np.testing.assert_array_equal(twin.weight, layer.weight)
    np.testing.assert_array_equal(twin(x), layer(x))
    assert twin.plan(x.shape) == layer.plan(x.shape)


def test_a_copy_is_independent() -> None:
    layer = pyconv.Conv2d(3, 4, 3, rng=0)
    x = image(1, 3, 5, 5)
    y = layer(x)
    for way in COPIES.values():
        twin = way(layer)
        twin.set_weights(np.zeros((4, 3, 3, 3), np.float32), np.zeros(4, np.float32))
        assert not twin(x).any()
        np.testing.assert_array_equal(layer(x), y)


def test_a_pickle_holds_plain_weights_only() -> None:
    layer = pyconv.Conv2d(64, 64, 3, rng=0)
    layer(image(1, 64, 8, 8))
    assert len(pickle.dumps(layer)) < 1.1 * layer.weight.nbytes + 2000


@pytest.mark.parametrize(
    ("make_layer", "text"),
    [
        (
            lambda: pyconv.Conv2d(3, 8, 3, padding=1),
            "Conv2d(3, 8, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))",
        ),
        (
            lambda: pyconv.Conv1d(4, 6, 5, 2, groups=2, bias=False),
            "Conv1d(4, 6, kernel_size=(5,), stride=(2,), groups=2, bias=False)",
        ),
        (
            lambda: pyconv.Conv3d(1, 2, (1, 2, 3), dilation=(1, 2, 1)),
            "Conv3d(1, 2, kernel_size=(1, 2, 3), stride=(1, 1, 1), dilation=(1, 2, 1))",
        ),
    ],
)
def test_repr_reads_like_torch(make_layer: Callable[[], object], text: str) -> None:
    assert repr(make_layer()) == text


def test_repr_shows_what_torch_does_not_have() -> None:
    layer = pyconv.Conv2d(3, 8, 3, dtype=np.float64, data_format="channels_last", activation="relu")
    for part in ("float64", "channels_last", "relu"):
        assert part in repr(layer)


def assert_is_partition(text: str, at_least: int) -> None:
    """Of at least so many tasks: their number, and the factors of it that are not 1."""
    tasks, _, factors = text.partition(": ")
    counts = [int(factor.split()[0]) for factor in factors.split(" x ") if factor]
    assert tasks == f"{math.prod(counts)} task{'s' * (math.prod(counts) != 1)}"
    assert math.prod(counts) >= at_least and 1 not in counts


def test_plan_describes_the_call(algorithm: str, dtype: Any, data_format: str) -> None:
    layer = pyconv.Conv2d(
        16, 24, 3, padding=1, dtype=dtype, data_format=data_format, algorithm=algorithm
    )
    x = image(2, 16, 12, 16, dtype=dtype)
    if data_format == "channels_last":
        x = np.ascontiguousarray(np.moveaxis(x, 1, -1))
    plan, y = layer.plan(x.shape), layer(x)
    assert plan.algorithm in pyconv.algorithms()
    assert algorithm in ("auto", plan.algorithm)
    assert plan.isa in pyconv.isas()
    assert plan.output_shape == y.shape
    assert plan.macs == 2 * 24 * 12 * 16 * 16 * 9
    assert plan.bytes_moved >= x.nbytes + y.nbytes + layer.weight.nbytes
    assert plan.packed_weight_bytes >= layer.weight.nbytes
    assert 1 <= plan.threads <= pyconv.get_num_threads()
    assert 0 <= plan.workspace_bytes <= plan.threads * 2**23
    assert plan.tile
    assert_is_partition(plan.partition, at_least=plan.threads)
    assert isinstance(plan.reason, str) and plan.reason
    assert plan.algorithm in str(plan)


def test_plan_of_one_image_decides_the_algorithm() -> None:
    layer = pyconv.Conv2d(16, 24, 3)
    plans = [layer.plan((n, 16, 12, 16)) for n in (1, 2, 64)]
    assert len({plan.algorithm for plan in plans}) == 1
    assert layer.plan((16, 12, 16)).output_shape == (24, 10, 14)


@pytest.mark.parametrize("threads", [1, 2, 5, 16])
@pytest.mark.parametrize("groups", [1, 2, 16])
def test_partition_has_work_for_every_thread(
    algorithm: str, data_format: str, threads: int, groups: int
) -> None:
    kernel = 1 if algorithm == "pointwise" else 3
    shape = (1, 32, 60, 60) if data_format == "channels_first" else (1, 60, 60, 32)
    layer = pyconv.Conv2d(
        32, 64, kernel, groups=groups, data_format=data_format, algorithm=algorithm
    )
    with pyconv.num_threads(threads):
        plan = layer.plan(shape)
    assert_is_partition(plan.partition, at_least=plan.threads)


def test_partition_of_several_convolutions() -> None:
    layer = pyconv.DepthwiseSeparableConv2d(32, 64, 3)
    assert_is_partition(layer.plan((3, 32, 200, 200)).partition, at_least=3)
    with pyconv.num_threads(2):
        text = layer.plan((3, 32, 14, 14)).partition
    prefix, _, parts = text.partition(" images, each ")
    assert prefix == "3" and parts.count(", then ") == 1
    for part in parts.split(", then "):
        assert_is_partition(part, at_least=2)


def test_no_outputs_are_no_tasks() -> None:
    assert pyconv.Conv2d(3, 4, 3).plan((0, 3, 8, 8)).partition == "0 tasks"
    layer = pyconv.DepthwiseSeparableConv2d(3, 4, 3)
    assert layer.plan((0, 3, 8, 8)).partition == "0 tasks"


@pytest.mark.parametrize("threads", [1, 2, 5, 16])
@pytest.mark.parametrize(
    ("shape", "stride"), [((1, 512, 7, 7), 1), ((1, 512, 15, 15), 2), ((1, 512, 1, 49), 1)]
)
def test_partition_of_small_1x1_planes(
    data_format: str, threads: int, shape: tuple[int, ...], stride: int
) -> None:
    if data_format == "channels_last":
        shape = (shape[0], *shape[2:], shape[1])
    layer = pyconv.Conv2d(512, 512, 1, stride, data_format=data_format, algorithm="pointwise")
    with pyconv.num_threads(threads):
        plan = layer.plan(shape)
    assert_is_partition(plan.partition, at_least=min(plan.threads, 4))


def test_plan_refuses_what_the_call_refuses() -> None:
    layer = pyconv.Conv2d(16, 24, 3)
    with pytest.raises(ValueError, match="channels"):
        layer.plan((1, 15, 12, 16))
    with pytest.raises(ValueError, match=r"[Kk]ernel size"):
        layer.plan((1, 16, 2, 16))


@pytest.mark.parametrize("kernel", [(3,), (3, 3), (1, 2, 3)])
@pytest.mark.parametrize("with_bias", [False, True])
def test_fold_batch_norm(dtype: Any, kernel: tuple[int, ...], with_bias: bool) -> None:
    rng = np.random.default_rng(0)
    rank = len(kernel)
    problem = make((2, 4, *(6,) * rank), (5, 4, *kernel), dtype, bias=with_bias)
    mean, gamma, beta = rng.standard_normal((3, 5)).astype(dtype)
    var = rng.uniform(0.5, 2, 5).astype(dtype)
    weight, bias = pyconv.fold_batch_norm(
        problem.weight, problem.bias, mean, var, gamma, beta, eps=1e-3
    )
    assert weight.dtype == bias.dtype == np.dtype(dtype)
    assert weight.shape == problem.weight.shape and bias.shape == (5,)  # type: ignore[union-attr]

    def column(values: Array) -> Array:
        return values.astype(np.float64).reshape(-1, *(1,) * rank)

    y = problem.expected().value
    scale = column(gamma) / np.sqrt(column(var) + 1e-3)
    normal = (y - column(mean)) * scale + column(beta)
    folded = CONVOLUTIONS[rank](problem.x, weight, bias)
    np.testing.assert_allclose(folded, normal, atol=200 * float(np.finfo(dtype).eps), rtol=0)


def test_fold_batch_norm_names_what_is_wrong() -> None:
    weight, four, three = np.ones((4, 3, 3, 3), np.float32), np.ones(4, np.float32), np.ones(3)
    for name in ("mean", "var", "gamma", "beta"):
        arguments: dict[str, Any] = dict.fromkeys(("mean", "var", "gamma", "beta"), four)
        arguments[name] = three.astype(np.float32)
        with pytest.raises(ValueError, match=name):
            pyconv.fold_batch_norm(weight, None, **arguments)
    with pytest.raises(ValueError, match=r"^var: got -1"):
        pyconv.fold_batch_norm(weight, None, four, -four, None, None)
    statistics = (four, four, None, None)
    for eps, error in (("a", TypeError), (four, TypeError), (-2, ValueError), (np.nan, ValueError)):
        with pytest.raises(error, match=r"^eps: got "):
            pyconv.fold_batch_norm(weight, None, *statistics, eps)
