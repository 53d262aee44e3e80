"""Peak memory: never the im2col matrix, never a padded copy, never more than the plan says."""

from __future__ import annotations

import pytest
from processes import run_script

MEASURE = """
import numpy, pyconv

def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))

x = numpy.ones({x_shape}, numpy.float32)
weight = numpy.ones({weight_shape}, numpy.float32)
layer = pyconv.Conv2d.from_weights(weight, **{arguments})
layer.plan(x.shape)
small = layer(x[..., :9, :9] if {first} else x[:, :9, :9])
before = peak()
y = layer(x)
print(peak() - before, layer.plan(x.shape).workspace_bytes, y.nbytes, x.nbytes)
"""
SLACK = 2**23  # thread stacks and the allocator's own


@pytest.mark.parametrize("mode", ["zeros", "reflect"])
def test_peak_memory_is_bounded_by_the_plan(mode: str, data_format: str) -> None:
    first = data_format == "channels_first"
    script = MEASURE.format(
        x_shape=(1, 64, 512, 512) if first else (1, 512, 512, 64),
        weight_shape=(2, 64, 3, 3),
        first=first,
        arguments=dict(padding=1, padding_mode=mode, data_format=data_format),
    )
    grown, workspace, output, image = map(int, run_script(script).split())
    im2col = 9 * image
    assert grown <= output + workspace + SLACK
    assert grown < im2col / 16
    assert workspace < image / 2


def test_memory_of_a_grouped_layer_and_of_a_wide_kernel() -> None:
    script = MEASURE.format(
        x_shape=(1, 64, 256, 256),
        weight_shape=(64, 2, 9, 9),
        first=True,
        arguments=dict(padding=4, groups=32),
    )
    grown, workspace, output, image = map(int, run_script(script).split())
    assert grown <= output + workspace + SLACK
    assert grown < 81 * image / 16
