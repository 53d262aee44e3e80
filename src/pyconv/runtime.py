"""Threads, instruction sets, and what this build is."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.metadata import version
from pathlib import Path

from pyconv import _core
from pyconv import _validation as validate

__all__ = [
    "algorithms",
    "get_num_threads",
    "info",
    "isas",
    "num_threads",
    "resolve_num_threads",
    "set_num_threads",
]


def _cgroup_quota(
    root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")
) -> int | None:
    """Whole CPUs that this process's control group may use, at least 1; None without a quota.

    A group is bound by the quotas of those that it is part of as well.
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        lines = []
    quotas = [_own_quota(root), _own_quota(root / "cpu")]
    for line in lines:  # hierarchy:controllers:/path, where version 2 names no controllers
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        group = (root / "cpu" if controllers else root) / path.lstrip("/")
        while group not in (root, root / "cpu", group.parent):
            quotas.append(_own_quota(group))
            group = group.parent
    return min((quota for quota in quotas if quota is not None), default=None)


def _own_quota(group: Path) -> int | None:
    """What one group says of itself, in version 2 of control groups or in version 1."""
    try:
        quota, period = (group / "cpu.max").read_text().split()[:2]
    except (OSError, ValueError):
        try:
            quota = (group / "cpu.cfs_quota_us").read_text().strip()
            period = (group / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if not quota.isdigit() or not period.isdigit():  # "max", or -1
        return None
    return max(1, int(quota) // max(1, int(period)))


def _detect_threads() -> tuple[int, str]:
    """The least of CPU affinity, the cgroup's quota and OMP_NUM_THREADS, and which it is."""
    # OpenMP's, which knows them from before OMP_PROC_BIND tied this thread to one of them.
    found = [(_core.openmp_processors(), "CPU affinity")]
    quota = _cgroup_quota()
    if quota is not None:
        found.append((quota, "cgroup quota"))
    found.append((_core.openmp_max_threads(), "OMP_NUM_THREADS"))
    return min(found, key=lambda item: item[0])


def _threads_from_environment() -> int | None:
    text = os.environ.get("PYCONV_NUM_THREADS")
    if not text:
        return None
    try:
        return validate.thread_count("PYCONV_NUM_THREADS", int(text))
    except ValueError:
        raise ValueError(
            f"PYCONV_NUM_THREADS: got {text!r}, expected an int from 1 to {validate.MAX_THREADS}"
        ) from None


def _select_isa_from_environment() -> None:
    name = os.environ.get("PYCONV_ISA")
    if not name:
        return
    if name not in _core.isas():
        raise ValueError(
            f"PYCONV_ISA: got {name!r}, expected one of {', '.join(_core.isas())}, the instruction "
            "sets of this build that this machine supports"
        )
    _core.select_isa(name)


_select_isa_from_environment()
_detected, _detected_from = _detect_threads()
_from_environment = _threads_from_environment()
_process_wide: int | None = None
_scoped: ContextVar[int | None] = ContextVar("pyconv_num_threads", default=None)


def _current_threads() -> tuple[int, str]:
    scoped = _scoped.get()
    if scoped is not None:
        return scoped, "pyconv.num_threads"
    if _process_wide is not None:
        return _process_wide, "pyconv.set_num_threads"
    if _from_environment is not None:
        return _from_environment, "PYCONV_NUM_THREADS"
    # Asked again each time, because threadpoolctl and others change it while the process runs.
    openmp = _core.openmp_max_threads()
    return (openmp, "OpenMP") if openmp < _detected else (_detected, _detected_from)


def get_num_threads() -> int:
    """Number of threads that a call uses at most when it is not told.

    The first that was given of: the `num_threads` context, `set_num_threads`, the environment
    variable ``PYCONV_NUM_THREADS``, and detection: the least of CPU affinity, the cgroup's quota
    and ``OMP_NUM_THREADS``.

    Examples
    --------
    >>> import pyconv
    >>> pyconv.get_num_threads() >= 1
    True
    """
    return _current_threads()[0]


def resolve_num_threads(argument: object) -> int:
    """The `num_threads` argument of a call, or the default for None."""
    if argument is None:
        return _current_threads()[0]
    return validate.thread_count("num_threads", argument)


def set_num_threads(n: int) -> None:
    """Set the number of threads of all calls in this process that are not told otherwise.

    Parameters
    ----------
    n
        From 1 to 1024. Small problems use fewer.

    Raises
    ------
    TypeError, ValueError
        If `n` is not such an int.
    """
    global _process_wide  # noqa: PLW0603 - this is the setting
    _process_wide = validate.thread_count("n", n)


@contextmanager
def num_threads(n: int) -> Iterator[None]:
    """Set the number of threads of calls within a ``with`` block, in this thread (or task) only.

    Parameters
    ----------
    n
        From 1 to 1024.

    Raises
    ------
    ValueError, TypeError
        If `n` is out of range, or not an int.

    Examples
    --------
    >>> import pyconv
    >>> with pyconv.num_threads(1):
    ...     pyconv.get_num_threads()
    1
    """
    token = _scoped.set(validate.thread_count("n", n))
    try:
        yield
    finally:
        _scoped.reset(token)


def algorithms() -> tuple[str, ...]:
    """Names of the algorithms, in the order in which ``"auto"`` prefers them.

    The `algorithm` argument takes these, ``"auto"``, and ``"auto_direct"`` without Winograd.

    Examples
    --------
    >>> import pyconv
    >>> "im2col_gemm" in pyconv.algorithms()
    True
    """
    return tuple(_core.algorithms())


def isas() -> tuple[str, ...]:
    """Names of the instruction sets that this build has and this machine supports, best first.

    Examples
    --------
    >>> import pyconv
    >>> pyconv.isas()[-1]
    'baseline'
    """
    return tuple(_core.isas())


def info() -> dict[str, str | int | tuple[str, ...]]:
    """What runs here: version, compiler, instruction sets, threads and where their number is from.

    Returns
    -------
    dict
        ``version``, ``compiler``, ``isa`` (in use), ``isas`` (available, best first),
        ``algorithms``, ``num_threads``, ``num_threads_from``, ``cpu``, ``python``.

    Examples
    --------
    >>> import pyconv
    >>> pyconv.info()["isa"] in pyconv.isas()
    True
    """
    threads, source = _current_threads()
    return {
        "version": version("pyconv"),
        "compiler": _core.compiler,
        "isa": _core.current_isa(),
        "isas": isas(),
        "algorithms": algorithms(),
        "num_threads": threads,
        "num_threads_from": source,
        "cpu": _cpu_model(),
        "python": platform.python_version(),
    }


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
