"""Child processes that end with their parent, whatever ends the parent."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_CLONE_NEWUSER = 0x10000000


def die_with_parent(parent: int, signal_number: int = signal.SIGKILL) -> None:
    """Ask the kernel to signal this process when its parent ends (Linux only; elsewhere it does nothing).

    Must run in the child after any change of user: both setuid and unshare clear the setting. `parent` is the process
    id that the parent had before the fork. The kernel means the parent's *thread*: start children from one that lasts.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0)
    if os.getppid() != parent:  # it ended between fork and prctl
        os.kill(os.getpid(), signal_number)


def become_ordinary_user() -> None:
    """In a child of root: live in a user namespace as uid 1000, because Postgres refuses to run as root.

    Files stay owned by root outside, so nothing needs chown. Raises OSError where namespaces are refused.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWUSER) != 0:
        raise OSError(ctypes.get_errno(), "this system refuses user namespaces")
    with open("/proc/self/setgroups", "w") as file:
        file.write("deny")
    with open("/proc/self/uid_map", "w") as file:
        file.write("1000 0 1")
    with open("/proc/self/gid_map", "w") as file:
        file.write("1000 0 1")


def child_setup(*, drop_root: bool = False, signal_number: int = signal.SIGKILL) -> Callable[[], None]:
    """A `preexec_fn`: default signal handlers, an ordinary user if asked, and an end with the parent."""
    parent = os.getpid()

    def setup() -> None:
        # A shell's `&` hands on SIGINT as ignored, and then no SIGINT would stop the child.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if drop_root and os.geteuid() == 0:
            become_ordinary_user()
        die_with_parent(parent, signal_number)

    return setup


class EmbeddedServerError(RuntimeError):
    """An embedded server cannot start; the sentence says why and what to do."""


def last_lines(path: Path, count: int = 5) -> str:
    """The end of a log file, for an error message."""
    if not path.exists():
        return "(no log)"
    return "\n".join(path.read_text(errors="replace").splitlines()[-count:])


@contextlib.contextmanager
def locked(path: Path, *, shared: bool = False) -> Iterator[int]:
    """Hold an advisory lock on a file for the length of the block, waiting for it; gives the descriptor."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)
