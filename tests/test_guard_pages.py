"""Nothing beyond an array is read or written: arrays stand at the edge of protected memory."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from guarded import LAYOUTS, SIDES, TAILS
from processes import run_python, run_script

SCRIPT = Path(__file__).with_name("guarded.py")


def test_every_kernel_stays_within_its_arrays(
    algorithm: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    current = tmp_path / "current"
    try:
        count = int(run_python(str(SCRIPT), algorithm, str(current)))
    except subprocess.CalledProcessError as error:
        case = current.read_text().strip()
        raise AssertionError(f"{case}: status {error.returncode}\n{error.stderr}") from None
    record_property("cases", count)
    # At least one problem for every tail, both formats, both dtypes.
    assert count >= len(TAILS) * len(SIDES) * len(LAYOUTS) * 4


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_guard_catches_one_element_too_many(side: str, layout: str) -> None:
    script = f"""
import ctypes, numpy, sys
sys.path.insert(0, {str(SCRIPT.parent)!r})
from guarded import Arena
array = numpy.arange(6, dtype=numpy.float32).reshape(2, 3)
_, taken = Arena(100).place(array, *{(side, layout)})
first, last = taken.ctypes.data, taken.ctypes.data + taken.size - 1
ctypes.string_at(first, taken.size)
print("inside", flush=True)
ctypes.string_at(last + 1 if {side!r} == "after" else first - 1, 1)
"""
    with pytest.raises(subprocess.CalledProcessError) as caught:
        run_script(script)
    assert caught.value.stdout == "inside\n"
    # AddressSanitizer reports the signal and ends the process in its own way.
    assert caught.value.returncode in (-signal.SIGSEGV, 1)
