"""What is refused, and that every message names the argument, what it got and what was expected."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from problems import make
from processes import run_script

import pyconv

X = np.ones((2, 4, 6, 5), np.float32)
WEIGHT = np.ones((6, 2, 3, 3), np.float32)
BIAS = np.ones(6, np.float32)
RESIDUAL = np.ones((2, 6, 4, 3), np.float32)
OUT = np.empty((2, 6, 4, 3), np.float32)


def read_only(array: Any) -> Any:
    """The array without permission to write."""
    view = array.copy()
    view.flags.writeable = False
    return view


def refused(error: type[Exception], words: tuple[str, ...], **arguments: Any) -> None:
    """Assert that a call that would be right without `arguments` fails with all `words`."""
    right = dict(x=X, weight=WEIGHT, bias=BIAS, groups=2)
    with pytest.raises(error) as caught:
        pyconv.conv2d(**{**right, **arguments})
    for word in words:
        assert re.search(rf"(?<!\w){re.escape(word)}(?!\w)", str(caught.value)), caught.value


INTEGERS = [
    ("stride", 0),
    ("stride", -1),
    ("stride", 2**63),
    ("stride", 2**64 + 1),
    ("stride", (1, 0)),
    ("stride", (1, 2, 3)),
    ("stride", (1,)),
    ("stride", ()),
    ("dilation", 0),
    ("dilation", -1),
    ("dilation", 2**63),
    ("dilation", (1, -2)),
    ("dilation", (1, 1, 1)),
    ("padding", -1),
    ("padding", (0, -3)),
    ("padding", (1, 1, 1)),
    ("padding", ((0, 0), (0, -2))),
    ("padding", ((0, 0), (0, 0, 0))),
    ("padding", ((0, 0),)),
    ("padding", 2**63),
    ("padding", "full"),
    ("padding", ""),
    ("groups", 0),
    ("groups", -1),
    ("groups", 2**63),
    ("groups", 3),
    ("padding_mode", "mirror"),
    ("data_format", "NHWC"),
    ("activation", "swish6"),
    ("activation", ("leaky_relu",)),
    ("activation", ("clip", 1)),
    ("activation", ("relu", 1)),
    ("activation", "leaky_relu"),
    ("activation", ("clip", 1, -1)),
    pytest.param("activation", ("clip", 0, 10**400), id="activation-overflow"),
    ("activation", ("leaky_relu", float("nan"))),
    ("algorithm", "fft"),
    ("num_threads", 0),
    ("num_threads", -2),
]


@pytest.mark.parametrize(("name", "value"), INTEGERS, ids=str)
def test_bad_values(name: str, value: Any) -> None:
    got = [str(value)] if not isinstance(value, str | tuple) else []
    refused(ValueError, (name, *got), **{name: value})


@pytest.mark.parametrize(
    "name", ["padding", "padding_mode", "data_format", "activation", "algorithm"]
)
def test_unknown_names_are_repeated_and_known_ones_listed(name: str) -> None:
    known = {
        "padding": ("same", "valid", "same_lower"),
        "padding_mode": ("zeros", "reflect", "replicate", "circular"),
        "data_format": ("channels_first", "channels_last"),
        "activation": ("relu", "gelu", "leaky_relu"),
        "algorithm": pyconv.algorithms(),
    }[name]
    refused(ValueError, (name, "bogus", *known), **{name: "bogus"})


@pytest.mark.parametrize("name", ["stride", "dilation", "padding", "groups", "num_threads"])
@pytest.mark.parametrize("value", [1.0, 1.5, np.float64(2), True, np.True_, 1j], ids=repr)
def test_numbers_that_are_not_integers(name: str, value: Any) -> None:
    refused(TypeError, (name, type(value).__name__), **{name: value})


@pytest.mark.parametrize("name", ["stride", "dilation", "groups", "num_threads"])
def test_digits_in_a_string_are_no_integer(name: str) -> None:
    refused(TypeError, (name, "str"), **{name: "2"})


@pytest.mark.parametrize("name", ["padding_mode", "data_format", "activation", "algorithm"])
@pytest.mark.parametrize("value", [3, [], 1.5], ids=repr)
def test_names_that_are_not_strings(name: str, value: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=name):
        pyconv.conv2d(X, WEIGHT, BIAS, groups=2, **{name: value})


@pytest.mark.parametrize("parameter", ["0.1", 1j, None, [0.1]], ids=repr)
def test_activation_parameters_are_numbers(parameter: Any) -> None:
    refused(TypeError, ("activation",), activation=("leaky_relu", parameter))


@pytest.mark.parametrize(
    ("name", "array", "words"),
    [
        ("x", X[0, 0], ("(6, 5)",)),
        ("x", X[np.newaxis], ("(1, 2, 4, 6, 5)",)),
        ("x", X[:, :3], ("(2, 3, 6, 5)", "3", "4")),
        ("x", np.float32(1), ("()",)),
        ("weight", WEIGHT[0], ("(2, 3, 3)",)),
        ("weight", WEIGHT[np.newaxis], ("(1, 6, 2, 3, 3)",)),
        ("weight", WEIGHT[:5], ("5", "2")),
        ("weight", WEIGHT[:, :, :0], ("(6, 2, 0, 3)",)),
        ("weight", WEIGHT[:, :, :0, :0], ("(6, 2, 0, 0)",)),
        ("bias", BIAS[:5], ("(5,)", "(6,)")),
        ("bias", BIAS[np.newaxis], ("(1, 6)", "(6,)")),
        ("bias", BIAS[0], ("()", "(6,)")),
        ("residual", RESIDUAL[:1], ("(1, 6, 4, 3)", "(2, 6, 4, 3)")),
        ("residual", RESIDUAL[0], ("(6, 4, 3)", "(2, 6, 4, 3)")),
        ("out", OUT[:, :5], ("(2, 5, 4, 3)", "(2, 6, 4, 3)")),
        ("out", OUT.ravel(), ("(144,)", "(2, 6, 4, 3)")),
        ("out", read_only(OUT), ("writeable",)),
    ],
    ids=lambda value: str(value.shape) if hasattr(value, "shape") else str(value),
)
def test_bad_arrays(name: str, array: Any, words: tuple[str, ...]) -> None:
    refused(ValueError, (name, *words), **{name: array})


@pytest.mark.parametrize("name", ["x", "weight", "bias", "residual", "out"])
@pytest.mark.parametrize(
    "other",
    ["float64", "int32", "uint8", "bool", "complex64", "longdouble", "object", "M8[s]", "f4,f4"],
)
def test_dtypes_that_do_not_agree(name: str, other: str) -> None:
    right = dict(x=X, weight=WEIGHT, bias=BIAS, residual=RESIDUAL, out=OUT)
    wrong = np.zeros(right[name].shape, other)
    # With a float64 input it is the weight that disagrees.
    blamed = "weight" if (name, other) == ("x", "float64") else name
    refused(TypeError, (blamed, str(wrong.dtype)), **{name: wrong})


def test_no_float_dtype_at_all() -> None:
    for dtype in ("int64", "complex128", "object", "longdouble"):
        x, weight = np.zeros((1, 1, 3, 3), dtype), np.zeros((1, 1, 2, 2), dtype)
        with pytest.raises(TypeError, match=r"\bx\b.*float32.*float64"):
            pyconv.conv2d(x, weight)


def test_integers_come_with_advice() -> None:
    x, weight = np.zeros((1, 1, 3, 3), np.uint8), np.zeros((1, 1, 2, 2), np.uint8)
    with pytest.raises(TypeError, match=r"astype"):
        pyconv.conv2d(x, weight)


@pytest.mark.parametrize("name", ["x", "weight", "bias", "residual", "out"])
def test_foreign_byte_order(name: str) -> None:
    right = dict(x=X, weight=WEIGHT, bias=BIAS, residual=RESIDUAL, out=OUT)
    swapped = right[name].astype(right[name].dtype.newbyteorder())
    refused(TypeError, (name, swapped.dtype.str), **{name: swapped})


@pytest.mark.parametrize("name", ["x", "weight"])
@pytest.mark.parametrize("value", [None, "image", object(), {}], ids=lambda v: type(v).__name__)
def test_what_is_no_array(name: str, value: Any) -> None:
    refused(TypeError, (name,), **{name: value})


@pytest.mark.parametrize("value", [[1.0], "out", X.tolist()], ids=lambda v: type(v).__name__)
def test_out_must_be_an_ndarray(value: Any) -> None:
    refused(TypeError, ("out",), out=value)


@pytest.mark.parametrize(
    ("mode", "padding", "words"),
    [
        ("reflect", 5, ("5",)),
        ("reflect", ((0, 6), (0, 0)), ("6",)),
        ("reflect", ((0, 0), (2**40, 0)), (str(2**40),)),
        ("circular", 6, ("6", "5")),
        ("circular", ((7, 0), (0, 0)), ("7", "6")),
    ],
    ids=str,
)
def test_padding_beyond_what_the_mode_can_show(
    mode: str, padding: Any, words: tuple[str, ...]
) -> None:
    refused(ValueError, ("padding", mode, *words), padding=padding, padding_mode=mode)


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_nothing_to_repeat(mode: str) -> None:
    x = np.zeros((1, 4, 0, 5), np.float32)
    refused(ValueError, ("padding",), x=x, padding=3, padding_mode=mode)


@pytest.mark.parametrize(
    ("groups", "weight", "words"),
    [
        ([(2, 3), (2, 3), (2, 3)], [WEIGHT[:3]] * 3, ("x", "groups")),
        ([(2, 3), (2, 4)], [WEIGHT[:3], WEIGHT[:3]], ("weight",)),
        ([(2, 3), (2, 3)], [WEIGHT[:3]], ("weight",)),
        ([(2, 3), (2, 3)], [WEIGHT[:3], WEIGHT[:3, :, :2]], ("weight",)),
        ([(4, 0), (-1, 6)], [WEIGHT[:3], WEIGHT[:3]], ("groups",)),
        ([], [], ("groups",)),
    ],
    ids=lambda value: str(value) if isinstance(value, list) and len(str(value)) < 40 else "",
)
def test_uneven_groups_must_add_up(groups: Any, weight: Any, words: tuple[str, ...]) -> None:
    refused(ValueError, words, groups=groups, weight=weight)


def test_uneven_groups_need_a_weight_each_and_the_same_dtype() -> None:
    pairs = [(2, 3), (2, 3)]
    with pytest.raises((TypeError, ValueError), match="weight"):
        pyconv.conv2d(X, WEIGHT, groups=pairs)
    refused(TypeError, ("weight",), groups=pairs, weight=[WEIGHT[:3], WEIGHT[:3].astype(float)])


def test_more_groups_than_channels_even_if_there_are_none() -> None:
    # Zero is divisible by any number; an entry per group must not be made all the same.
    x, weight = np.zeros((1, 0, 3, 3), np.float32), np.zeros((0, 0, 1, 1), np.float32)
    refused(ValueError, ("groups", str(2**40)), x=x, weight=weight, bias=None, groups=2**40)


def test_groups_that_do_not_divide_use_the_words_of_torch() -> None:
    with pytest.raises(ValueError, match="in_channels must be divisible by groups"):
        pyconv.Conv2d(6, 6, 1, groups=4)
    with pytest.raises(ValueError, match="out_channels must be divisible by groups"):
        pyconv.Conv2d(4, 6, 1, groups=4)


@pytest.mark.parametrize(
    "arguments",
    [
        dict(padding=2**63 - 5),
        dict(padding=2**62),
        dict(padding=2**40),
        dict(padding=((2**63 - 5, 2**63 - 5), (0, 0)), stride=2**62),
        dict(dilation=2**62),
        dict(padding=2**61, dilation=2**61, stride=2**61),
    ],
    ids=str,
)
def test_sizes_that_overflow(arguments: dict[str, Any]) -> None:
    with pytest.raises((ValueError, MemoryError)):
        pyconv.conv2d(X, WEIGHT, groups=2, **arguments)


def test_products_of_sizes_that_overflow() -> None:
    x = np.broadcast_to(np.float32(0), (1, 1, 2**30, 2**30))
    weight = np.broadcast_to(np.float32(0), (16, 1, 1, 1))
    with pytest.raises((ValueError, MemoryError)):
        pyconv.conv2d(x, weight)


def test_a_result_larger_than_the_address_space_is_a_memory_error(algorithm: str) -> None:
    x = np.broadcast_to(np.float32(0), (2**40, 1, 16, 16))
    with pytest.raises(MemoryError):
        pyconv.conv2d(x, np.zeros((1, 1, 1, 1), np.float32), algorithm=algorithm)


@pytest.mark.parametrize("number", [1000, 10**6, 2**31, 2**63])
def test_absurd_thread_counts_do_not_end_the_process(number: int) -> None:
    script = f"""
import numpy, pyconv
x = numpy.ones((1, 8, 64, 64), numpy.float32)
weight = numpy.ones((8, 8, 3, 3), numpy.float32)
try:
    y = pyconv.conv2d(x, weight, num_threads={number})
except ValueError as error:
    assert "num_threads" in str(error), error
else:
    assert (y == 72).all()
"""
    run_script(script)


def test_a_refused_call_leaves_out_alone() -> None:
    problem = make((2, 4, 6, 5), (6, 4, 3, 3))
    out = np.full((2, 6, 4, 3), 7, np.float32)
    with pytest.raises(ValueError, match="residual"):
        problem.run(out=out, residual=RESIDUAL[:1])
    assert (out == 7).all()


LAYER_ARGUMENTS = [
    (dict(in_channels=-1), ValueError),
    (dict(in_channels=2.0), TypeError),
    (dict(out_channels=-1), ValueError),
    (dict(out_channels="8"), TypeError),
    (dict(kernel_size=0), ValueError),
    (dict(kernel_size=(3, 3, 3)), ValueError),
    (dict(kernel_size=1.5), TypeError),
    (dict(stride=0), ValueError),
    (dict(padding=-1), ValueError),
    (dict(padding="full"), ValueError),
    (dict(dilation=0), ValueError),
    (dict(groups=0), ValueError),
    (dict(groups=-2), ValueError),
    (dict(padding_mode="mirror"), ValueError),
    (dict(data_format="NCHW"), ValueError),
    (dict(activation="swish6"), ValueError),
    (dict(algorithm="fft"), ValueError),
    (dict(dtype=np.int32), TypeError),
    (dict(dtype="nonsense"), TypeError),
    (dict(rng="seed"), TypeError),
    (dict(bias="False"), TypeError),
    (dict(bias=BIAS), TypeError),
]


@pytest.mark.parametrize(("arguments", "error"), LAYER_ARGUMENTS, ids=str)
def test_layers_refuse_at_construction(arguments: dict[str, Any], error: type[Exception]) -> None:
    right: dict[str, Any] = dict(in_channels=4, out_channels=8, kernel_size=3)
    (name,) = arguments
    with pytest.raises(error, match=name):
        pyconv.Conv2d(**{**right, **arguments})


def test_layers_refuse_other_inputs() -> None:
    layer = pyconv.Conv2d(4, 8, 3, groups=2)
    for x in (X[:, :3], X[:, :, :2], X[0, 0], np.zeros((2, 5, 6, 5), np.float32)):
        with pytest.raises(ValueError, match=r"\bx\b|[Kk]ernel size"):
            layer(x)
    with pytest.raises(TypeError, match=r"\bx\b.*float64.*float32"):
        layer(X.astype(np.float64))
    with pytest.raises(ValueError, match=r"residual"):
        layer(X, residual=RESIDUAL)


def test_from_weights_refuses_the_wrong_rank() -> None:
    with pytest.raises(ValueError, match="weight"):
        pyconv.Conv1d.from_weights(WEIGHT)
    with pytest.raises(ValueError, match="bias"):
        pyconv.Conv2d.from_weights(WEIGHT, BIAS[:3])


def _line(length: int) -> Any:
    return np.ones((1, 4, length), np.float32)


@pytest.mark.parametrize(
    ("call", "name", "error"),
    [
        (lambda: pyconv.conv_output_shape(5, (1, 1, 1)), "input_shape", TypeError),  # type: ignore[arg-type]
        (lambda: pyconv.conv_macs((1, 1, 5), 3), "weight_shape", TypeError),  # type: ignore[arg-type]
        (lambda: pyconv.Conv2d(4, 4, 3).plan(5), "input_shape", TypeError),  # type: ignore[arg-type]
        (lambda: pyconv.receptive_field(5), "layers", TypeError),  # type: ignore[arg-type]
        (lambda: pyconv.conv_params(4, 6, ()), "kernel_size", ValueError),
        (lambda: pyconv.conv2d(X, WEIGHT, stride=10**5000), "stride", ValueError),
        (lambda: pyconv.conv2d(X, WEIGHT, stride=np.array(2.0)), "stride", TypeError),
        (lambda: pyconv.conv2d(X, WEIGHT, stride=np.array([[2], [1]])), "stride", TypeError),
        (
            lambda: pyconv.conv2d(X, WEIGHT, activation=("leaky_relu", np.array([0.1]))),
            "activation",
            TypeError,
        ),
        (
            lambda: pyconv.DepthwiseSeparableConv2d(4, 4, 3, depthwise_activation="no"),
            "depthwise_activation",
            ValueError,
        ),
        (
            lambda: pyconv.separable_conv2d(
                X, WEIGHT[:4, :1], WEIGHT[:, :1, 0, 0].repeat(4, 1), depthwise_activation="no"
            ),
            "depthwise_activation",
            ValueError,
        ),
        (lambda: pyconv.Conv2d(2**40, 2**40, 3), "weight", ValueError),
        (lambda: pyconv.Conv2d(4, 4, 3, dtype=None), "dtype", TypeError),
        (lambda: pyconv.conv_params(4, 6, (1, 1, 1, 1)), "kernel_size", ValueError),
        (
            lambda: pyconv.causal_conv1d(_line(0), np.ones((4, 3), np.float32), activation="no"),
            "activation",
            ValueError,
        ),
        (
            lambda: pyconv.depthwise_conv2d(X, WEIGHT[:4, :1], data_format="NHWC"),
            "data_format",
            ValueError,
        ),
    ],
)
def test_messages_name_the_argument(call: Any, name: str, error: type[Exception]) -> None:
    with pytest.raises(error, match=rf"^{name}: got "):
        call()
