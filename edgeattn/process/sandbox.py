"""Restrictions of a worker process that reads untrusted files: no network, limited memory.

Linux only. On other systems, or if the system refuses, the process runs without restrictions: the
main protection is that no code in a file is executed.
"""

import contextlib
import ctypes
import os
import sys
from pathlib import Path

# From sched.h.
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000


def enter_sandbox() -> None:
    """Disconnect this process from the network and limit its memory to that of the machine.

    Call it before the process starts a second thread.
    """
    if sys.platform == "linux":
        _disconnect_network()
        _limit_memory()


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


def _limit_memory() -> None:
    """Exhausted memory then raises an error here instead of letting the kernel kill processes."""
    import resource

    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(OSError, ValueError):
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        limit = total if hard == resource.RLIM_INFINITY else min(total, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
