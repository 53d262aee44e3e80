"""Fail if a hot loop of a kernel keeps a vector on the stack: an accumulator did not fit.

Usage: check_registers.py DIRECTORY, which holds the kernels' object files. Reads their disassembly
(objdump). A hot loop is an innermost loop with at least eight fused multiply-adds of a kernel that
arithmetic bounds: memory bounds most depthwise ones, and transforms and the epilogue run once per
input or output, not once per multiply-add.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

FEWEST_FMAS = 8
ARITHMETIC_BOUND = re.compile(
    "(gemm|direct|channels|grouped|copy|winograd)_tile|roll_(long_|tall_)?strip"
)


class Instruction(NamedTuple):
    """One line of a disassembly."""

    address: int
    text: str


def functions(object_file: Path) -> dict[str, list[Instruction]]:
    """Instructions of every function in an object file."""
    command = ["objdump", "--disassemble", "--demangle", "--no-show-raw-insn", str(object_file)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found: dict[str, list[Instruction]] = {}
    for line in output.splitlines():
        if header := re.match(r"[0-9a-f]+ <(.*)>:$", line):
            body = found.setdefault(header[1], [])
        elif instruction := re.match(r"\s+([0-9a-f]+):\s+(.*)", line):
            body.append(Instruction(int(instruction[1], 16), instruction[2]))
    return found


def hot_loops(body: list[Instruction]) -> list[list[Instruction]]:
    """Innermost loops with many multiply-adds: from the target of a backward jump to the jump."""
    place = {instruction.address: i for i, instruction in enumerate(body)}
    spans = []
    for i, instruction in enumerate(body):
        jump = re.match(r"j\w+\s+([0-9a-f]+)", instruction.text)
        start = place.get(int(jump[1], 16)) if jump else None
        if start is not None and start <= i:
            spans.append((start, i))
    innermost = [
        (start, end)
        for start, end in spans
        if not any(start <= s and e <= end and (s, e) != (start, end) for s, e in spans)
    ]
    loops = [body[start : end + 1] for start, end in innermost]
    return [loop for loop in loops if sum("vfmadd" in i.text for i in loop) >= FEWEST_FMAS]


def keeps_vectors_on_the_stack(loop: list[Instruction], frame_pointer: bool) -> bool:
    """Whether an instruction moves a vector to or from the stack."""
    registers = "rsp|rbp" if frame_pointer else "rsp"
    stack = re.compile(rf"%[yz]mm.*\(%({registers})|\(%({registers}).*%[yz]mm")
    return any(stack.search(instruction.text) for instruction in loop)


def main() -> int:
    """Check all object files, print what was looked at."""
    checked, spilled = 0, []
    for object_file in sorted(Path(sys.argv[1]).rglob("pyconv_kernels_avx*/**/*.o")):
        for name, body in functions(object_file).items():
            if not ARITHMETIC_BOUND.search(name):
                continue
            frame_pointer = any(i.text.split() == ["mov", "%rsp,%rbp"] for i in body)
            for loop in hot_loops(body):
                checked += 1
                if keeps_vectors_on_the_stack(loop, frame_pointer):
                    spilled.append(f"{name} at {loop[0].address:#x}")
    print(f"{checked} hot loops, {len(spilled)} keep vectors on the stack")
    print(*spilled, sep="\n")
    return 1 if spilled or not checked else 0


if __name__ == "__main__":
    sys.exit(main())
