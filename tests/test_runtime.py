"""What the package says about itself, and what the environment makes it do at import."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from processes import run_script

import pyconv
from pyconv.runtime import _cgroup_quota


def test_instruction_sets_end_with_the_baseline() -> None:
    isas = pyconv.isas()
    assert isas[-1] == "baseline"
    assert [isa for isa in ("avx512", "avx2", "baseline") if isa in isas] == list(isas)


@pytest.mark.parametrize("isa", pyconv.isas())
def test_the_environment_forces_an_instruction_set(isa: str) -> None:
    script = """
import numpy, pyconv
print(pyconv.info())
print(pyconv.Conv2d(4, 4, 3).plan((1, 4, 9, 9)).isa)
"""
    *info, planned = run_script(script, PYCONV_ISA=isa).splitlines()
    assert planned == isa
    assert isa in "".join(info)


def test_the_best_instruction_set_is_the_default() -> None:
    script = "import pyconv; print(pyconv.Conv2d(4, 4, 3).plan((1, 4, 9, 9)).isa)"
    assert run_script(script, PYCONV_ISA=None).strip() == pyconv.isas()[0]


def test_an_unknown_instruction_set_fails_at_import_and_lists_the_known() -> None:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        run_script("import pyconv", PYCONV_ISA="sse9")
    for word in ("PYCONV_ISA", "sse9", *pyconv.isas()):
        assert word in caught.value.stderr


@pytest.mark.parametrize(
    ("membership", "files", "quota"),
    [
        ("0::/", {}, None),
        ("0::/", {"cpu.max": "max 100000"}, None),
        ("0::/", {"cpu.max": "350000 100000"}, 3),
        ("0::/", {"cpu.max": "50000 100000"}, 1),
        ("0::/a/b", {"a/b/cpu.max": "200000 100000"}, 2),
        ("0::/a/b", {"a/cpu.max": "100000 100000", "a/b/cpu.max": "max 100000"}, 1),
        ("0::/../b", {"cpu.max": "400000 100000"}, 4),
        ("0::/a", {"c/cpu.max": "100000 100000"}, None),
        (
            "4:cpu,cpuacct:/a\n2:memory:/b",
            {"cpu/a/cpu.cfs_quota_us": "300000\n", "cpu/a/cpu.cfs_period_us": "100000\n"},
            3,
        ),
        ("", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ("", {"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"}, 2),
    ],
)
def test_the_quota_of_control_groups(
    tmp_path: Path, membership: str, files: dict[str, str], quota: int | None
) -> None:
    for name, text in files.items():
        path = tmp_path / "fs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "self").write_text(membership)
    assert _cgroup_quota(tmp_path / "fs", tmp_path / "self") == quota


def test_info_names_version_and_compiler() -> None:
    text = str(pyconv.info())
    for word in (pyconv.__version__, "version", "compiler", *pyconv.isas()):
        assert word in text


def test_numpy_is_the_only_import() -> None:
    script = """
import sys
import pyconv
heavy = {"torch", "scipy", "ml_dtypes", "rich", "sklearn", "typing_extensions"} & set(sys.modules)
assert not heavy, heavy
"""
    run_script(script)


def test_calls_import_nothing() -> None:
    script = """
import sys
import numpy, pyconv
x = numpy.ones((1, 8, 12, 12), numpy.float32)
weight = numpy.ones((8, 8, 3, 3), numpy.float32)
layer = pyconv.Conv2d.from_weights(weight, weight[0, :, 0, 0], padding="same", activation="gelu")
separable = pyconv.DepthwiseSeparableConv2d(8, 8, 3, padding=1, padding_mode="reflect", rng=0)
before = set(sys.modules)
y = layer(x, residual=x, out=numpy.empty_like(x), num_threads=2)
layer(x[0, ..., ::2])
separable(x, out=y)
pyconv.conv2d(memoryview(x), weight[:, :2], groups=4, out=y[..., :10, :10])
pyconv.conv2d(x.transpose(0, 2, 3, 1), weight, data_format="channels_last")
pyconv.separable_conv2d(x, weight[:, :1], weight[:, :, :1, :1])
layer.plan(x.shape)
assert not set(sys.modules) - before, set(sys.modules) - before
"""
    run_script(script)


def test_every_public_name_exists() -> None:
    assert len(set(pyconv.__all__)) == len(pyconv.__all__)
    for name in pyconv.__all__:
        assert getattr(pyconv, name) is not None
