"""The command line, run as a user runs it."""

from __future__ import annotations

import json
import re
import subprocess
from typing import Any

import pytest
from processes import run_python

import pyconv


def cli(*arguments: str, **environment: Any) -> str:
    """The output of `python -m pyconv`."""
    return run_python("-m", "pyconv", *arguments, **environment)


@pytest.mark.parametrize("isa", pyconv.isas())
def test_info_tells_the_instruction_set_in_use(isa: str) -> None:
    text = cli("info", PYCONV_ISA=isa, PYCONV_NUM_THREADS="3")
    assert pyconv.__version__ in text
    assert re.search(rf"\b{isa}\b", text)
    assert re.search(r"\b3\b", text) and "PYCONV_NUM_THREADS" in text
    others = {cli("info", PYCONV_ISA=other) for other in pyconv.isas()}
    assert len(others) == len(pyconv.isas())


def test_help_lists_the_commands() -> None:
    text = cli("--help")
    for command in ("info", "bench", "explain", "demo"):
        assert command in text


@pytest.mark.parametrize("arguments", [("explode",), ("info", "--bogus")])
def test_unknown_words_are_refused(arguments: tuple[str, ...]) -> None:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        cli(*arguments)
    assert caught.value.returncode == 2
    assert arguments[-1] in caught.value.stderr
    assert "Traceback" not in caught.value.stderr


def test_explain_describes_the_plan() -> None:
    problem = ("explain", "--input", "1,16,12,12", "--weight", "8,16,3,3", "--padding", "1")
    text = cli(*problem)
    layer = pyconv.Conv2d(16, 8, 3, padding=1)
    plan = layer.plan((1, 16, 12, 12))
    assert plan.algorithm in text and plan.reason in text
    assert re.search(r"\b165[,_ ]?888\b", text)  # 8 * 16 * 9 * 12 * 12 multiply-accumulates
    assert "reference" in cli(*problem, "--algorithm", "reference")


def test_explain_tells_what_is_wrong_in_one_line() -> None:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        cli("explain", "--input", "1,16,12,12", "--weight", "8,16,3,3", "--stride", "0")
    assert caught.value.returncode == 2
    assert re.fullmatch(r".*stride.*0.*\n", caught.value.stderr)


def test_explain_takes_no_geometry_for_a_named_layer() -> None:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        cli("explain", "--layer", "vgg16.conv3_2.3x3", "--stride", "2")
    assert caught.value.returncode == 2
    assert re.fullmatch(r".*--layer.*stride.*\n", caught.value.stderr)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("bench", "--json", "/nonexistent/samples.json"), "/nonexistent/samples.json"),
        (("bench", "--threads", "1000"), "1000"),
        (("explain", "--threads", "9999", "--input", "1,2,3", "--weight", "1,2,3"), "9999"),
        (("explain", "--input", "1,8,9,9", "--weight=-8,8,3,3"), "--weight"),
    ],
)
def test_what_the_user_can_mend_is_said_at_once(arguments: tuple[str, ...], word: str) -> None:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        cli(*arguments)
    assert caught.value.returncode == 2
    assert word in caught.value.stderr
    assert "Traceback" not in caught.value.stderr


def test_bench_lists_layers_and_writes_samples() -> None:
    name = "conformer.module.31"  # one of the smallest
    assert name in cli("bench", "--list")
    (report,) = json.loads(cli("bench", "--layers", name, "--rounds", "1", "--json", "-"))
    (layer,) = report["layers"]
    assert layer["name"] == name
    assert {"numpy", "pyconv"} <= set(layer["seconds"])
    assert all(len(samples) == 1 for samples in layer["seconds"].values())


def test_bench_refuses_unknown_layers() -> None:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        cli("bench", "--layers", "nonesuch")
    assert caught.value.returncode == 2
    assert "nonesuch" in caught.value.stderr


def test_demo_recognises_digits() -> None:
    match = re.search(r"(\d+) of 599 held-out digits right", cli("demo"))
    assert match and int(match[1]) >= 590
