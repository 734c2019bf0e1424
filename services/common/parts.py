"""How many parts a message has, before it is parsed: fields, of whatever kind, at every depth.

Two bytes of a message may become an object of a hundred, so that it is parts, not bytes, that tell
how long parsing takes and how much memory the message then has. Texts are stepped over: of what is
long because of them, little is looked at.
"""

from collections.abc import Iterator, Mapping
from typing import Any

Shape = Mapping[int, "Shape"]
"""By tag, the fields of a message that are messages themselves; groups are none of ours."""

_VARINT, _FIXED64, _SIZED, _GROUP, _GROUP_END, _FIXED32 = range(6)
_MOST_VARINT_BYTES = 10
_ONE_BYTE = 127
"""The greatest number that is written in one byte."""


class NoMessage(ValueError):
    """Bytes that are no message, however it is made."""


def shape_of(deserialize: Any) -> Shape:
    """The shape of what generated code parses with ``Message.FromString``; of others, empty."""
    descriptor = getattr(getattr(deserialize, "__self__", None), "DESCRIPTOR", None)
    return {} if descriptor is None else _shape(descriptor, {})


def _shape(descriptor: Any, known: dict[str, dict[int, Shape]]) -> Shape:
    found = known.get(descriptor.full_name)
    if found is None:
        found = known[descriptor.full_name] = {}  # before its fields: one may be of its own kind
        for field in descriptor.fields:
            if field.message_type is not None:
                found[field.number << 3 | _SIZED] = _shape(field.message_type, known)
    return found


def counted(data: bytes, shape: Shape, step: int) -> Iterator[int]:
    """Counts parts; stops after each `step` of them and yields how many there are so far.

    Raises:
        NoMessage: parsing these bytes would fail too.
    """
    try:
        yield from _counted(data, shape, step)
    except IndexError:
        raise NoMessage("it ends too early") from None


def _counted(  # noqa: C901, PLR0912, PLR0915 -- one loop: calls would double what a part takes
    data: bytes, shape: Shape, step: int
) -> Iterator[int]:
    outer: list[tuple[int, Shape]] = []  # messages that we are in: where they end, their shapes
    at, end, count, groups = 0, len(data), 0, 0
    until = step
    while True:
        while at == end:
            if groups:
                raise NoMessage("a group has no end")
            if not outer:
                return
            end, shape = outer.pop()
        count += 1
        if count > until:
            yield until
            until += step
        tag = data[at]
        at += 1
        if tag > _ONE_BYTE:
            tag, at = _varint(data, at - 1)
        kind = tag & 7
        if kind == _SIZED:
            size = data[at]
            at += 1
            if size > _ONE_BYTE:
                if data[at] <= _ONE_BYTE:  # as most texts are
                    size += (data[at] - 1) << 7
                    at += 1
                else:
                    size, at = _varint(data, at - 1)
            inner = None if groups else shape.get(tag)
            if inner is None:
                at += size
            elif at + size <= end:
                outer.append((end, shape))
                end, shape = at + size, inner
            else:
                raise NoMessage("a part is longer than what it is in")
        elif kind == _VARINT:
            if data[at] > _ONE_BYTE:
                _, at = _varint(data, at)
            else:
                at += 1
        elif kind == _FIXED32:
            at += 4
        elif kind == _FIXED64:
            at += 8
        elif kind == _GROUP:
            groups += 1
        elif kind == _GROUP_END and groups:
            groups -= 1
        else:
            raise NoMessage("a part is of no kind")
        if at > end:
            raise NoMessage("a part is longer than what it is in")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number, and where it ends."""
    value = 0
    for place in range(_MOST_VARINT_BYTES):
        byte = data[at + place]
        value |= (byte & _ONE_BYTE) << 7 * place
        if byte <= _ONE_BYTE:
            return value, at + place + 1
    raise NoMessage("a number is too long")
