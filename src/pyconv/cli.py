"""The ``pyconv`` command: ``info``, ``explain``, ``bench`` and ``demo``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from importlib.util import find_spec
from typing import Any

import numpy as np

import pyconv
from pyconv._validation import MAX_THREADS
from pyconv.functional import ALGORITHM_CHOICES

__all__ = ["main", "positive"]

Padding = str | int | tuple[int, ...] | tuple[tuple[int, int], ...]

EXTRA_MODULES = ("rich", "threadpoolctl")
"""What the optional extra ``cli`` installs."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name; those of the process by default.

    Returns
    -------
    int
        Exit code: 0, or 2 with one line on stderr for what the user can mend.

    Examples
    --------
    >>> main(["explain", "--input", "1,8,8", "--weight", "8,8,3,3", "--stride", "0"])
    2
    """
    arguments = _parser().parse_args(argv)
    run: Callable[[argparse.Namespace], None] = arguments.run
    try:
        run(arguments)
        sys.stdout.flush()
    except ModuleNotFoundError as error:
        if error.name not in EXTRA_MODULES:
            raise
        missing = [name for name in EXTRA_MODULES if find_spec(name) is None]
        needs = f"needs {' and '.join(missing)}: pip install {' '.join(missing)}"
        return _fail(f"pyconv {arguments.command} {needs}")
    except (ValueError, TypeError, MemoryError) as error:
        return _fail(f"pyconv {arguments.command}: {error}")
    except BrokenPipeError:  # the reader, `head` say, has seen enough
        _discard_output()
        return 1
    except OSError as error:  # a full disk
        _discard_output()
        return _fail(f"pyconv {arguments.command}: {error}")
    return 0


def _discard_output() -> None:
    """Leave nothing that Python would write, and fail to, at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: str) -> int:
    print(message, file=sys.stderr)
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="pyconv", description="Fast grouped convolution on CPUs.")
    parser.add_argument("--version", action="version", version=f"pyconv {pyconv.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")

    info = commands.add_parser("info", help="print what this installation uses")
    info.set_defaults(run=_info)

    explain = commands.add_parser("explain", help="print how a problem would be computed")
    explain.set_defaults(run=_explain)
    problem = explain.add_mutually_exclusive_group(required=True)
    problem.add_argument("--input", type=_shape, metavar="N,C,H,W", help="shape of the input")
    problem.add_argument("--layer", metavar="NAME", help="a layer of `pyconv bench --list`")
    explain.add_argument("--weight", type=_shape, metavar="O,I,H,W", help="shape of the weights")
    explain.add_argument("--stride", type=_ints, metavar="S")
    explain.add_argument(
        "--padding",
        type=_padding,
        metavar="P",
        help="numbers, before:after pairs, valid, same or same_lower",
    )
    explain.add_argument("--dilation", type=_ints, metavar="D")
    explain.add_argument("--groups", type=int)
    explain.add_argument("--padding-mode", default="zeros")
    _add_problem_options(explain)

    bench = commands.add_parser("bench", help="time named layers against NumPy and torch")
    bench.set_defaults(run=_bench)
    bench.add_argument("--list", action="store_true", help="print the layers and stop")
    bench.add_argument(
        "--layers", nargs="+", metavar="PATTERN", help="names, globs or parts of names"
    )
    bench.add_argument("--rounds", type=positive, default=7, help="samples (default: 7)")
    bench.add_argument("--json", metavar="PATH", help="write the samples; - is stdout")
    _add_problem_options(bench)

    demo = commands.add_parser("demo", help="classify handwritten digits with a small network")
    demo.set_defaults(run=_demo)
    return parser


def _add_problem_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data-format", choices=("channels_first", "channels_last"), default="channels_first"
    )
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--algorithm", choices=ALGORITHM_CHOICES, default="auto")
    parser.add_argument(
        "--threads", type=_threads, help=f"default: {pyconv.get_num_threads()}, as detected"
    )


def _info(arguments: argparse.Namespace) -> None:
    del arguments
    facts = pyconv.info()
    width = max(map(len, facts))
    for key, value in facts.items():
        text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else value
        print(f"{key:{width}}  {text}")


def _explain(arguments: argparse.Namespace) -> None:
    names = ("stride", "padding", "dilation", "groups")
    given = {name: value for name in names if (value := getattr(arguments, name)) is not None}
    if arguments.layer:
        if given or arguments.weight:
            raise ValueError(f"--layer has its own {', '.join(['weight', *names])}")
        shapes, geometry = _named_problem(arguments.layer, arguments.data_format)
    elif arguments.weight:
        shapes = (arguments.input, arguments.weight)
        geometry = {name: _per_axis(value) for name, value in given.items()}
    else:
        raise ValueError("--input needs --weight")
    input_shape, weight_shape = shapes
    layers = {3: pyconv.Conv1d, 4: pyconv.Conv2d, 5: pyconv.Conv3d}
    if len(weight_shape) not in layers:
        raise ValueError(f"--weight must have 3, 4 or 5 numbers, got {len(weight_shape)}")
    conv = layers[len(weight_shape)].from_weights(
        np.zeros(weight_shape, arguments.dtype),
        padding_mode=arguments.padding_mode,
        data_format=arguments.data_format,
        algorithm=arguments.algorithm,
        **geometry,
    )
    limit = pyconv.num_threads(arguments.threads) if arguments.threads else nullcontext()
    with limit:
        print(conv.plan(input_shape))


def _named_problem(
    name: str, data_format: str
) -> tuple[tuple[tuple[int, ...], tuple[int, ...]], dict[str, Any]]:
    from pyconv.benchmarks.workloads import select

    layers = select([name])
    if len(layers) > 1:
        names = ", ".join(layer.name for layer in layers[:5])
        raise ValueError(f"--layer must name one layer, {name!r} matches {len(layers)}: {names}...")
    (layer,) = layers
    geometry = {
        "stride": layer.stride,
        "padding": layer.padding,
        "dilation": layer.dilation,
        "groups": layer.groups,
    }
    return (layer.input_shape(1, data_format), layer.weight_shape), geometry


def _bench(arguments: argparse.Namespace) -> None:
    from pyconv.benchmarks import bench

    if arguments.list:
        bench.list_layers(arguments.layers)
        return
    bench.run(
        arguments.layers,
        threads=arguments.threads or pyconv.get_num_threads(),
        rounds=arguments.rounds,
        dtype=arguments.dtype,
        data_format=arguments.data_format,
        algorithm=arguments.algorithm,
        json_path=arguments.json,
    )


def _demo(arguments: argparse.Namespace) -> None:
    del arguments
    from pyconv.examples.digits import classify

    classify.main()


def _ints(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list such as 1,64,56,56") from None


def _shape(text: str) -> tuple[int, ...]:
    lengths = _ints(text)
    if min(lengths) < 0:
        raise argparse.ArgumentTypeError(f"{text!r} has negative lengths")
    return lengths


def _threads(text: str) -> int:
    if positive(text) > MAX_THREADS:
        raise argparse.ArgumentTypeError(f"{text!r} is more than {MAX_THREADS}")
    return int(text)


def positive(text: str) -> int:
    """A command-line argument that is an int of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return int(text)


def _padding(text: str) -> Padding:
    if text in ("valid", "same", "same_lower"):
        return text
    if ":" not in text:
        return _ints(text)
    pairs = [_ints(pair.replace(":", ",")) for pair in text.split(",")]
    if any(len(pair) != 2 for pair in pairs):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of pairs such as 0:1,0:1")
    return tuple((before, after) for before, after in pairs)


def _per_axis(value: Padding) -> Padding:
    """One number stands for every axis."""
    if isinstance(value, tuple) and len(value) == 1 and isinstance(value[0], int):
        return value[0]
    return value
