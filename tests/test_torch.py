"""Against torch: functions, modules, and layers made from modules."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from problems import CONVOLUTIONS, LAYERS, PADDING_MODES, Problem, make

import pyconv

torch = pytest.importorskip("torch")

# torch warns that it copies for an even kernel; the result is what counts here.
pytestmark = pytest.mark.filterwarnings("ignore:Using padding=.same.:UserWarning")


def module(rank: int, *arguments: Any, dtype: Any = np.float32, **named: Any) -> Any:
    """A torch module with weights that do not change between runs."""
    torch.manual_seed(0)
    made = getattr(torch.nn, f"Conv{rank}d")(*arguments, **named)
    return made.to(torch.from_numpy(np.empty(0, dtype)).dtype)


def image(*shape: int, dtype: Any = np.float32) -> Any:
    """A random array."""
    return np.random.default_rng(3).standard_normal(shape).astype(dtype)


def check(got: Any, problem: Problem, torch_answer: Any) -> None:
    """Two results of one problem differ by no more than twice what rounding explains."""
    answer = torch_answer.detach().numpy()
    bound = problem.expected().bound
    assert got.shape == answer.shape
    assert (np.abs(got - answer) <= 2 * bound).all()


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("padding", [0, 2, "same", "valid"])
def test_functions(general: str, dtype: Any, rank: int, groups: int, padding: Any) -> None:
    function = getattr(torch.nn.functional, f"conv{rank}d")
    strides = (1,) if padding == "same" else (1, 2)
    for stride, dilation, batch in itertools.product(strides, (1, 2), ((), (2,))):
        arguments = dict(stride=stride, padding=padding, dilation=dilation, groups=groups)
        problem = make(
            (*batch, 6, *(7, 6, 6)[:rank]),
            (12, 6 // groups, *(3, 2, 3)[:rank]),
            dtype,
            **arguments,
        )
        arrays = (torch.from_numpy(a) for a in (problem.x, problem.weight, problem.bias))
        check(problem.run(general), problem, function(*arrays, **arguments))


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("mode", PADDING_MODES)
@pytest.mark.parametrize("padding", [2, "same"])
def test_modules_with_padding_modes(dtype: Any, rank: int, mode: str, padding: Any) -> None:
    arguments: dict[str, Any] = dict(padding=padding, padding_mode=mode, dilation=2)
    theirs = module(rank, 4, 6, 3, groups=2, dtype=dtype, **arguments)
    ours = LAYERS[rank].from_torch(theirs)
    x = image(2, 4, *(6,) * rank, dtype=dtype)
    problem = Problem(x, ours.weight, ours.bias, None, dict(arguments, groups=2))
    check(ours(x), problem, theirs(torch.from_numpy(x)))
    np.testing.assert_array_equal(ours(x), problem.run())


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("bias", [False, True])
def test_from_torch_keeps_the_state(dtype: Any, rank: int, bias: bool) -> None:
    theirs = module(rank, 4, 6, 3, stride=2, padding=1, groups=2, bias=bias, dtype=dtype)
    ours = LAYERS[rank].from_torch(theirs)
    state = theirs.state_dict()
    np.testing.assert_array_equal(ours.weight, state["weight"].numpy())
    assert (ours.bias is not None) == bias
    if ours.bias is not None:
        np.testing.assert_array_equal(ours.bias, state["bias"].numpy())
    assert ours.weight.dtype == np.dtype(dtype)
    y = ours(image(4, *(7,) * rank, dtype=dtype))
    assert y.shape == (6, *(4,) * rank)
    with torch.no_grad():
        theirs.weight.zero_()
    np.testing.assert_array_equal(ours(image(4, *(7,) * rank, dtype=dtype)), y)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("affine", [False, True])
def test_from_torch_folds_batch_norm(dtype: Any, rank: int, bias: bool, affine: bool) -> None:
    conv = module(rank, 4, 6, 3, padding=1, bias=bias, dtype=dtype)
    norm = getattr(torch.nn, f"BatchNorm{rank}d")(6, eps=1e-3, affine=affine)
    norm.running_mean.uniform_(-1, 1)
    norm.running_var.uniform_(0.5, 2)
    if affine:
        with torch.no_grad():
            norm.weight.uniform_(-1, 1)
            norm.bias.uniform_(-1, 1)
    norm = norm.to(conv.weight.dtype).eval()
    x = image(2, 4, *(6,) * rank, dtype=dtype)
    answer = norm(conv(torch.from_numpy(x))).detach().numpy()
    folded = LAYERS[rank].from_torch(conv, batch_norm=norm)
    np.testing.assert_allclose(folded(x), answer, rtol=0, atol=100 * float(np.finfo(dtype).eps))


def test_from_torch_refuses_another_rank() -> None:
    with pytest.raises((TypeError, ValueError), match=r"weight|Conv1d|Conv2d|kernel_size"):
        pyconv.Conv1d.from_torch(module(2, 4, 6, 3))


def test_from_torch_refuses_other_modules() -> None:
    convolution = module(2, 4, 6, 3)
    for other in (torch.nn.ConvTranspose2d(4, 4, 3), torch.nn.Linear(4, 4), 3):
        with pytest.raises(TypeError, match=rf"torch_module.*{type(other).__name__}.*Conv2d"):
            pyconv.Conv2d.from_torch(other)
    with pytest.raises(TypeError, match=r"batch_norm.*Linear"):
        pyconv.Conv2d.from_torch(convolution, batch_norm=torch.nn.Linear(6, 6))
    with pytest.raises(TypeError, match=r"torch_module.*bfloat16"):
        pyconv.Conv2d.from_torch(copy.deepcopy(convolution).bfloat16())
    for norm in (torch.nn.BatchNorm2d(6), torch.nn.BatchNorm2d(6, track_running_stats=False)):
        with pytest.raises(ValueError, match=r"batch_norm.*eval"):
            pyconv.Conv2d.from_torch(convolution, batch_norm=norm)


def test_from_torch_accepts_training_leftovers() -> None:
    theirs = module(2, 4, 6, 3)
    assert theirs.weight.requires_grad
    strided = copy.deepcopy(theirs).to(memory_format=torch.channels_last)
    x = image(1, 4, 6, 6)
    np.testing.assert_array_equal(
        pyconv.Conv2d.from_torch(strided)(x), pyconv.Conv2d.from_torch(theirs)(x)
    )


def test_a_tensor_is_no_int() -> None:
    problem = make((2, 4, 6, 6), (6, 4, 3, 3))
    with pytest.raises(TypeError, match=r"^stride: got tensor"):
        problem.run(stride=torch.tensor([1, 2]))


def test_tensors_are_taken_as_arrays() -> None:
    problem = make((2, 4, 6, 6), (6, 4, 3, 3))
    tensors = [torch.from_numpy(a) for a in (problem.x, problem.weight, problem.bias)]
    y = pyconv.conv2d(*tensors)
    assert type(y) is np.ndarray
    np.testing.assert_array_equal(y, problem.run())
    strided = tensors[0].to(memory_format=torch.channels_last)
    np.testing.assert_array_equal(replace(problem, x=strided).run(), y)


def test_out_may_be_a_tensor_seen_by_numpy() -> None:
    problem = make((2, 4, 6, 6), (6, 4, 3, 3))
    tensor = torch.empty(2, 6, 4, 4)
    CONVOLUTIONS[2](problem.x, problem.weight, problem.bias, out=tensor.numpy())
    np.testing.assert_array_equal(tensor.numpy(), problem.run())


@pytest.mark.parametrize(
    ("rank", "arguments"),
    [
        (2, dict(kernel_size=3)),
        (2, dict(kernel_size=3, padding=1, stride=2)),
        (2, dict(kernel_size=(1, 3), padding=(0, 1), dilation=(1, 2), groups=2, bias=False)),
        (2, dict(kernel_size=3, padding=1, padding_mode="reflect")),
        (2, dict(kernel_size=3, dilation=2, groups=4)),
        (1, dict(kernel_size=3, padding="same")),
        (1, dict(kernel_size=5, padding="valid", stride=3)),
        (3, dict(kernel_size=(1, 2, 3), padding=(0, 0, 1), padding_mode="circular")),
    ],
    ids=str,
)
def test_repr_is_that_of_torch(rank: int, arguments: dict[str, Any]) -> None:
    assert repr(LAYERS[rank](4, 8, **arguments)) == repr(module(rank, 4, 8, **arguments))


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_initial_weights_have_the_distribution_of_torch(rank: int) -> None:
    arguments: Any = (32, 64, 3)
    theirs, ours = module(rank, *arguments), LAYERS[rank](*arguments, rng=0)
    quartiles = np.linspace(0, 1, 5)
    for parameter, array in ((theirs.weight, ours.weight), (theirs.bias, ours.bias)):
        assert array is not None
        drawn = parameter.detach().numpy()
        difference = np.quantile(drawn, quartiles) - np.quantile(array, quartiles)
        assert np.abs(difference).max() < 0.35 * np.abs(drawn).max()
