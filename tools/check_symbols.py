"""Fail if code for a higher instruction set could run on a CPU that lacks it.

Usage: check_symbols.py DIRECTORY, which holds the object files of a build. Two things are checked:

- What the kernels of an instruction set define for other files to see lies in the namespace of that
  set, and what they need from elsewhere is C. A shared inline function would be one symbol of
  several object files, of which the linker keeps any.
- No other file holds an instruction with AVX's encoding.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

KERNELS = re.compile(r"pyconv_kernels_(\w+)\.dir")
BASELINE = "baseline"


def output(*command: str) -> str:
    """What a command prints."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def foreign_symbols(object_file: Path, isa: str) -> list[str]:
    """Symbols of a kernel file that others may share: outside the namespace, or C++ from outside.

    nm prints a type in capitals for what the linker sees; v and w are weak, u is unique, U is
    undefined.
    """
    found = []
    for line in output("nm", "--portability", str(object_file)).splitlines():
        name, kind = line.split()[:2]
        if not (kind.isupper() or kind in "uvw"):
            continue
        inside = re.match(rf"_ZZ?NK?6pyconv{len(isa)}{isa}", name)  # _ZZ: of a function in there
        c_function = kind == "U" and not name.startswith("_Z")
        if not inside and not c_function:
            found.append(f"{kind} {name}")
    return found


def vector_instructions(object_file: Path) -> list[str]:
    """Instructions that a CPU without AVX does not have: VEX and EVEX mnemonics begin with v."""
    listing = output("objdump", "--disassemble", "--no-show-raw-insn", str(object_file))
    pattern = re.compile(r"\s+[0-9a-f]+:\s+(?!ver[rw]\b)(v\w+ .*)|.*%([yz]mm\d+)")
    return [line.strip() for line in listing.splitlines() if pattern.match(line)]


def main() -> int:
    """Check every object file below a directory."""
    files = sorted(Path(sys.argv[1]).rglob("*.o"))
    failures = []
    isas = set()
    for path in files:
        kernels = KERNELS.search(str(path))
        if kernels:
            isas.add(kernels[1])
            failures += [f"{path}: symbol {name}" for name in foreign_symbols(path, kernels[1])]
        if not kernels or kernels[1] == BASELINE:
            failures += [f"{path}: {text}" for text in vector_instructions(path)[:3]]
    if len(isas) < 2 or BASELINE not in isas:
        failures.append(f"{sys.argv[1]}: found kernels for {sorted(isas)} only")
    for failure in failures:
        print(failure, file=sys.stderr)
    print(f"{len(files)} object files, kernels for {', '.join(sorted(isas))}: checked")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
