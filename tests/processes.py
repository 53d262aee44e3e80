"""Run Python in a fresh process, where the environment decides what pyconv does at import."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

# AddressSanitizer takes memory of its own, ends the process where it gets none, and may leave its
# allocator locked in a child that is forked beside other threads.
unsanitized = pytest.mark.skipif("PYCONV_SANITIZED" in os.environ, reason="AddressSanitizer")

PEAK = """
def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
"""
"""For scripts: the most memory in bytes that the process has had."""


def run_python(*arguments: str, timeout: float = 300, **environment: Any) -> str:
    """Run the interpreter and return its output; one set to None is removed.

    Raises `subprocess.CalledProcessError` if it fails and `subprocess.TimeoutExpired` if it hangs.
    """
    variables = {**os.environ, **environment}
    done = subprocess.run(
        [sys.executable, *arguments],
        env={name: value for name, value in variables.items() if value is not None},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    if done.returncode != 0:
        print(done.stderr, file=sys.stderr)  # for the report of a failing test
    done.check_returncode()
    return done.stdout


def run_script(script: str, timeout: float = 300, **environment: Any) -> str:
    """Run Python source in a fresh process."""
    return run_python("-c", script, timeout=timeout, **environment)
