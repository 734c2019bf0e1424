"""Names in JSON schemas that the compiler of guides would read as parts of a grammar."""

from __future__ import annotations

import json
from typing import Any

from engines.cpu.request import InvalidRequestError

_MOST = 256  # characters


def refuse_names(schema: str) -> None:
    """Refuse a schema that holds an unsafe name, wherever it stands.

    The compiler writes them between quotation marks as they are: one that holds such a mark goes on
    as a grammar of the caller's own making, deep enough to end the process. Values it escapes.
    """
    try:
        waiting = [json.loads(schema)]
    except (ValueError, RecursionError):
        return  # the compiler says so
    while waiting:
        part = waiting.pop()
        if isinstance(part, list):
            waiting += part
        elif isinstance(part, dict):
            waiting += part.values()
            _refuse([*part, *_told(part)])


def _told(part: dict[str, Any]) -> list[Any]:
    """Names that a schema holds as values."""
    required = part.get("required")
    return required if isinstance(required, list) else []


def _refuse(names: list[Any]) -> None:
    for name in names:
        if not isinstance(name, str):
            continue
        if len(name) > _MOST or any(letter in '"\\' or letter < " " for letter in name):
            raise InvalidRequestError(
                f"guided_decoding_guide: a name has at most {_MOST} characters and holds no"
                f' ", no \\ and no control character, got {name!r:.40}'
            )
