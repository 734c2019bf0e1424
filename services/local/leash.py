"""Becomes a command that is told to end when its starter dies, however that dies.

``python leash.py <pid of the starter> <command…>``. The kernel keeps the promise (PR_SET_PDEATHSIG)
and it survives exec, so nothing stays between starter and command. It is a program of its own,
not code between fork and exec, because the starter has gRPC's threads.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    starter, command = int(sys.argv[1]), sys.argv[2:]
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM) != 0:
        sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != starter:
        sys.exit("the starter is gone already")
    os.execv(command[0], command)  # noqa: S606 - becoming the command is the point
