"""Restrictions of worker processes: limits, and no network if they read untrusted files.

Memory and network are restricted on Linux only. On other systems, or if the system refuses, the
process runs without: the main protection is that no code in a file is executed.
"""

import contextlib
import ctypes
import math
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

# From sched.h.
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000


def enter_sandbox() -> None:
    """Disconnect this process from the network.

    Call it before the process starts a second thread.
    """
    if sys.platform == "linux":
        _disconnect_network()


def _disconnect_network() -> None:
    """Enter a new network namespace, in which no interface is up."""
    try:
        unshare = ctypes.CDLL(None, use_errno=True).unshare
    except (OSError, AttributeError):
        return
    user, group = os.geteuid(), os.getegid()
    if user == 0:
        unshare(_CLONE_NEWNET)
        return
    # Other users need a new user namespace as well, in which they keep their identity.
    if unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0:
        with contextlib.suppress(OSError):
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
            Path("/proc/self/gid_map").write_text(f"{group} {group} 1")


def without_core_dump() -> None:
    """Let a signal that ends this process write no core dump."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


@contextlib.contextmanager
def limited_processor_time(seconds: float) -> Iterator[None]:
    """Let the system end this process by SIGXCPU if it computes for longer than this in the block.

    Unlike time of the clock, processor time does not depend on what else runs on the machine. Has
    no effect where the system has no such limit.
    """
    try:
        import resource
    except ImportError:
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_CPU)
    # A whole number, and not 0: Linux takes that as 1.
    end = math.ceil(time.process_time() + seconds)
    limits = [limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY]
    without_core_dump()
    resource.setrlimit(resource.RLIMIT_CPU, (min([end, *limits]), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))


def limit_memory(limit: int | None = None) -> None:
    """Limit the memory of this process to ``limit`` bytes, by default to that of the machine.

    Exhausted memory then raises an error here instead of letting the kernel kill processes.
    """
    if sys.platform != "linux":
        return
    import resource

    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = total if limit is None else min(limit, total)
    with contextlib.suppress(OSError, ValueError):
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        soft = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
