"""Has replicas started by `services.scaler.starter`, in another container."""

import json
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from services.scaler.targets.slots import StartHindered
from services.scaler.targets.starting import read_line

ANSWER_SECONDS = 10.0
"""How long a starter may take."""


class DistantStarter:
    """Has them started by `services.scaler.starter`."""

    def __init__(self, address: Path) -> None:
        """`address`: its socket."""
        self._address = address

    def start(
        self, argv: Sequence[str], environment: Mapping[str, str], folder: Path, output: Path
    ) -> int:
        """See `Starter`."""
        asked = {
            "argv": list(argv),
            "environment": dict(environment),
            "folder": str(folder),
            "output": str(output),
        }
        try:
            answer = self._ask(asked)
        except (OSError, ValueError) as error:
            raise StartHindered(
                f"the starter of replicas at {self._address} does not answer: {error}"
            ) from error
        if "pid" in answer:
            return int(answer["pid"])
        raise OSError(answer.get("errno"), answer.get("error"))

    def _ask(self, asked: Mapping[str, Any]) -> Mapping[str, Any]:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(ANSWER_SECONDS)
            connection.connect(str(self._address))
            connection.sendall(json.dumps(asked).encode() + b"\n")
            return read_line(connection)
