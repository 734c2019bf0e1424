"""How many texts of a schema's grammar may be read at once, and bounds of it.

Engines try each token against all the texts that may go on at a place: about a millisecond for
each. Alternatives that begin alike go on together until something fixed tells them apart, so what
stands at each place of the values is kept here, with the constants that stand before it. The words
of a grammar that are fixed, and the digits of its numbers, take next to nothing.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from services.router.policy.effort import Effort

MOST_AT_ONCE = 16
"""Texts that may go on at one place."""

MOST_CONSTANTS = 100
"""Values that one place is told apart by."""

_ANY_NAME = ""
_Texts = frozenset[tuple[str, int]]
"""Rules, and what each takes."""

_Given = tuple[tuple[str, frozenset[str]], ...]
"""Members before a place that have one of some values, whatever else the answer holds."""
_Place = tuple[tuple[_Given, str | None], ...]
"""The way to a place: members' names (None: an item of a list), each with what is given."""


class AtOnce:
    """What may stand where in the values of each rule.

    Rules are known by their names; those that are not are of one fixed text or of few.
    """

    def __init__(self, effort: Effort) -> None:
        """What counting takes is counted in `effort`."""
        self._effort = effort
        self._places: dict[str, Mapping[_Place, _Texts]] = {}
        self._values: dict[str, frozenset[str]] = {}
        for rule in ("text", "any"):
            self.text(rule)

    def text(self, rule: str, weight: int = 1) -> None:
        """A rule is of many texts, and takes as much as so many."""
        self._places[rule] = {(): frozenset(((rule, weight),))}

    def constants(self, rule: str, texts: Collection[str]) -> None:
        """A rule is of these texts alone."""
        if len(texts) <= MOST_CONSTANTS:
            self._values[rule] = frozenset(texts)

    def array(self, rule: str, item: str) -> None:
        """A rule is of lists of what another rule says."""
        if rule not in self._places:
            self._places[rule] = dict(self._within(None, item, ()))

    def mapping(self, rule: str, value: str) -> None:
        """A rule is of objects with members of any name, of what another rule says."""
        if rule not in self._places:
            self._places[rule] = dict(self._within(_ANY_NAME, value, ()))

    def object(self, rule: str, members: Iterable[tuple[str, str, bool]]) -> None:
        """A rule is of objects with these members in this order.

        Args:
            rule: its name.
            members: names, rules, and whether they are needed.
        """
        if rule in self._places:
            return
        places: dict[_Place, _Texts] = {}
        given: list[tuple[str, frozenset[str]]] = []
        for name, value, needed in members:
            places.update(self._within(name, value, tuple(given)))
            if needed and value in self._values:
                given.append((name, self._values[value]))
        self._places[rule] = places

    def choice(self, rule: str, rules: Iterable[str]) -> int:
        """A rule is one of others; returns how many texts may go on at one place of it."""
        rules = list(rules)
        places: dict[_Place, _Texts] = {}
        for one in rules:
            for place, texts in self._places.get(one, {}).items():
                self._effort.spend(1)
                places[place] = places.get(place, frozenset[tuple[str, int]]()) | texts
        self._places[rule] = places
        if all(one in self._values for one in rules):
            self.constants(rule, [text for one in rules for text in self._values[one]])
        return self._most(places)

    def _within(
        self, name: str | None, value: str, given: _Given
    ) -> Iterator[tuple[_Place, _Texts]]:
        for place, texts in self._places.get(value, {}).items():
            self._effort.spend(1 + len(place) // 4)
            yield ((given, name), *place), texts

    def _most(self, places: Mapping[_Place, _Texts]) -> int:
        """By the names on the way; where those are too many, by what is given there, too."""
        named = not any(name == _ANY_NAME for place in places for _, name in place)
        alike: dict[object, list[_Place]] = {}
        for place in places:
            self._effort.spend(1)
            key = tuple(name for _, name in place) if named else len(place)
            alike.setdefault(key, []).append(place)
        most = 0
        for group in alike.values():
            found = _sum(frozenset[tuple[str, int]]().union(*(places[place] for place in group)))
            if found > MOST_AT_ONCE:
                found = max(self._beside(place, group, places) for place in group)
            most = max(most, found)
        return most

    def _beside(
        self, place: _Place, group: Sequence[_Place], places: Mapping[_Place, _Texts]
    ) -> int:
        """Texts at a place, with all that may be there, too."""
        found: set[tuple[str, int]] = set()
        for other in group:
            self._effort.spend(1 + len(place))
            if all(map(_may_be_one, place, other)):
                found |= places[other]
        return _sum(found)


def _sum(texts: Iterable[tuple[str, int]]) -> int:
    return sum(weight for _, weight in texts)


def _may_be_one(one: tuple[_Given, str | None], other: tuple[_Given, str | None]) -> bool:
    """Whether two steps on the way to a place may be the same step of the same text."""
    (given, name), (also, its) = one, other
    if name != its and (None in (name, its) or _ANY_NAME not in (name, its)):
        return False
    known = dict(also)
    return all(name not in known or values & known[name] for name, values in given)
