"""What a child process that reads untrusted files gives up, where the system lets it.

Linux only; elsewhere, and where the system refuses, the process goes on as it is: what protects a
user in the first place is that nothing in a file is executed.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from pathlib import Path

# sched.h
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000


def confine() -> None:
    """Leave the network, and take no more memory than the machine has.

    Must be called before the process has a second thread.
    """
    if sys.platform == "linux":
        _leave_network()
        _limit_memory()


def _leave_network() -> None:
    """A network namespace of its own, without any interface that is up."""
    try:
        unshare = ctypes.CDLL(None, use_errno=True).unshare
    except (OSError, AttributeError):
        return
    user, group = os.geteuid(), os.getegid()
    if user == 0:
        unshare(_CLONE_NEWNET)
        return
    # An ordinary user may have one only together with a user namespace, in which it stays itself.
    if unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0:
        with contextlib.suppress(OSError):
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
            Path("/proc/self/gid_map").write_text(f"{group} {group} 1")


def _limit_memory() -> None:
    """Running out of memory is then an error in this process, not the kernel killing another."""
    import resource

    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(OSError, ValueError):
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        limit = total if hard == resource.RLIM_INFINITY else min(total, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
