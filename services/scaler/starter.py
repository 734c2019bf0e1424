"""Starts replicas for a scaler in another container: ``python -m services.scaler.starter SOCKET``.

Its replicas live as long as it does, whatever becomes of the scaler. It decides nothing, keeps no
state and opens no port. At SIGTERM it ends what it has started.
"""

import json
import os
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from services.scaler.targets.starting import OwnStarter, is_same_user, read_line

SAYING_SECONDS = 5.0
"""How long a scaler may take to say what it wants: it is served alone."""
END_SECONDS = 20.0
"""How long replicas may take to end at SIGTERM."""
REAP_SECONDS = 1.0
MAX_PATH = 100
"""Bytes that the path of a socket may have, about."""


class Starting:
    """The processes that were started and live."""

    def __init__(self) -> None:
        self._starter = OwnStarter()
        self._living: set[int] = set()

    def serve(self, connection: socket.socket) -> None:
        """Does what one connection asks for."""
        connection.settimeout(SAYING_SECONDS)
        if is_same_user(connection):
            answer = json.dumps(self._answer(connection)).encode()
            connection.sendall(answer + b"\n")

    def _answer(self, connection: socket.socket) -> dict[str, Any]:
        try:
            asked = read_line(connection)
            pid = self._starter.start(
                [str(part) for part in asked["argv"]],
                {str(name): str(value) for name, value in asked["environment"].items()},
                Path(asked["folder"]),
                Path(asked["output"]),
            )
        except OSError as error:
            return {"errno": error.errno, "error": error.strerror or str(error)}
        except Exception as error:  # noqa: BLE001 -- whatever is said, the others' replicas stay
            return {"errno": None, "error": f"not to be understood: {error}"}
        self._living.add(pid)
        return {"pid": pid}

    def reap(self) -> None:
        """Collects what has died, orphans too."""
        with suppress(ChildProcessError):
            while pid := os.waitpid(-1, os.WNOHANG)[0]:
                self._living.discard(pid)

    def end(self) -> None:
        """Ends all; what does not end in time ends with the container."""
        for pid in self._living:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        until = time.monotonic() + END_SECONDS
        while self._living and time.monotonic() < until:
            time.sleep(0.05)
            self.reap()


def listen(path: Path) -> socket.socket:
    """Takes the socket from a starter that is gone.

    Raises:
        OSError: another one has it, or it cannot be had.
    """
    with socket.socket(socket.AF_UNIX) as before, suppress(FileNotFoundError):
        try:
            before.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
        else:
            raise FileExistsError(f"another starter serves {path}")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    path.chmod(0o600)
    listener.listen()
    return listener


def _end(*_: object) -> None:
    raise SystemExit(0)


def main() -> None:
    """Serves until SIGTERM or SIGINT."""
    if len(sys.argv) != 2 or len(os.fsencode(sys.argv[1])) > MAX_PATH:  # noqa: PLR2004
        sys.stderr.write(f"usage: starter SOCKET, a path of at most {MAX_PATH} bytes\n")
        raise SystemExit(2)
    starting = Starting()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    try:
        listener = listen(Path(sys.argv[1]))
    except OSError as error:
        sys.stderr.write(f"starter: {error}\n")
        raise SystemExit(2) from error
    with listener:
        listener.settimeout(REAP_SECONDS)
        try:
            while True:
                starting.reap()  # here alone, so that none dies before it is noted as living
                with suppress(OSError), listener.accept()[0] as connection:
                    starting.serve(connection)
        finally:
            starting.end()


if __name__ == "__main__":
    main()
