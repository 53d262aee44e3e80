"""pyconv against the convolution libraries of its class, each at its best float32 setting.

Run ``python benchmarks/compare.py --threads 1 2``; README.md in this folder states the protocol.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence

import pyconv
from pyconv.benchmarks.comparison import installed
from pyconv.benchmarks.peers import (
    NCNN,
    ONNXRuntime,
    OpenVINO,
    PyConv,
    Torch,
    TorchChannelsLast,
    TorchFunctions,
)
from pyconv.benchmarks.report import (
    claim_json,
    compare_with_progress,
    new_console,
    print_comparison,
    write_json,
)
from pyconv.benchmarks.workloads import COMPARE_DEFAULT, random_layers, select
from pyconv.cli import positive
from pyconv.functional import ALGORITHM_CHOICES

PEERS = (Torch, TorchChannelsLast, ONNXRuntime, OpenVINO, NCNN)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the comparison from command-line arguments and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--threads", type=positive, nargs="+", default=[1], help="default: 1")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--layers", nargs="+", metavar="PATTERN", default=COMPARE_DEFAULT)
    which.add_argument(
        "--random", type=positive, metavar="COUNT", help="layers that no network has"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the random layers (default: 0)")
    parser.add_argument(
        "--data-format", choices=("channels_first", "channels_last"), default="channels_first"
    )
    parser.add_argument(
        "--algorithm",
        choices=ALGORITHM_CHOICES,
        default="auto",
        help="of pyconv; auto_direct leaves Winograd out (default: auto)",
    )
    parser.add_argument(
        "--functions",
        action="store_true",
        help="pyconv.conv2d against torch.nn.functional.conv2d, which pack weights in every call",
    )
    parser.add_argument(
        "--rounds", type=positive, default=11, help="samples per peer (default: 11)"
    )
    parser.add_argument("--isa", choices=pyconv.isas(), help="of pyconv; its peers choose theirs")
    parser.add_argument("--json", metavar="PATH", help="write the samples; - is stdout")
    arguments = parser.parse_args(argv)

    if arguments.isa and os.environ.get("PYCONV_ISA") != arguments.isa:
        # pyconv reads the variable once, at import.
        command = [sys.executable, __file__, *(sys.argv[1:] if argv is None else argv)]
        return subprocess.call(command, env={**os.environ, "PYCONV_ISA": arguments.isa})

    console = new_console(stderr=arguments.json == "-")
    try:
        claim_json(arguments.json)
        if arguments.random is not None:
            layers = random_layers(arguments.random, arguments.seed)
        else:
            layers = select(arguments.layers)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    ours = PyConv(
        arguments.data_format,
        arguments.algorithm,
        reuse_output=not arguments.functions,  # torch's function allocates its result as well
        functions=arguments.functions,
    )
    peers = installed((TorchFunctions,) if arguments.functions else PEERS)
    comparisons = []
    for threads in arguments.threads:
        try:
            comparison = compare_with_progress(
                console,
                layers,
                [*peers, ours],
                arguments.rounds,
                threads=threads,
                data_format=arguments.data_format,
                algorithm=arguments.algorithm,
            )
        except ValueError as error:  # fewer processors than threads
            parser.error(str(error))
        print_comparison(console, comparison)
        comparisons.append(comparison)
    if arguments.json:
        write_json(comparisons, arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
