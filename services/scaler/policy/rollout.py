"""Which settings a pool goes by while new ones are tried: those asked for, or the last good ones.

Pure. Settings are good once a whole pool was ready with them. New ones that fail before that, in
the first replica that tries them or in a later one, are refused: the pool goes back to the good
ones, until others are asked for. Where none were ever good there is nothing to go back to, and
trying goes on; where the good ones fail too and nothing serves, both are tried in turn. Leaves to
`replicas` how one replica follows another.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Change:
    """A value that is not what it was; None where there is or was none."""

    key: str
    value: Any
    before: Any


@dataclass(frozen=True)
class SettingsRefusal:
    """Why settings are not in force.

    Attributes:
        reason: what went wrong with a replica that had them.
        since: when, in seconds since 1970.
        changes: how they differ from those in force.
    """

    reason: str
    since: float
    changes: tuple[Change, ...] = ()


@dataclass(frozen=True)
class Rollout(Generic[T]):
    """Settings of one pool.

    Attributes:
        asked: what the file says.
        good: the last that the whole pool was ready with; None: none yet.
        refused: why `asked` is not in force; None: it is.
        turns: how often `asked` is tried again because the good ones failed too.
    """

    asked: T
    good: T | None = None
    refused: SettingsRefusal | None = None
    turns: int = 0

    @property
    def in_force(self) -> T:
        """The settings that replicas are started with."""
        return self.asked if self.refused is None or self.good is None else self.good

    @property
    def tried(self) -> bool:
        """Whether settings are being tried that there is a way back from."""
        return self.refused is None and self.good is not None and self.good != self.asked

    def ask(self, asked: T, *, alike: bool) -> "Rollout[T]":
        """Takes what the file says now.

        Args:
            asked: the settings.
            alike: a replica of the good settings is one of these too, so there is nothing to try.
        """
        return Rollout(asked, asked if alike and self.good is not None else self.good)

    def whole(self) -> "Rollout[T]":
        """Notes that the whole pool is ready with the settings in force."""
        good = self.asked if self.refused is None else self.good
        return replace(self, good=good, turns=0)

    def failed(
        self, reason: str, now: float, changes: tuple[Change, ...], *, serving: bool
    ) -> "Rollout[T]":
        """Notes that a replica failed with the settings in force.

        Args:
            reason: what went wrong with it.
            now: seconds since 1970.
            changes: of `asked` from `good`.
            serving: whether another replica of the pool serves.
        """
        if self.tried:
            return replace(self, refused=SettingsRefusal(reason, now, changes))
        if self.refused is not None and not serving:
            return replace(self, refused=None, turns=self.turns + 1)
        return self


def changes(before: Any, after: Any, key: str = "") -> Iterator[Change]:
    """How nested mappings and lists differ, by the keys that lead to each value."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for name in sorted(before.keys() | after.keys()):
            place = f"{key}.{name}" if key else str(name)
            yield from changes(before.get(name), after.get(name), place)
    elif isinstance(before, list | tuple) and isinstance(after, list | tuple):
        yield from changes(dict(enumerate(before)), dict(enumerate(after)), key)
    elif before != after:
        yield Change(key, after, before)
