"""Processes that end with the one that started them, so that no two trainers ever share a job directory (Linux).

`python -m rlhf.tied COMMAND …` turns into the command, tied to its parent: the launchers of several processes
(torchrun, accelerate, deepspeed) are not ours, and could not tie themselves.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
import threading
from pathlib import Path

PARENT_PID = "TOUCHSTONE_PARENT_PID"
_SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG, see prctl(2); an execve keeps it


def die_with_parent() -> None:
    """Be killed when the process that PARENT_PID names ends: the direct parent, or an ancestor behind a launcher."""
    named = os.environ.pop(PARENT_PID, "")
    if not named:
        return
    ancestor = int(named)
    if os.getppid() == ancestor:
        ctypes.CDLL(None, use_errno=True).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
        if os.getppid() != ancestor:  # it died before the line above
            os.kill(os.getpid(), signal.SIGKILL)
        return
    try:
        descriptor = os.pidfd_open(ancestor)
    except ProcessLookupError:
        descriptor = -1
    if descriptor < 0 or not _is_descendant(ancestor):  # it died, and its number may be another's by now
        os.kill(os.getpid(), signal.SIGKILL)
    threading.Thread(target=_kill_after, args=(descriptor,), name="tied", daemon=True).start()


def _is_descendant(ancestor: int) -> bool:
    pid = os.getpid()
    while pid > 1:
        if pid == ancestor:
            return True
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            return False
    return False


def _kill_after(descriptor: int) -> None:
    """Wait for the end of the process behind a pidfd, then end at once."""
    select.select([descriptor], [], [])
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    die_with_parent()
    # The command keeps this process id, so what it starts can tie itself to it.
    os.environ[PARENT_PID] = str(os.getpid())
    os.execvp(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    main()
