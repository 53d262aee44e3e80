"""Threads: their number, sharing between Python threads, and forked and spawned processes."""

from __future__ import annotations

import os
import pickle
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from problems import make
from processes import run_python, run_script, unsanitized

import pyconv

# Work enough to be shared out: a call is faster on its own thread below about 50 microseconds.
BIG = """
import numpy, os, pyconv, signal, sys
rng = numpy.random.default_rng(0)
x = rng.standard_normal((2, 32, 40, 40)).astype(numpy.float32)
layer = pyconv.Conv2d(32, 40, 3, padding=1, rng=0)
"""


@pytest.fixture
def threads() -> Iterator[int]:
    """The number of threads at entry, restored at exit."""
    number = pyconv.get_num_threads()
    yield number
    pyconv.set_num_threads(number)


def test_set_and_get(threads: int) -> None:
    assert threads >= 1
    for number in (1, 3, 2):
        pyconv.set_num_threads(number)
        assert pyconv.get_num_threads() == number


def test_context_manager_restores(threads: int) -> None:
    with pyconv.num_threads(3):
        assert pyconv.get_num_threads() == 3
        with pyconv.num_threads(1):
            assert pyconv.get_num_threads() == 1
        assert pyconv.get_num_threads() == 3
    assert pyconv.get_num_threads() == threads
    with pytest.raises(KeyError), pyconv.num_threads(5):
        raise KeyError
    assert pyconv.get_num_threads() == threads


@pytest.mark.parametrize("value", [0, -1])
def test_refused_numbers(threads: int, value: int) -> None:
    with pytest.raises(ValueError, match=str(value)):
        pyconv.set_num_threads(value)
    with pytest.raises(ValueError, match=str(value)), pyconv.num_threads(value):
        pass
    assert pyconv.get_num_threads() == threads


@pytest.mark.parametrize("value", [1.0, "2", None])
def test_refused_types(threads: int, value: Any) -> None:
    with pytest.raises(TypeError):
        pyconv.set_num_threads(value)
    with pytest.raises(TypeError), pyconv.num_threads(value):
        pass
    assert pyconv.get_num_threads() == threads


def test_context_manager_is_of_one_thread(threads: int) -> None:
    with pyconv.num_threads(threads + 1), ThreadPoolExecutor(1) as pool:
        assert pool.submit(pyconv.get_num_threads).result() == threads


def test_precedence_of_argument_and_setting(threads: int) -> None:
    layer = pyconv.Conv2d(64, 64, 3)
    for number in (1, 2):
        with pyconv.num_threads(number):
            assert layer.plan((8, 64, 64, 64)).threads == number


def count(**environment: Any) -> int:
    """The number of threads that a fresh process detects."""
    variables: dict[str, Any] = {"PYCONV_NUM_THREADS": None, "OMP_NUM_THREADS": None, **environment}
    return int(run_script("import pyconv; print(pyconv.get_num_threads())", **variables))


def test_detection_never_exceeds_the_affinity() -> None:
    assert 1 <= count() <= len(os.sched_getaffinity(0))
    script = """
import os
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import pyconv
print(pyconv.get_num_threads())
"""
    assert run_script(script, PYCONV_NUM_THREADS=None, OMP_NUM_THREADS=None).strip() == "1"


def test_omp_num_threads_can_only_lower_the_number() -> None:
    assert count(OMP_NUM_THREADS="1") == 1
    assert count(OMP_NUM_THREADS="1,8") == 1
    assert count(OMP_NUM_THREADS="4096") == count()


def test_pyconv_num_threads_decides() -> None:
    assert count(PYCONV_NUM_THREADS="1") == 1
    assert count(PYCONV_NUM_THREADS="5") == 5
    assert count(PYCONV_NUM_THREADS="5", OMP_NUM_THREADS="1") == 5


def test_setting_wins_over_the_environment() -> None:
    script = "import pyconv; pyconv.set_num_threads(2); print(pyconv.get_num_threads())"
    assert run_script(script, PYCONV_NUM_THREADS="5").strip() == "2"


def test_one_layer_in_many_threads() -> None:
    layer = pyconv.Conv2d(16, 24, 3, padding=1, rng=0)
    rng = np.random.default_rng(0)
    # Images of several sizes, so that the calls need different work space at the same time.
    images = [
        rng.standard_normal((n % 3 + 1, 16, 8 + n, 30 - n)).astype(np.float32) for n in range(12)
    ]
    results = [layer(x) for x in images]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(10):
            for y, result in zip(pool.map(layer, images), results, strict=True):
                np.testing.assert_array_equal(y, result)


def test_functions_in_many_threads_with_changing_settings(threads: int) -> None:
    problem = make((2, 16, 28, 28), (24, 16, 3, 3), padding=1)
    y = problem.run()

    def call(number: int) -> None:
        pyconv.set_num_threads(number % 4 + 1)
        np.testing.assert_array_equal(problem.run(), y)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(call, range(100)))


def test_other_threads_run_during_a_call() -> None:
    problem = make((1, 64, 96, 96), (64, 64, 3, 3))
    done = threading.Event()

    def convolve() -> None:
        problem.run("reference", num_threads=1)
        done.set()

    worker = threading.Thread(target=convolve)
    turns = 0
    worker.start()
    while not done.is_set():
        time.sleep(0.001)
        turns += 1
    worker.join()
    # Were the lock held for the whole call, this thread would wake once or twice.
    assert turns > 5


def test_threadpoolctl_limits_are_honoured(threads: int) -> None:
    script = """
import pyconv
from threadpoolctl import threadpool_limits
layer, shape = pyconv.Conv2d(64, 64, 3), (8, 64, 64, 64)
before = pyconv.get_num_threads()
with threadpool_limits(1):
    assert pyconv.get_num_threads() == layer.plan(shape).threads == 1
assert pyconv.get_num_threads() == before
"""
    run_script(script, PYCONV_NUM_THREADS=None, OMP_NUM_THREADS=None)


@pytest.mark.parametrize("other", ["torch", "sklearn.linear_model"])
@pytest.mark.parametrize("first", [True, False])
def test_beside_another_library_with_openmp(other: str, first: bool) -> None:
    pytest.importorskip(other.partition(".")[0])
    script = f"""
if {first}:
    import {other}
{BIG}
y = layer(x, num_threads=1)
assert numpy.array_equal(layer(x, num_threads=4), y)
import {other}
if {other!r} == "torch":
    for _ in range(3):
        weight, bias = layer.weight.copy(), layer.bias.copy()
        z = torch.conv2d(*map(torch.from_numpy, (x, weight, bias)), padding=1)
        assert numpy.array_equal(layer(x, num_threads=4), y)
    assert abs(z.numpy() - y).max() < 1e-4
else:
    sklearn.linear_model.LogisticRegression().fit(x.reshape(64, -1), numpy.arange(64) % 2)
assert numpy.array_equal(layer(x, num_threads=4), y)
"""
    run_script(script, timeout=120)


def test_calls_at_the_same_time_share_the_processors() -> None:
    script = f"""{BIG}
import threading, time
from pathlib import Path
y = layer(x, num_threads=1)
stop = threading.Event()
wrong = []
def work():
    while not stop.is_set():
        if not numpy.array_equal(layer(x, num_threads=4), y):
            wrong.append(None)
callers = [threading.Thread(target=work) for _ in range(8)]
for caller in callers:
    caller.start()
def state(task):
    try:
        return (task / "stat").read_text().rpartition(") ")[2][0]
    except OSError:
        return "gone"
running = []
for _ in range(100):
    time.sleep(0.005)
    running.append([state(task) for task in Path("/proc/self/task").iterdir()].count("R"))
stop.set()
for caller in callers:
    caller.join()
assert not wrong
print(sorted(running)[50])
"""
    # A team of four for each of eight callers would be 32 threads.
    median = int(run_script(script, OMP_WAIT_POLICY="passive", timeout=120))
    assert median <= 8 + len(os.sched_getaffinity(0))


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one processor only")
def test_threads_that_moved_apart_may_go_anywhere() -> None:
    # A limit to one processor wakes the whole team there; without it they must part, and none may
    # stay bound to where it went.
    script = (
        BIG
        + """
allowed = os.sched_getaffinity(0)
layer(x, num_threads=2)
threads = [int(name) for name in os.listdir("/proc/self/task")]
for turn in range(5):
    for thread in threads:
        os.sched_setaffinity(thread, {min(allowed)})
    layer(x, num_threads=2)
    for thread in threads:
        os.sched_setaffinity(thread, allowed)
    for _ in range(20):
        layer(x, num_threads=2)
    assert all(os.sched_getaffinity(thread) == allowed for thread in threads)
"""
    )
    run_script(script)


def test_idle_threads_do_not_spin() -> None:
    script = f"""{BIG}
import time
layer(x, num_threads=4)
time.sleep(0.1)
before = time.process_time()
time.sleep(1)
print(time.process_time() - before)
"""
    # Of processor time, which a busy machine does not change; a thread that spins takes a second.
    assert float(run_script(script)) < 0.1


def test_a_forked_child_computes_and_ends() -> None:
    script = f"""{BIG}
y = layer(x, num_threads=4)
child = os.fork()
if child == 0:
    signal.alarm(60)
    same = all(
        numpy.array_equal(layer(x, num_threads=number), y) for number in (None, 1, 4)
    )
    os._exit(0 if same else 1)
assert os.waitpid(child, 0)[1] == 0
assert numpy.array_equal(layer(x, num_threads=4), y)
"""
    run_script(script, timeout=120)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_layer_in_worker_processes(method: str, tmp_path: Path) -> None:
    script = tmp_path / "work.py"
    script.write_text(
        f"""{BIG}
import multiprocessing
if __name__ == "__main__":
    y = layer(x, num_threads=4)
    with multiprocessing.get_context({method!r}).Pool(2) as pool:
        results = pool.map_async(layer, [x, x[:1], x]).get(100)
    assert all(numpy.array_equal(r, y[:len(r)]) for r in results)
"""
    )
    run_python(str(script), timeout=120)


@pytest.mark.parametrize("threads", [1, 2])
def test_daemon_threads_that_compute_while_the_process_ends(threads: int) -> None:
    script = f"""{BIG}
import threading, time
def forever():
    while True:
        layer(x, num_threads={threads})
for _ in range(3):
    threading.Thread(target=forever, daemon=True).start()
time.sleep(0.3)
"""
    run_script(script, timeout=60)


@pytest.mark.parametrize("variables", [{"OMP_PROC_BIND": "close"}, {"OMP_PLACES": "cores"}])
def test_threads_that_openmp_binds_are_not_fewer(variables: dict[str, str]) -> None:
    script = "import pyconv; print(pyconv.get_num_threads())"
    unset = dict.fromkeys(("OMP_NUM_THREADS", "PYCONV_NUM_THREADS"))
    free = run_script(script, OMP_PROC_BIND=None, OMP_PLACES=None, **unset)
    assert run_script(script, **unset, **variables) == free


def test_a_fork_of_a_fork() -> None:
    script = f"""{BIG}
y = layer(x, num_threads=4)
def child(depth):
    signal.alarm(60)
    same = numpy.array_equal(layer(x, num_threads=4), y)
    if depth and os.fork() == 0:
        child(depth - 1)
    elif depth:
        same = same and os.wait()[1] == 0
    os._exit(0 if same else 1)
if os.fork() == 0:
    child(1)
assert os.wait()[1] == 0
"""
    run_script(script, timeout=120)


@unsanitized
def test_a_fork_while_other_threads_compute() -> None:
    script = f"""{BIG}
from concurrent.futures import ThreadPoolExecutor
y = layer(x, num_threads=4)
def same(_=None):
    return numpy.array_equal(layer(x, num_threads=4), y)
def fork(_):
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        with ThreadPoolExecutor(3) as pool:
            good = same() and all(pool.map(same, range(6)))
        os._exit(0 if good else 1)
    return os.waitpid(child, 0)[1] == 0
with ThreadPoolExecutor(6) as pool:
    calls = [pool.submit(same) for _ in range(40)]
    forks = [pool.submit(fork, n) for n in range(6)]
    assert all(job.result(60) for job in calls + forks)
assert fork(0) and same()
"""
    run_script(script, timeout=120)


def test_a_fork_after_an_interrupted_call() -> None:
    script = f"""{BIG}
y = layer(x, num_threads=4)
huge = numpy.broadcast_to(x[:1], (2000, *x.shape[1:]))
signal.signal(signal.SIGALRM, signal.default_int_handler)
try:
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    for _ in range(100):
        layer(huge, num_threads=2)
except KeyboardInterrupt:
    pass
if os.fork() == 0:
    signal.alarm(60)
    os._exit(0 if numpy.array_equal(layer(x, num_threads=4), y) else 1)
assert os.wait()[1] == 0
assert numpy.array_equal(layer(x, num_threads=4), y)
"""
    run_script(script, timeout=120)


@pytest.mark.parametrize("isa", pyconv.isas())
def test_a_layer_crosses_to_another_instruction_set(isa: str, tmp_path: Path) -> None:
    layer = pyconv.Conv2d(17, 35, 3, padding=1, activation="silu", rng=0)
    x = make((2, 17, 11, 13), (1, 17, 1, 1)).x
    y = layer(x)  # packs the weights for this process
    (tmp_path / "layer").write_bytes(pickle.dumps((layer, x, y)))
    script = f"""
import numpy, pickle, pyconv
layer, x, y = pickle.load(open({str(tmp_path / "layer")!r}, "rb"))
assert pyconv.info()["isa"] == {isa!r}
assert numpy.array_equal(layer(x), y)
"""
    run_script(script, PYCONV_ISA=isa)
