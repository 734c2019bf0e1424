"""Schemas of which many texts could go on at once."""

import json
import re
from typing import Any

import pytest

from services.router.policy.at_once import AtOnce
from services.router.policy.effort import Effort
from services.router.policy.kept import Lengths, NotKept, together
from services.router.policy.schema_rules import told

AT_ONCE = "more than 16 texts can go on at once"
N = range(17)


def text(number: int) -> dict[str, Any]:
    return {"type": "string", "pattern": f"[a-z]{{{2 * number}}}"}


def any_of(*alternatives: Any) -> dict[str, Any]:
    return {"anyOf": [*alternatives]}


def holding(**members: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": members,
        "required": [*members],
        "additionalProperties": False,
    }


def optional(**members: Any) -> dict[str, Any]:
    return holding(**members) | {"required": []}


def lists(items: Any, **bounds: int) -> dict[str, Any]:
    return {"type": "array", "items": items, **bounds}


def kinds(*inner: Any, first: str = "kind") -> dict[str, Any]:
    return any_of(*(holding(**{first: {"const": at}}, b=each) for at, each in enumerate(inner)))


DIFFERENT = [text(number) for number in N]
NOT_TOLD_APART = {
    "texts": any_of(*DIFFERENT),
    "lengths with gaps": any_of(
        *({"type": "string", "minLength": 2 * at, "maxLength": 2 * at} for at in N)
    ),
    "nested": any_of(any_of(*DIFFERENT[:9]), any_of(*DIFFERENT[9:])),
    "one of": any_of({"oneOf": [DIFFERENT[0], {"type": "null"}]}, *DIFFERENT[1:]),
    "all of": any_of(*({"allOf": [one]} for one in DIFFERENT)),
    "references": {
        "$defs": {f"a{at}": one for at, one in enumerate(DIFFERENT)},
        **any_of(*({"$ref": f"#/$defs/a{at}"} for at in N)),
    },
    "lists": any_of(*map(lists, DIFFERENT)),
    "lists of lists": any_of(*(lists(lists(one, minItems=1)) for one in DIFFERENT)),
    "first members": any_of(*(holding(a=one) for one in DIFFERENT)),
    "later members": any_of(*(holding(a={"type": "string"}, b=one) for one in DIFFERENT)),
    "members that may be left out": any_of(*(optional(a=one) for one in DIFFERENT)),
    "maps": any_of(
        *({"type": "object", "additionalProperties": each} for each in DIFFERENT[:9]),
        *(holding(a=one) for one in DIFFERENT[9:]),
    ),
    "behind a long text": holding(a={"const": "qz" * 64}, b=any_of(*DIFFERENT)),
    "with any": any_of({}, *DIFFERENT[1:]),
    "constants that they share": any_of(*(holding(kind={"const": 1}, b=one) for one in DIFFERENT)),
    "constants behind": any_of(
        *(holding(a=one, kind={"const": at}) for at, one in enumerate(DIFFERENT))
    ),
    "constants that may be left out": any_of(
        *(optional(kind={"const": at}, b=one) for at, one in enumerate(DIFFERENT))
    ),
    "constants of some": any_of(
        *(holding(kind={"enum": [at, 99]}, b=one) for at, one in enumerate(DIFFERENT))
    ),
}


@pytest.mark.parametrize("what", NOT_TOLD_APART)
def test_alternatives_that_go_on_together_are_bounded(what: str) -> None:
    with pytest.raises(NotKept, match=AT_ONCE):
        told(json.dumps(NOT_TOLD_APART[what]))


TOLD_APART = {
    "few": any_of(*DIFFERENT[:16]),
    "the same": any_of(*DIFFERENT[:1] * 99),
    "constants": kinds(*DIFFERENT * 3),
    "constants of an inner object": any_of(
        *(lists(holding(first=kinds(*DIFFERENT), b=DIFFERENT[0])) for _ in N)
    ),
    "items with constants": lists(kinds(*DIFFERENT * 3)),
    "constants by reference": {
        "$defs": {f"k{at}": {"const": f"k{at}"} for at in N},
        **any_of(
            *(holding(k={"$ref": f"#/$defs/k{at}"}, b=one) for at, one in enumerate(DIFFERENT))
        ),
    },
    "names": any_of(*(holding(**{f"a{at}": one}) for at, one in enumerate(DIFFERENT))),
    "one after another": holding(**{f"a{at}": one for at, one in enumerate(DIFFERENT)}),
    "left out": optional(**{f"a{at}": one for at, one in enumerate(DIFFERENT)}),
    "fixed texts": any_of(*({"const": f"a{at}"} for at in range(300))),
    "integers": any_of(*({"type": "integer", "minimum": at} for at in N)),
    "objects of the same text": any_of(*(holding(a={"type": "string"}, b={"const": b}) for b in N)),
}


@pytest.mark.parametrize("what", TOLD_APART)
def test_alternatives_that_are_told_apart_are_kept(what: str) -> None:
    assert told(json.dumps(TOLD_APART[what]))


@pytest.mark.parametrize(
    "schema",
    [
        any_of(*({"type": "string", "minLength": at} for at in range(1, 151))),
        any_of(
            *({"type": "string", "minLength": at, "maxLength": at} for at in range(1, 99)),
            {"type": "string", "minLength": 99},
        ),
        any_of(*({"$ref": f"#/$defs/{at}"} for at in N))
        | {"$defs": {f"{at}": {"type": "string", "minLength": at + 1} for at in N}},
        any_of(*(any_of({"type": "string", "minLength": at}) for at in range(1, 151))),
    ],
)
def test_texts_that_differ_in_their_lengths_alone_are_one(schema: Any) -> None:
    root = re.search(r"^root ::= (\w+)$", rules := told(json.dumps(schema)), re.MULTILINE)
    assert root
    assert f'\n{root[1]} ::= "\\"" letter+ "\\""\n' in rules


def test_texts_of_types_that_differ_in_their_lengths_alone_are_one() -> None:
    schema = any_of(*({"type": ["string", "null"], "minLength": at} for at in range(1, 151)))
    assert "::= null | r0\n" in told(json.dumps(schema))


@pytest.mark.parametrize(
    ("lengths", "ranges"),
    [
        ([(3, 5), (0, 2)], [(0, 5)]),
        ([(0, 1), (3, 4)], [(0, 1), (3, 4)]),
        ([(0, 9), (2, 3)], [(0, 9)]),
        ([(4, None), (0, 7), (9, 9)], [(0, None)]),
        ([(4, None), (0, 2)], [(0, 2), (4, None)]),
    ],
)
def test_lengths_are_put_together(lengths: list[Lengths], ranges: list[Lengths]) -> None:
    assert together(lengths) == ranges


def test_texts_that_are_read_in_several_ways_count_as_so_many() -> None:
    at_once = AtOnce(Effort())
    at_once.text("a", 9)
    at_once.text("b", 3)
    assert at_once.choice("c", ["a", "b"]) == 12


def test_counting_is_counted() -> None:
    schema = json.dumps(kinds(*DIFFERENT * 3))
    told(schema, effort := Effort())
    with pytest.raises(NotKept, match="takes too long"):
        told(schema, Effort(effort.spent - 1))
