"""Search for arguments that crash pyconv, or make it disagree with the oracle or with itself.

    python tests/fuzz.py --minutes 60

Works in rounds. A round is determined by its seed, which stands on the last line of the output if
the process dies: `--seed` repeats it. Prints how many cases ran.
"""

from __future__ import annotations

import argparse
import faulthandler
import re
import resource
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import oracle
from hypothesis import HealthCheck, assume, given, seed, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import as_strided
from oracle import Array
from problems import CONVOLUTIONS, DIRECT, LAYERS, LAYOUTS, Problem, make, problems, relayout, tiny

import pyconv
from pyconv import _core, functional

ALGORITHMS = ("auto", "auto_direct", *pyconv.algorithms())
DTYPES = (np.float32, np.float64)
ISA = _core.current_isa()

HANG = 600  # seconds for a property's part of a round, which takes some ten

counts: Counter[str] = Counter()


@contextmanager
def instruction_set(isa: str) -> Iterator[None]:
    """Compute with another instruction set, whose plans are others."""
    functional.plan_for.cache_clear()
    _core.select_isa(isa)
    try:
        yield
    finally:
        _core.select_isa(ISA)
        functional.plan_for.cache_clear()


def same_bits(a: Array, b: Array) -> None:
    """Assert that two results are the same, signs of zeros included; any NaN equals any other."""
    np.testing.assert_array_equal(a, b)
    nan = np.isnan(a)
    np.testing.assert_array_equal(np.signbit(a[~nan]), np.signbit(b[~nan]))


def same_sums(problem: Problem, y: Array) -> None:
    """Assert what holds among direct algorithms, which may leave out terms of zero padding.

    These change no sum, but for the sign of one that underflows to zero.
    """
    np.testing.assert_array_equal(problem.run("reference"), y)


def check_variants(data: st.DataObject, problem: Problem, algorithm: str, y: Array) -> None:
    """Assert that layouts, threads, layers and instruction sets leave the bits alone."""
    arrays: dict[str, Any] = {}
    for name in ("x", "weight", "bias", "residual"):
        array = getattr(problem, name)
        layout = data.draw(st.sampled_from((None, *LAYOUTS)))
        if layout is not None and isinstance(array, np.ndarray):
            arrays[name] = relayout(array, layout)
    layout = data.draw(st.sampled_from((None, *sorted({*LAYOUTS} - {"readonly", "misaligned"}))))
    if layout is not None:
        arrays["out"] = relayout(np.full_like(y, np.nan), layout)
    same_bits(problem.run(algorithm, num_threads=data.draw(st.integers(1, 5)), **arrays), y)
    with instruction_set(data.draw(st.sampled_from(pyconv.isas()))):
        same_bits(problem.run(algorithm), y)
    layer = LAYERS[problem.rank].from_weights(
        problem.weight, problem.bias, algorithm=algorithm, **problem.arguments
    )
    same_bits(layer(problem.x, problem.residual), y)


@st.composite
def uneven(draw: st.DrawFn, dtype: Any) -> Problem:
    """A problem with groups of different sizes."""
    kernel = draw(st.sampled_from(((1,), (3,), (1, 1), (3, 3), (2, 3))))
    channels = st.integers(1, 20) | st.sampled_from((16, 32, 64))
    pairs = draw(st.lists(st.tuples(channels, channels), min_size=1, max_size=4))
    if draw(st.booleans()):
        pairs = [(pairs[0][0], outputs) for _, outputs in pairs]
    sizes = tuple(draw(st.integers(k, 20)) for k in kernel)
    return make(
        (draw(st.integers(0, 2)), sum(pair[1] for pair in pairs), *sizes),
        [(*pair, *kernel) for pair in pairs],
        dtype,
        residual=draw(st.booleans()),
        seed=draw(st.integers(0, 2**32 - 1)),
        padding=draw(st.integers(0, 2)),
        data_format=draw(st.sampled_from(("channels_first", "channels_last"))),
        activation=draw(st.sampled_from(oracle.ACTIVATIONS)),
    )


@given(data=st.data())
def agrees_with_the_oracle(data: st.DataObject) -> None:
    """Any problem: the oracle's result, and the same bits in any way of asking for it."""
    algorithm = data.draw(st.sampled_from(ALGORITHMS))
    dtype = data.draw(st.sampled_from(DTYPES))
    if data.draw(st.integers(0, 4)) == 0:
        problem = data.draw(uneven(dtype))
    else:
        problem = data.draw(problems(dtype, algorithm))
    if data.draw(st.booleans()):
        problem = replace(problem, x=problem.x * dtype(2.0 ** data.draw(st.integers(-30, 30))))
    y = problem.run(algorithm)
    expected = problem.expected()
    exact = algorithm in (*DIRECT, "auto_direct")
    (expected if exact else expected.of_the_whole()).check(y)
    if exact:
        same_sums(problem, y)
    check_variants(data, problem, algorithm, y)


@given(data=st.data())
def agrees_with_itself(data: st.DataObject) -> None:
    """Numbers that are not finite, and tiny ones: direct algorithms give the same bits."""
    algorithm = data.draw(st.sampled_from(DIRECT))
    problem = data.draw(problems(data.draw(st.sampled_from(DTYPES)), algorithm))
    if data.draw(st.booleans()):
        problem = tiny(problem)
    for array in (problem.x, problem.weight, problem.residual):
        assume(isinstance(array, np.ndarray) or array is None)
        if isinstance(array, np.ndarray) and array.size:
            info = np.finfo(array.dtype)
            special = [-0.0, info.max, info.tiny, info.smallest_subnormal]
            if array is not problem.weight:  # which may or may not meet zero padding
                special += [np.nan, np.inf, -np.inf]
            for value in data.draw(st.lists(st.sampled_from(special), max_size=2)):
                array.flat[data.draw(st.integers(0, array.size - 1))] = value
    y = problem.run(algorithm)
    same_sums(problem, y)
    check_variants(data, problem, algorithm, y)


@given(data=st.data())
def agrees_with_its_parts(data: st.DataObject) -> None:
    """The other functions are what their documentation says."""
    dtype = data.draw(st.sampled_from(DTYPES))
    problem = data.draw(problems(dtype, "depthwise"))
    arguments = dict(problem.arguments)
    channels = arguments.pop("groups")
    assume(problem.rank == 2 and isinstance(problem.weight, np.ndarray))
    depthwise = pyconv.depthwise_conv2d(
        problem.x, problem.weight, problem.bias, residual=problem.residual, **arguments
    )
    same_bits(depthwise, problem.run())
    shared = {name: arguments[name] for name in ("data_format",)}
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    middle = len(problem.weight)
    weight = rng.standard_normal((data.draw(st.integers(1, 40)), middle)).astype(dtype)
    bias = rng.standard_normal(len(weight)).astype(dtype)
    activation = data.draw(st.sampled_from(oracle.ACTIVATIONS))
    inner = arguments.pop("activation")
    y = pyconv.separable_conv2d(
        problem.x,
        problem.weight,
        weight,
        problem.bias,
        bias,
        depthwise_activation=inner,
        activation=activation,
        **arguments,
    )
    between = replace(problem, residual=None).run()
    same_bits(y, pyconv.pointwise_conv2d(between, weight, bias, activation=activation, **shared))
    assert channels == problem.x.shape[-1 if shared["data_format"] == "channels_last" else -3]


SIZES = (0, 1, 1, 1, 2, 3, 4, 5, 9, 17, 33)
EXTREMES = (-(2**63), -1, 2**20, 2**31 - 1, 2**31, 2**32, 2**40, 2**62, 2**63 - 1, 2**63, 2**64)
NONSENSE = (None, "", 1.0, True, b"1", 1j, (), [], {}, object())


def rarely(usual: st.SearchStrategy[Any], other: st.SearchStrategy[Any]) -> Any:
    """The other one time in eight."""
    return st.integers(0, 7).flatmap(lambda n: other if n == 0 else usual)


integers = rarely(st.integers(0, 4), st.sampled_from(EXTREMES))
numbers = rarely(
    integers | st.lists(integers | st.tuples(integers, integers), max_size=3).map(tuple),
    st.sampled_from(NONSENSE),
)


def name(options: Any) -> Any:
    """One of these, or another word or no word at all."""
    return rarely(st.sampled_from(options), st.sampled_from((*NONSENSE, "zero", ("clip", 1, -1))))


ARGUMENTS = {
    "stride": numbers,
    "padding": numbers | name(("same", "same_lower", "valid")),
    "dilation": numbers,
    "groups": numbers,
    "padding_mode": name(("zeros", "reflect", "replicate", "circular")),
    "data_format": name(("channels_first", "channels_last")),
    "activation": name(oracle.ACTIVATIONS),
    "algorithm": name(ALGORITHMS),
    "num_threads": integers,
}


@st.composite
def arrays(draw: st.DrawFn, shape: list[int]) -> Any:
    """An array of this shape, as a rule; some as large as only strides of 0 allow."""
    if draw(st.integers(0, 19)) == 0:
        shape = draw(st.lists(st.sampled_from(SIZES), max_size=6))
    if shape and draw(st.integers(0, 9)) == 0:
        shape = list(shape)
        shape[draw(st.integers(0, len(shape) - 1))] = draw(st.sampled_from((2**16, 2**31, 2**40)))
    kinds = ("f8", "f2", "i4", "O", ">f4", "f4,f4", "c8")
    kind = draw(st.sampled_from(kinds)) if draw(st.integers(0, 39)) == 0 else "f4"
    try:
        return as_strided(np.zeros(1, kind), shape, (0,) * len(shape))
    except ValueError:  # larger than NumPy can tell
        return draw(st.sampled_from(NONSENSE))


class TooLong(Exception):
    """A case is legal, and takes long."""


@given(data=st.data())
def refuses_or_answers(data: st.DataObject) -> None:
    """Whatever is passed: a result, or an error that names an argument; soon, or interruptible."""
    rank = data.draw(st.sampled_from((1, 2, 2, 3)))
    depthwise = rank == 2 and data.draw(st.booleans())
    function = pyconv.depthwise_conv2d if depthwise else CONVOLUTIONS[rank]
    wanted = data.draw(st.sets(st.sampled_from(sorted(ARGUMENTS)), max_size=4))
    arguments = {key: data.draw(ARGUMENTS[key]) for key in sorted(wanted)}
    if depthwise:
        arguments.pop("groups", None)

    channels, *sizes = (data.draw(st.sampled_from(SIZES)) for _ in range(rank + 1))
    kernel = [data.draw(st.integers(1, 3)) for _ in range(rank)]
    last = arguments.get("data_format") == "channels_last"
    x = data.draw(
        arrays(
            [data.draw(st.integers(0, 2)), *([*sizes, channels] if last else [channels, *sizes])]
        )
    )
    outs = channels if depthwise else data.draw(st.sampled_from(SIZES))
    weight = data.draw(arrays([outs, 1 if depthwise else channels, *kernel]))
    if data.draw(st.booleans()):
        arguments["bias"] = data.draw(arrays([outs]))
    for key in ("residual", "out"):
        if data.draw(st.integers(0, 15)) == 0:
            arguments[key] = data.draw(arrays([1, outs, *sizes]))
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, 1)
            y = function(x, weight, **arguments)
        finally:  # the alarm may still ring here, and not below
            signal.setitimer(signal.ITIMER_REAL, 0)
    except (ValueError, TypeError) as error:
        known = ("x", "weight", "bias", "residual", "out", *ARGUMENTS)
        assert re.search(rf"\b({'|'.join(known)})\b", str(error)), f"names no argument: {error}"
        counts["refused"] += 1
    except MemoryError:
        counts["without memory"] += 1
    except TooLong:
        counts["interrupted"] += 1
    else:
        counts["answered"] += 1
        # All inputs are zeros. Takes no memory: the result may have left none.
        assert type(y) is np.ndarray and (y.size == 0 or y.min() == y.max())


PROPERTIES: tuple[Callable[[], None], ...] = (
    agrees_with_the_oracle,
    agrees_with_itself,
    agrees_with_its_parts,
    refuses_or_answers,
)


def counted(test: Callable[[], None]) -> Callable[[], None]:
    """The same property, whose cases are counted."""
    inner = test.hypothesis.inner_test  # type: ignore[attr-defined]

    def count(data: st.DataObject) -> None:
        inner(data)
        counts[inner.__name__] += 1

    return given(data=st.data())(count)


def play(number: int, examples: int) -> None:
    """One round."""
    print(f"--seed {number} --examples {examples}", flush=True)
    for test in PROPERTIES:
        faulthandler.dump_traceback_later(HANG, exit=True)
        settings(
            max_examples=examples,
            database=None,
            deadline=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        )(seed(number)(counted(test)))()
    faulthandler.cancel_dump_traceback_later()


def interrupt(*_: object) -> None:
    """Handle the alarm that ends a case."""
    raise TooLong


def main() -> None:
    """Play rounds until the time is over."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=0, help="go on for so long")
    parser.add_argument("--seed", type=int, help="of the first round (default: the time)")
    parser.add_argument("--examples", type=int, default=200, help="per property and round")
    options = parser.parse_args()
    signal.signal(signal.SIGALRM, interrupt)
    # A legal call may ask for all the memory of the machine.
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + 2**30, resource.RLIM_INFINITY))
    start = time.monotonic()
    number = int(time.time()) if options.seed is None else options.seed
    while True:
        play(number, options.examples)
        number += 1
        if time.monotonic() - start > 60 * options.minutes:
            break
    cases = sum(counts[test.__name__] for test in PROPERTIES)
    print(f"{cases} cases on {ISA}: {dict(counts)}")


if __name__ == "__main__":
    main()
