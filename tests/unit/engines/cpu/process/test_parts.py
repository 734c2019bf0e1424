"""A memory that sources share, in histories of who used what."""

from engines.cpu.process.parts import Parts

MOST = 20


def put(parts: Parts[int], source: str, count: int) -> list[bytes]:
    keys = [f"{source} {number}".encode() for number in range(count)]
    for number, key in enumerate(keys):
        parts.put(key, source, number)
    return keys


def test_who_has_most_gives_up_its_own_oldest_first() -> None:
    parts = Parts[int](MOST)
    few = put(parts, "few", 3)
    many = put(parts, "many", 100)
    assert len(parts) == MOST
    assert [parts.get(key) for key in few] == [0, 1, 2]
    assert [key in parts for key in many] == [False] * 83 + [True] * 17


def test_what_is_used_is_kept_longer_than_what_is_not() -> None:
    parts = Parts[int](MOST)
    first, second, *_ = put(parts, "many", MOST)
    assert parts.use(first, "many") == 0
    assert parts.use(b"unknown", "many") is None
    parts.put(b"new", "many", 7)
    assert first in parts
    assert second not in parts


def test_what_another_uses_that_has_few_becomes_that_ones() -> None:
    parts = Parts[int](MOST)
    shared, *_ = put(parts, "many", 5)
    parts.use(shared, "few")
    put(parts, "many too", 100)
    for number in range(100):
        parts.put(f"other {number}".encode(), "many", number)
    assert parts.get(shared) == 0


def test_nobody_takes_what_others_use_by_using_it_too_or_putting_it_again() -> None:
    parts = Parts[int](MOST)
    mine = put(parts, "few", 2)
    put(parts, "many", 10)
    for key in mine:
        parts.use(key, "many")
        parts.put(key, "many", 9)
    for number in range(100):
        parts.put(f"other {number}".encode(), "many", number)
    assert [parts.get(key) for key in mine] == [9, 9]


def test_of_sources_that_have_as_many_the_one_away_for_longest_gives_up() -> None:
    parts = Parts[int](MOST)
    for number in range(100):
        parts.put(str(number).encode(), f"source {number}", number)
        assert parts.use(b"0", "source 0") == 0
    assert len(parts) == MOST
    assert parts.get(b"99") == 99
