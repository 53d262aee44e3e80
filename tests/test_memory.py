"""Peak memory: never the im2col matrix, never a padded copy, never more than the plan says."""

from __future__ import annotations

import subprocess

import pytest
from processes import PEAK, run_script, unsanitized

MEASURE = (
    PEAK
    + """
import numpy, pyconv

x = numpy.ones({x_shape}, numpy.float32)
weight = numpy.ones({weight_shape}, numpy.float32)
layer = pyconv.Conv2d.from_weights(weight, **{arguments})
layer.plan(x.shape)
small = layer(x[..., :9, :9] if {first} else x[:, :9, :9])
before = peak()
y = layer(x)
print(peak() - before, layer.plan(x.shape).workspace_bytes, y.nbytes, x.nbytes)
"""
)
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


@unsanitized
@pytest.mark.parametrize("threads", [1, 4])
def test_a_call_takes_no_more_than_the_plan_says(
    algorithm: str, data_format: str, threads: int
) -> None:
    depthwise, pointwise = algorithm == "depthwise", algorithm == "pointwise"
    channels, kernel = (512, 1) if pointwise else (64, 3)
    side = 40 if algorithm == "reference" else 112
    script = f"""{PEAK}
import numpy, pyconv

pyconv.set_num_threads({threads})
layer = pyconv.Conv2d(
    {channels}, 64, {kernel}, padding={kernel // 2}, data_format={data_format!r},
    groups={64 if depthwise else 1}, algorithm={algorithm!r},
)
shape = [1, {side}, {side}]
shape.insert({1 if data_format == "channels_first" else 3}, {channels})
x = numpy.ones(shape, numpy.float32)
workspace = layer.plan(x.shape).workspace_bytes
y = numpy.full(layer.plan(x.shape).output_shape, 1, numpy.float32)
layer(x[:, :20, :20] if {data_format == "channels_last"} else x[:, :, :20, :20], num_threads=1)
layer.plan(x.shape)
open("/proc/self/clear_refs", "w").write("5")  # the peak starts again from here
before = peak()
layer(x, out=y)
print(peak() - before, workspace)
"""
    try:
        grown, workspace = map(int, run_script(script).split())
    except subprocess.CalledProcessError as error:
        if "cannot serve" not in error.stderr:
            raise
        pytest.skip(error.stderr.splitlines()[-1])
    # Threads take some 100 KiB each of stack and tables.
    assert grown <= workspace + 2**20


@unsanitized
def test_without_memory_a_call_fails_cleanly_and_the_next_works() -> None:
    script = """
import numpy, pyconv, resource

def size():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[0]) * resource.getpagesize()

rng = numpy.random.default_rng(0)
x = rng.standard_normal((2, 32, 40, 40)).astype(numpy.float32)
layer = pyconv.Conv2d(32, 40, 3, padding=1, rng=0)
y = layer(x, num_threads=1)
wide = numpy.broadcast_to(numpy.float32(1), (1, 32, 20000, 20000))
many = numpy.broadcast_to(numpy.float32(1), (40000, 32, 30, 30))

def fails():
    failures = 0
    for call in (
        lambda: layer(wide),  # the result
        lambda: pyconv.conv2d(x[:, :, :30, :30], many),  # the packed weights
        lambda: pyconv.Conv2d(32, 40000, 100),  # the weights of a layer
        lambda: pyconv.Conv2d.from_weights(many),
    ):
        try:
            call()
        except MemoryError:
            failures += 1
    return failures

limit = size() + 2**28
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
assert fails() == 4
before = size()
for _ in range(20):
    assert fails() == 4
assert size() - before < 2**20
assert numpy.array_equal(layer(x, num_threads=4), y)
assert numpy.array_equal(pyconv.conv2d(x, layer.weight, layer.bias, padding=1), y)
"""
    run_script(script)


@unsanitized
@pytest.mark.parametrize("room", range(0, 40, 3))
def test_without_memory_for_threads_nothing_ends_the_process(room: int) -> None:
    script = f"""
import numpy, pyconv, resource
x = numpy.ones((2, 32, 40, 40), numpy.float32)
layer = pyconv.Conv2d(32, 40, 3, padding=1, rng=0)
y = layer(x, num_threads=1)
out = numpy.empty_like(y)
with open("/proc/self/statm") as statm:
    limit = int(statm.read().split()[0]) * resource.getpagesize() + ({room} << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
for _ in range(3):
    try:
        layer(x, out=out, num_threads=4)
        equal = numpy.array_equal(out, y)  # which allocates, too
    except MemoryError:
        continue
    assert equal
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert numpy.array_equal(layer(x, num_threads=4), y)
"""
    run_script(script)


@unsanitized
@pytest.mark.parametrize("what", ["calls", "failing calls", "layers", "shapes"])
def test_memory_stays_flat(what: str) -> None:
    script = f"""
import ctypes, gc, itertools, numpy, pyconv, sys

class MallInfo(ctypes.Structure):
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]

mallinfo = ctypes.CDLL(None).mallinfo2
mallinfo.restype = MallInfo

def used():
    # Not the resident set, which also tells how freed memory is strewn.
    gc.collect()
    info = mallinfo()
    return info.uordblks + info.hblkhd, sys.getallocatedblocks()

x = numpy.ones((1, 8, 3, 3), numpy.float32)
wide = numpy.ones((2, 16, 60, 60), numpy.float32)
weight = numpy.ones((16, 8, 3, 3), numpy.float32)
layer = pyconv.Conv2d.from_weights(weight, padding=1)
large = pyconv.Conv2d(16, 16, 3)
sides = itertools.cycle(range(3, 600))

def calls():
    layer(x)
    pyconv.conv2d(x, weight, residual=layer(x), padding=1, activation="gelu")
    pyconv.separable_conv2d(x, weight[:8, :1], weight[:, :, 0, 0])

def failing_calls():
    for arguments in (dict(stride=0), dict(groups=3), dict(algorithm="winograd", stride=3)):
        try:
            pyconv.conv2d(x, weight, **arguments)
        except ValueError:
            continue
        raise AssertionError

def layers():
    one = pyconv.Conv2d(8, 16, 3, rng=0)
    one(x)
    one.set_weights(weight)
    one(x)

def shapes():
    side = next(sides)
    layer(numpy.ones((1, 8, 3, side), numpy.float32))
    layer(numpy.ones((8, side, 3), numpy.float32))

def repeat(number):
    for _ in range(number):
        {what.replace(" ", "_")}()
    large(wide, num_threads=4)

number = {dict(calls=250_000, layers=10_000, shapes=3000).get(what, 5000)}
repeat(number // 4)
before = used()
repeat(number)
after = used()
print(after[0] - before[0], after[1] - before[1])
"""
    grown, blocks = map(int, run_script(script).split())
    # Of a million calls or ten thousand layers: a leak of a byte in ten calls would show.
    assert grown < 2**15
    assert blocks < 500
