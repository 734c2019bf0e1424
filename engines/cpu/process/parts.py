"""A bounded memory that sources share: whoever has most in it gives up its own first.

So nobody's many entries push out those of others. State of whoever holds it, no I/O, no time.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Parts(Generic[Value]):
    """At most `most` values, each by its key and in the part of a source.

    That is of those that used it the one that had the fewest, so nobody takes what others use.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: dict[bytes, Value] = {}
        self._whose: dict[bytes, str] = {}
        self._parts: OrderedDict[str, OrderedDict[bytes, None]] = OrderedDict()  # latest used last

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, key: bytes) -> bool:
        return key in self._values

    def get(self, key: bytes) -> Value | None:
        """What is kept by that key; it counts for no use."""
        return self._values.get(key)

    def use(self, key: bytes, source: str) -> Value | None:
        """What is kept by that key, which that source uses."""
        if key not in self._values:
            return None
        owner = self._whose[key]
        theirs = len(self._parts.get(source, ()))
        self._give(key, source if theirs < len(self._parts[owner]) else owner)
        return self._values[key]

    def put(self, key: bytes, source: str, value: Value) -> None:
        """Keep a value by that key; it is that source's unless it is somebody's already."""
        self._give(key, self._whose.get(key, source))
        self._values[key] = value
        if len(self._values) > self._most:
            # The first of those with as many: it has not been there for longest.
            largest = max(self._parts.values(), key=len)
            self._forget(next(iter(largest)))

    def _give(self, key: bytes, source: str) -> None:
        owner = self._whose.get(key)
        if owner is not None:
            self._take_out(key, owner)
        self._whose[key] = source
        self._parts.setdefault(source, OrderedDict())[key] = None
        self._parts.move_to_end(source)

    def _forget(self, key: bytes) -> None:
        self._take_out(key, self._whose.pop(key))
        del self._values[key]

    def _take_out(self, key: bytes, owner: str) -> None:
        part = self._parts[owner]
        del part[key]
        if not part:
            del self._parts[owner]
