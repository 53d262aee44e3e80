"""Fail if pyconv does not run on other CPUs, or gives other bits there. Needs qemu-user.

Imports pyconv on each machine, which must choose the right instruction set and meet no instruction
that the machine lacks, and compares results with those of this machine. QEMU ends at AVX2.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

DIGEST = Path(__file__).parents[1] / "tests" / "digest.py"
# Emulated FMA in float64 on an emulated CPU takes minutes. With channels last, kernels gather, and
# QEMU 7.2 takes xmm4 as the index of a gather for none.
SAMPLES = ("float32", "channels_first")
NEEDS_FMA = "tiny"  # denormals stay on a CPU without it


class Machine(NamedTuple):
    """A CPU model of QEMU, and what pyconv should make of it."""

    model: str
    isa: str
    fma: bool


MACHINES = (
    Machine("Nehalem", "baseline", False),  # no AVX at all
    Machine("SandyBridge", "baseline", False),  # AVX, but not AVX2
    Machine("Haswell", "avx2", True),
)


def python(*arguments: str, machine: Machine | None = None) -> str:
    """The output of Python on a machine; of this one without."""
    emulator = ("qemu-x86_64", "-cpu", machine.model) if machine else ()
    # NumPy's OpenBLAS takes some models for AMD's and uses AVX.
    environment = {**os.environ, "OPENBLAS_CORETYPE": "Nehalem"}
    command = (*emulator, sys.executable, *arguments)
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return done.stdout.strip()


def main() -> int:
    """Check every machine."""
    here: dict[str, str] = json.loads(python(str(DIGEST), *SAMPLES))
    failures = 0
    for machine in MACHINES:
        isa = python("-c", "import pyconv; print(pyconv.info()['isa'])", machine=machine)
        there: dict[str, str] = json.loads(python(str(DIGEST), *SAMPLES, machine=machine))
        unlike = [
            name
            for name in here
            if there.get(name) != here[name] and (machine.fma or NEEDS_FMA not in name)
        ]
        print(f"{machine.model}: {isa}, {len(there) - len(unlike)} of {len(here)} results pass")
        if isa != machine.isa or unlike:
            failures += 1
            print(f"expected {machine.isa}; unlike here: {unlike}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
