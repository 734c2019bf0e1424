"""What the stub and its engine process say to each other, over a private socket pair.

Both run the same source tree with the same interpreter, so messages travel pickled.
"""

from __future__ import annotations

import struct
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from engines.cpu.request import INVALID_PREFIX, Generation, Limits
from engines.cpu.settings import Settings

TOO_SLOW = f"{INVALID_PREFIX}guided_decoding_guide is too costly: its tokens take too long"
"""The error of an answer whose guide alone can be why steps are slow: it is not to run again."""

MAYBE = "its guide may be why"
"""In the errors of answers that may well be had elsewhere."""


class Load(NamedTuple):
    """To the engine, first: what to load. `folder` is the model's folder."""

    settings: Settings
    folder: Path


class Submit(NamedTuple):
    """To the engine: generate. `key` is unique for the life of the stub."""

    key: int
    generation: Generation


class Cancel(NamedTuple):
    """To the engine: end this request soon, whatever it has. Unknown keys are ignored."""

    key: int


class Quit(NamedTuple):
    """To the engine: exit."""


class Ready(NamedTuple):
    """From the engine: loaded."""

    limits: Limits


class LoadFailed(NamedTuple):
    """From the engine: it cannot load and exits."""

    reason: str


class End(NamedTuple):
    """How a request ended. Times are monotonic nanoseconds, 0 for what never happened.

    `error` is None for an answer. Block counts are estimates (see `process/prefix.py`).
    """

    error: str | None = None
    reused_blocks: int = 0
    total_blocks: int = 0
    first_scheduled_ns: int = 0
    first_token_ns: int = 0
    last_token_ns: int = 0


class Progress(NamedTuple):
    """What a request generated since the last message; `end` with the last one.

    `log_probs` has an entry for each token where they were asked for, else it is empty.
    """

    key: int
    tokens: list[int]
    log_probs: list[float]
    end: End | None = None


class Census(NamedTuple):
    """The engine's own accounting after a step.

    `in_context` are the running requests whose prompt is still being read, `context_tokens` the
    tokens of those prompts; `reused_blocks` counts since the start and is an estimate, as is
    `guide_bytes`, the memory that compiled guides keep for good.
    """

    iterations: int = 0
    running: int = 0
    in_context: int = 0
    context_tokens: int = 0
    waiting: int = 0
    used_blocks: int = 0
    reused_blocks: int = 0
    guide_bytes: int = 0


class Standing(NamedTuple):
    """What a source's guides took beyond what they may, and fill, lately, as of `at`.

    `alone_ns` is what it took of that in steps of its own; `at` is in monotonic seconds.
    """

    source: str
    taken_ns: float = 0.0
    alone_ns: float = 0.0
    kept_bytes: float = 0.0
    at: float = 0.0


class Standings(NamedTuple):
    """From the engine, as they change; to the next one, once that is ready: how sources stand."""

    sources: tuple[Standing, ...] = ()


_STEP = struct.Struct("<I?")  # how many keys follow


class Step(NamedTuple):
    """The step in which an engine process ended, if it ended in one that follows guides.

    `keys` are those of the requests whose guides are to blame for what went wrong, `alone` if it
    followed no other guide.
    """

    keys: tuple[int, ...]
    alone: bool


def pack_step(keys: Collection[int], *, alone: bool) -> bytes:
    """A step as it stands in the memory that both see."""
    return _STEP.pack(len(keys), alone) + struct.pack(f"<{len(keys)}Q", *keys)


def unpack_step(packed: bytes) -> Step:
    """What stands there; nothing if it is cut."""
    if len(packed) < _STEP.size:
        return Step((), alone=False)
    count, alone = _STEP.unpack_from(packed)
    if len(packed) < _STEP.size + 8 * count:
        return Step((), alone=False)
    return Step(struct.unpack_from(f"<{count}Q", packed, _STEP.size), alone)


class Batch(NamedTuple):
    """From the engine, after each step, and without any once a second: it still turns."""

    progress: list[Progress]
    census: Census
