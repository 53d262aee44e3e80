"""Layers of several convolutions in one pass: the bits of the calls one after the other."""

from __future__ import annotations

import copy
import pickle
import re
from typing import Any

import numpy as np
import pytest
from oracle import ACTIVATIONS, Array, activated, expect
from problems import LAYOUTS, PADDING_MODES, make, relayout
from processes import PEAK, run_script

import pyconv


def same_bits(got: Array, expected: Array) -> None:
    """Assert equality of every bit."""
    assert got.shape == expected.shape and got.dtype == expected.dtype
    np.testing.assert_array_equal(
        np.ascontiguousarray(got).view(np.uint8), np.ascontiguousarray(expected).view(np.uint8)
    )


def image(*shape: int, dtype: Any = np.float32, data_format: str = "channels_first") -> Array:
    """A random array; `shape` is channels-first."""
    x = np.random.default_rng(3).standard_normal(shape).astype(dtype)
    return x if data_format == "channels_first" else np.ascontiguousarray(np.moveaxis(x, -3, -1))


def separable(*arguments: Any, **more: Any) -> pyconv.DepthwiseSeparableConv2d:
    """A layer with activations that do not commute with sums."""
    options = dict(depthwise_activation="relu6", activation="relu", rng=1)
    return pyconv.DepthwiseSeparableConv2d(*arguments, **{**options, **more})


def check_separable(layer: pyconv.DepthwiseSeparableConv2d, x: Array, **more: Any) -> None:
    """The fused layer gives the bits of its parts."""
    same_bits(layer(x, **more), layer.pointwise(layer.depthwise(x), **more))


def block_rows(layer: Any, x: Array) -> int:
    """How many output rows the plan computes at a time."""
    found = re.fullmatch(r"one pass: blocks of (\d+) output rows .*", layer.plan(x.shape).reason)
    assert found is not None
    return int(found.group(1))


# Large enough that an image is cut into several blocks of rows.
LARGE = [
    ((32, 40), (1, 32, 90, 70), 3, 1, 1),
    ((48, 20), (1, 48, 135, 99), 3, 2, 1),
    ((100, 70), (2, 100, 41, 33), 5, 1, 2),
    ((64, 65), (1, 64, 170, 121), 3, 3, 0),
    ((1024, 8), (1, 1024, 14, 30), 3, 1, 1),  # copied, if channels are last
]


@pytest.mark.parametrize("case", LARGE, ids=str)
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_separable_in_blocks(dtype: Any, data_format: str, case: Any, threads: int) -> None:
    channels, shape, kernel, stride, padding = case
    layer = separable(*channels, kernel, stride, padding, dtype=dtype, data_format=data_format)
    x = image(*shape, dtype=dtype, data_format=data_format)
    axis = -2 if data_format == "channels_first" else -3
    assert block_rows(layer, x) < layer.plan(x.shape).output_shape[axis]
    check_separable(layer, x, num_threads=threads)


@pytest.mark.parametrize("mode", PADDING_MODES)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dilation", [1, (2, 3)], ids=str)
def test_separable_padding_and_dilation(
    data_format: str, mode: str, stride: int, dilation: Any
) -> None:
    layer = separable(
        40, 24, 3, stride, ((4, 2), (3, 5)), dilation, padding_mode=mode, data_format=data_format
    )
    check_separable(layer, image(2, 40, 75, 66, data_format=data_format), num_threads=2)


@pytest.mark.parametrize("multiplier", [2, 3, 7])
@pytest.mark.parametrize("channels", [1, 3, 17])
def test_separable_multipliers(
    dtype: Any, data_format: str, multiplier: int, channels: int
) -> None:
    layer = separable(
        channels, 9, 3, 1, 1, multiplier=multiplier, dtype=dtype, data_format=data_format
    )
    for size in (1, 6, 96):
        shape = (1, channels, size, size + 1)
        check_separable(layer, image(*shape, dtype=dtype, data_format=data_format))


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_separable_epilogues(dtype: Any, data_format: str, activation: Any) -> None:
    layer = separable(
        33,
        18,
        3,
        1,
        1,
        dtype=dtype,
        data_format=data_format,
        depthwise_activation=activation,
        activation=activation,
    )
    x = image(1, 33, 61, 53, dtype=dtype, data_format=data_format)
    residual = image(1, 18, 61, 53, dtype=dtype, data_format=data_format)
    check_separable(layer, x, residual=residual)


@pytest.mark.parametrize("batch", [(), (0,), (1,), (5,)], ids=str)
@pytest.mark.parametrize("threads", [1, 2, 8])
@pytest.mark.parametrize("size", [1, 7, 40])
def test_separable_batches(
    data_format: str, batch: tuple[int, ...], threads: int, size: int
) -> None:
    layer = separable(64, 64, 3, 1, 1, data_format=data_format)
    x = image(*batch, 64, size, size, data_format=data_format)
    check_separable(layer, x, num_threads=threads)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_separable_layouts(data_format: str, layout: str) -> None:
    layer = separable(20, 24, 3, 1, 1, data_format=data_format)
    x = image(2, 20, 70, 50, data_format=data_format)
    y = layer.pointwise(layer.depthwise(x))
    same_bits(layer(relayout(x, layout)), y)
    if layout not in ("misaligned", "readonly"):
        out = relayout(np.zeros_like(y), layout)
        assert layer(x, out=out) is out
        same_bits(out, y)


@pytest.mark.parametrize("named", ["auto_direct", "im2col_gemm", "reference"])
def test_separable_with_a_named_algorithm(data_format: str, named: str) -> None:
    layer = separable(6, 8, 3, 2, 1, algorithm=named, data_format=data_format)
    x = image(3, 6, 11, 12, data_format=data_format)
    auto = separable(6, 8, 3, 2, 1, data_format=data_format)
    same_bits(layer(x, num_threads=2), auto(x))
    if named == "reference":
        assert layer.plan(x.shape).algorithm == "reference + reference"
        assert layer.plan(x.shape).reason.startswith("whole images")
    block = inverted(16, 16, algorithm=named, data_format=data_format)
    x = image(2, 16, 13, 9, data_format=data_format)
    same_bits(block(x, num_threads=2), inverted(16, 16, data_format=data_format)(x))


def test_an_algorithm_that_cannot_serve_both_parts() -> None:
    with pytest.raises(ValueError, match="algorithm: pointwise cannot serve"):
        separable(6, 8, 3, algorithm="pointwise")(image(1, 6, 9, 9))


def test_separable_is_what_the_oracle_says(dtype: Any, data_format: str) -> None:
    depthwise = make(
        (1, 20, 30, 41),
        (20, 1, 3, 3),
        dtype,
        padding=1,
        groups=20,
        data_format=data_format,
        activation="silu",
    )
    pointwise = make((1, 20, 1, 1), (12, 20, 1, 1), dtype)
    assert isinstance(pointwise.weight, np.ndarray)
    middle = depthwise.expected()
    expected = expect(middle.value, pointwise.weight, pointwise.bias, data_format=data_format)
    reach = expect(
        middle.bound, np.abs(pointwise.weight), data_format=data_format
    ).value  # what the errors of the depthwise part come to
    bound = expected.bound / np.finfo(np.float64).eps * np.finfo(dtype).eps + reach
    y = pyconv.separable_conv2d(
        depthwise.x,
        depthwise.weight,
        pointwise.weight,
        depthwise.bias,
        pointwise.bias,
        padding=1,
        depthwise_activation="silu",
        activation="relu",
        data_format=data_format,
    )
    activated(expected.value, bound, "relu", dtype).check(y)


def test_the_plan_of_a_separable_layer() -> None:
    layer = separable(32, 64, 3, 1, 1)
    shape = (1, 32, 112, 112)
    plan = layer.plan(shape)
    assert plan.algorithm == "depthwise + pointwise"
    assert plan.output_shape == (1, 64, 112, 112)
    assert plan.macs == 112 * 112 * 32 * (9 + 64)
    assert plan.workspace_bytes <= 2**21  # a huge page
    assert "blocks of" in plan.reason and str(plan)
    with pytest.raises(ValueError, match="channels"):
        layer.plan((1, 31, 9, 9))


def inverted(*arguments: Any, **more: Any) -> pyconv.InvertedResidual:
    """A block with a fixed seed."""
    return pyconv.InvertedResidual(*arguments, rng=2, **more)


def check_inverted(block: pyconv.InvertedResidual, x: Array, **more: Any) -> None:
    """The fused block gives the bits of its parts."""
    hidden = x if block.expand is None else block.expand(x)
    residual = x if block.has_residual else None
    y = block.project(block.depthwise(hidden), residual)
    same_bits(block(x, **more), y)


@pytest.mark.parametrize("stride", [1, 2, (2, 1)], ids=str)
@pytest.mark.parametrize("kernel", [3, 5, (1, 7)], ids=str)
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_inverted_residual(
    dtype: Any, data_format: str, stride: Any, kernel: Any, threads: int
) -> None:
    block = inverted(16, 16, kernel, stride, dtype=dtype, data_format=data_format)
    assert block.has_residual == (stride == 1)
    for size in ((1, 1), (8, 5), (57, 45)):
        x = image(2, 16, *size, dtype=dtype, data_format=data_format)
        check_inverted(block, x, num_threads=threads)


@pytest.mark.parametrize("dilation", [1, 2, (5, 1)], ids=str)
@pytest.mark.parametrize("stride", [1, 3])
def test_inverted_residual_of_many_blocks(data_format: str, dilation: Any, stride: int) -> None:
    block = inverted(24, 20, 3, stride, dilation, data_format=data_format)
    assert not block.has_residual
    x = image(1, 24, 83, 75, data_format=data_format)
    axis = -2 if data_format == "channels_first" else -3
    assert block_rows(block, x) < block.plan(x.shape).output_shape[axis] // 2
    check_inverted(block, x, num_threads=1)
    check_inverted(block, x[0], num_threads=3)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("activation", [None, "hardswish"])
def test_inverted_residual_without_expansion(
    data_format: str, bias: bool, activation: str | None
) -> None:
    block = inverted(24, 24, expansion=1, bias=bias, activation=activation, data_format=data_format)
    assert block.expand is None
    assert block.has_residual
    check_inverted(block, image(1, 24, 60, 50, data_format=data_format))


def test_inverted_residual_layer() -> None:
    block = inverted(4, 4)
    assert block.expand is not None
    assert block.expand.weight.shape == (24, 4, 1, 1)
    assert block.depthwise.weight.shape == (24, 1, 3, 3)
    assert block.project.weight.shape == (4, 24, 1, 1)
    assert block.project.activation is None
    x = image(1, 4, 9, 9)
    y = block(x)
    for twin in (pickle.loads(pickle.dumps(block)), copy.deepcopy(block)):
        same_bits(twin(x), y)
    out = np.empty_like(y)
    assert block(x, out=out) is out
    same_bits(out, y)
    assert repr(block).splitlines()[1].startswith("  (expand): Conv2d(4, 24, kernel_size=(1, 1)")
    assert "expand" not in repr(inverted(4, 4, expansion=1))
    assert block.plan(x.shape).output_shape == x.shape
    with pytest.raises(AttributeError):
        block.expand = None
    with pytest.raises(ValueError, match=r"\bout\b"):
        block(x, out=x)


@pytest.mark.parametrize("expands", [False, True])
def test_inverted_residual_from_weights(dtype: Any, expands: bool) -> None:
    source = inverted(6, 6, (3, 5), dtype=dtype, expansion=4 if expands else 1)
    expand = source.expand
    block = pyconv.InvertedResidual.from_weights(
        None if expand is None else expand.weight[:, :, 0, 0],
        source.depthwise.weight,
        source.project.weight,
        None if expand is None else expand.bias,
        source.depthwise.bias,
        source.project.bias,
    )
    x = image(2, 6, 9, 8, dtype=dtype)
    same_bits(block(x), source(x))


def test_inverted_residual_says_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="kernel_size: got a kernel of"):
        inverted(4, 4, 2)
    with pytest.raises(ValueError, match="expansion"):
        inverted(4, 4, expansion=0)
    ones = [np.ones(s, np.float32) for s in ((8, 4), (8, 1, 3, 3), (4, 8))]
    make_block = pyconv.InvertedResidual.from_weights
    assert make_block(*ones).has_residual
    with pytest.raises(ValueError, match="depthwise_weight"):
        make_block(ones[0][:6], *ones[1:])
    with pytest.raises(ValueError, match="project_weight"):
        make_block(*ones[:2], ones[2][:, :7])
    with pytest.raises(ValueError, match="depthwise_weight: got a kernel of"):
        make_block(ones[0], ones[1][:, :, :2], ones[2])
    with pytest.raises(ValueError, match="expand_bias"):
        make_block(None, *ones[1:], ones[2][:, 0])
    with pytest.raises(TypeError, match="expand_weight"):
        make_block(ones[0].astype(np.float64), *ones[1:])
    with pytest.raises(TypeError, match="float64"):
        make_block(*ones)(image(1, 4, 5, 5, dtype=np.float64))


def test_infinities_in_the_rows_between_do_not_spread() -> None:
    # What is left in a buffer from other rows must not reach a sum.
    x = image(1, 40, 64, 64)
    x[..., :30, :] = np.inf
    layer = separable(40, 16, 3, 1, 1, depthwise_activation=None, activation=None)
    y = layer(x)
    assert np.isfinite(y[..., 31:, :]).all()
    same_bits(y, layer.pointwise(layer.depthwise(x)))


MEMORY = (
    PEAK
    + """
import numpy, pyconv

x = numpy.ones({shape}, numpy.float32)
layer = pyconv.{layer}(*{arguments}, data_format={data_format!r})
small = layer(x[..., :9, :9] if {first} else x[:, :9, :9])
before = peak()
y = layer(x)
print(peak() - before, layer.plan(x.shape).workspace_bytes, y.nbytes, x.nbytes)
"""
)


@pytest.mark.parametrize(
    ("layer", "arguments", "expansion"),
    [("DepthwiseSeparableConv2d", (64, 4, 3), 1), ("InvertedResidual", (8, 4, 3), 6)],
)
def test_memory_shows_no_tensor_in_between(
    data_format: str, layer: str, arguments: tuple[int, ...], expansion: int
) -> None:
    channels = arguments[0]
    first = data_format == "channels_first"
    script = MEMORY.format(
        shape=(1, channels, 768, 768) if first else (1, 768, 768, channels),
        layer=layer,
        arguments=arguments,
        data_format=data_format,
        first=first,
    )
    grown, workspace, output, size = map(int, run_script(script).split())
    between = expansion * size
    slack = 2**23
    assert workspace < 2**23
    assert grown <= output + workspace + slack
    assert grown < between / 2
