"""The same language, said with fewer repetitions within and beside each other, and choices."""

from collections.abc import Iterator, Sequence

from services.router.policy.effort import Effort
from services.router.policy.expressions import Choice, Part, Repeat, Row

MAX_FACTORED = 60
"""Choices within choices that are made of what alternatives begin with."""


PARTS_OF_STEP = 8
"""That are compared, or put into another row."""


def simplified(part: Part, effort: Effort) -> Part:
    """Without repetitions of repetitions, nor of the same one after another, where they are one.

    What alternatives begin with in common stands before them, once.

    Args:
        part: the language.
        effort: what it takes is counted there.

    Raises:
        TooMuch: that was not left of `effort`.
    """
    effort.spend(1)
    match part:
        case Row(parts):
            flat = [inner for each in parts for inner in _row(simplified(each, effort))]
            return _part(tuple(_joined(flat)))
        case Choice(parts):
            return _factored([_row(simplified(each, effort)) for each in parts], 0, effort)
        case Repeat(each, least, most):
            return _flat(Repeat(simplified(each, effort), least, most))
    return part


def _row(part: Part) -> tuple[Part, ...]:
    return part.parts if isinstance(part, Row) else (part,)


def _part(row: tuple[Part, ...]) -> Part:
    return row[0] if len(row) == 1 else Row(row)


def _factored(rows: Sequence[tuple[Part, ...]], depth: int, effort: Effort) -> Part:
    effort.spend(len(rows) + sum(map(len, rows)) // PARTS_OF_STEP)
    groups: dict[Part | None, list[tuple[Part, ...]]] = {}
    for row in rows:
        groups.setdefault(row[0] if row else None, []).append(row)
    parts: list[Part] = []
    for first, group in groups.items():
        if first is None:  # all of them are the empty text
            parts.append(Row(()))
        elif len(group) == 1 or depth >= MAX_FACTORED:
            parts += map(_part, group)
        else:
            same = _in_common(group)
            rest = _factored([row[same:] for row in group], depth + 1, effort)
            parts.append(_part((*group[0][:same], *_row(rest))))
    return parts[0] if len(parts) == 1 else Choice(tuple(parts))


def _in_common(rows: Sequence[tuple[Part, ...]]) -> int:
    """How many parts all rows begin with in common."""
    shortest = min(map(len, rows))
    return next((at for at in range(shortest) if len({row[at] for row in rows}) > 1), shortest)


def _flat(part: Repeat) -> Repeat:
    """Without repetitions of repetitions: an engine would follow each way to cut a text."""
    each = part.part
    if not isinstance(each, Repeat) or each.least > 1 or 0 in (each.most, part.most):
        return part
    endless = each.most is None or part.most is None
    most = None if endless else (each.most or 0) * (part.most or 0)
    return Repeat(each.part, each.least * part.least, most)


def _joined(parts: Sequence[Part]) -> Iterator[Part]:
    """Repetitions of the same, one after another, as one."""
    last: Repeat | None = None
    for part in parts:
        following = part if isinstance(part, Repeat) else None
        if last and following and last.part == following.part:
            endless = last.most is None or following.most is None
            most = None if endless else (last.most or 0) + (following.most or 0)
            last = Repeat(last.part, last.least + following.least, most)
            continue
        if last:
            yield last
        last = following
        if not following:
            yield part
    if last:
        yield last
