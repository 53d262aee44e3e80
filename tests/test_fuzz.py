"""A short run of the fuzzer; `python tests/fuzz.py --minutes 60` is a long one."""

from __future__ import annotations

import re
from pathlib import Path

from processes import run_python

SCRIPT = Path(__file__).with_name("fuzz.py")
EXAMPLES = 120


def test_a_round_of_the_fuzzer_finds_nothing() -> None:
    last = run_python(str(SCRIPT), "--seed", "0", "--examples", str(EXAMPLES)).splitlines()[-1]
    cases = re.match(r"\d+", last)
    assert cases and int(cases.group()) >= 3 * EXAMPLES, last
    # Of the wild arguments, many are refused and many are not.
    for outcome in ("refused", "answered"):
        count = re.search(rf"'{outcome}': (\d+)", last)
        assert count and int(count.group(1)) > EXAMPLES / 10, last
