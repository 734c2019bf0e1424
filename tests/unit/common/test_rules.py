"""Whatever breaks a rule is told in our words, which say what would be valid."""

import dataclasses
from enum import StrEnum
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import annotated_types
import pytest
from pydantic import Field
from pydantic.dataclasses import dataclass
from pydantic_core.core_schema import ErrorType

from services.cache.config import CacheSettings
from services.common.config import STRICT, ConfigError, from_environment, parse_document
from services.common.credentials import KeyFile
from services.common.rules import OTHERWISE, rule_of, spelled
from services.router.config import RouterSettings
from services.router.routes.schema import PricesFile, RoutesFile
from services.scaler.config import ScalerSettings, Scaling

LIBRARY = ("Input should", "Field required", "Unexpected", "Value error", "String should", "valid ")


class Kind(StrEnum):
    ONE = "one"
    TWO = "two"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Inner:
    number: int = 0


@dataclass(frozen=True, kw_only=True, config=STRICT)
class All:
    whole: Annotated[int, Field(ge=1, le=9)] = 1
    open: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)] = 0.5
    even: Annotated[int, Field(multiple_of=2)] = 2
    truth: bool = False
    text: Annotated[str, Field(min_length=2, max_length=3)] = "ab"
    shape: Annotated[str, Field(pattern="^a")] = "a"
    name: Annotated[str, spelled("[a-z]+", "must be small letters")] = "a"
    kind: Kind = Kind.ONE
    literal: Literal["a"] = "a"
    path: Path = Path()
    many: Annotated[tuple[int, ...], Field(min_length=1, max_length=2)] = (1,)
    unique: frozenset[str] = frozenset()
    keyed: dict[str, int] = dataclasses.field(default_factory=dict)
    inner: Inner = dataclasses.field(default_factory=Inner)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Needs:
    number: int


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("whole: 0", "must be at least 1, got 0"),
        ("whole: 10", "must be at most 9, got 10"),
        ("whole: '5'", "must be a whole number in plain digits, such as 250, without quotes and"),
        ("whole: 05", "without a zero in front, got '05'"),
        ("whole: 6:40", "must be a whole number in plain digits, such as 250, got '6:40'"),
        ("whole: 5.0", "must be a whole number in plain digits, such as 250, got 5.0"),
        ("whole: true", "must be a whole number in plain digits, such as 250, got true"),
        ("whole: [1]", "must be a whole number in plain digits, such as 250, got a list"),
        (f"whole: {'1' * 5000}", "has too many digits, got '111"),
        ("whole:", "must be a whole number in plain digits, such as 250, got null"),
        ("open: 0", "must be more than 0, got 0"),
        ("open: 1.0", "must be less than 1, got 1.0"),
        ("open: .nan", "must be a number in plain digits, such as 250 or 0.25, got '.nan'"),
        ("open: 1e-3", "must be a number in plain digits, such as 250 or 0.25, got '1e-3'"),
        ("even: 3", "must be a multiple of 2, got 3"),
        ("truth: yes", "must be true or false, got 'yes'"),
        ("truth: 1", "must be true or false, got 1"),
        ("text: a", "must have at least 2 characters, got 'a'"),
        ("text: abcd", "must have at most 3 characters, got 'abcd'"),
        ("text: 12", "must be text; put it in quotes, got 12"),
        ("shape: b", "must look like ^a, got 'b'"),
        ("name: A", "must be small letters, got 'A'"),
        ("kind: three", "must be one or two, got 'three'"),
        ("literal: b", "must be a, got 'b'"),
        ("path: 5", "must be text; put it in quotes, got 5"),
        ("many: 1", "must be a list, got 1"),
        ("many: []", "must have at least 1 entry, got []"),
        ("many: [1, 2, 3]", "must have at most 2 entries, got a list"),
        ("unique: a", "must be a list, got 'a'"),
        ("keyed: [1]", "must hold keys with values, got a list"),
        ("inner: 1", "must hold keys with values, got 1"),
        ("inner: {nomber: 1}", "no such key; did you mean number? There are number"),
        ("[1]", "must hold keys with values, got a list"),
    ],
)
def test_each_kind_of_rule_has_its_sentence(text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_document(text, All, source="all.yaml")
    (found,) = caught.value.problems
    assert problem in found
    assert not any(phrase in found for phrase in LIBRARY)


def test_a_key_that_is_missing_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_document("{}", Needs, source="needs.yaml")
    assert caught.value.problems == ["line 1: number: is missing"]


@pytest.mark.parametrize("kind", get_args(ErrorType))
def test_no_error_of_the_library_comes_through_in_its_own_words(kind: str) -> None:
    limits = ("gt", "ge", "lt", "le", "multiple_of", "min_length", "max_length")
    context = dict.fromkeys(limits, 1) | {"pattern": "^a$", "expected": "'a'", "error": "ours"}
    wrong: Any = {"type": kind, "loc": ("key",), "msg": "Input should be", "input": "x"}
    for each in (wrong, wrong | {"ctx": context}):
        said = rule_of(each)
        assert said
        assert not any(phrase in said for phrase in LIBRARY)


@pytest.mark.parametrize("kind", [RoutesFile, PricesFile, Scaling, KeyFile])
def test_every_kind_of_value_in_our_files_has_a_sentence_of_its_own(kind: Any) -> None:
    for place, hint in leaves(kind):
        for value in ("'?'", "12345678901234567890", "-1", "[[]]", "{}", "1.5", "''"):
            try:
                parse_document(nested(place, value), kind, source="file.yaml")
            except ConfigError as error:
                text = str(error)
                assert OTHERWISE not in text, (place, hint, value, text)
                assert not any(phrase in text for phrase in LIBRARY), (place, hint, value, text)


@pytest.mark.parametrize("kind", [RoutesFile, PricesFile, Scaling])
def test_every_number_of_a_policy_file_has_a_least_and_a_most(kind: Any) -> None:
    found = 0
    for place, hint in leaves(kind):
        rules = rules_of(hint)
        if bare(hint) in (int, float):
            found += 1
            text = str(rules)
            assert "ge=" in text or "gt=" in text, place
            assert "le=" in text or "lt=" in text, place
    assert found


@pytest.mark.parametrize("kind", [RouterSettings, CacheSettings, ScalerSettings])
@pytest.mark.parametrize("value", ["1_0", "1e1", "inf", "nan", " 5", "+5", "yes!", "0x10"])
def test_numbers_in_the_environment_are_plain_ones_too(kind: Any, value: str) -> None:
    for place, hint in leaves(kind):
        if bare(hint) in (int, float, bool):
            with pytest.raises(ConfigError) as caught:
                from_environment(kind, "X_", {f"X_{place[0]}".upper(): value})
            assert not any(phrase in str(caught.value) for phrase in LIBRARY)
            assert f"X_{place[0]}".upper() in str(caught.value)


def bare(hint: Any) -> Any:
    while get_origin(hint) in (Annotated, Union, UnionType):
        hint = next(one for one in get_args(hint) if one is not type(None))
    return hint


def rules_of(hint: Any) -> list[Any]:
    """Rules of a kind: `Field` keeps several in one."""
    if get_origin(hint) in (Union, UnionType):
        return [rule for one in get_args(hint) for rule in rules_of(one)]
    if get_origin(hint) is not Annotated:
        return []
    return [getattr(one, "metadata", one) for one in hint.__metadata__] + rules_of(hint.__origin__)


def leaves(kind: Any, place: tuple[Any, ...] = ()) -> list[tuple[tuple[Any, ...], Any]]:
    """Every value that is no list and no mapping, by its place in a document."""
    inner = bare(kind)
    if dataclasses.is_dataclass(inner):
        hints = get_type_hints(inner, include_extras=True)
        return [
            leaf
            for field in dataclasses.fields(inner)
            for leaf in leaves(hints[field.name], (*place, field.name))
        ]
    if get_origin(inner) is dict:
        return leaves(get_args(inner)[1], (*place, "name"))
    if get_origin(inner) in (tuple, frozenset):
        return leaves(get_args(inner)[0], (*place, 0))
    return [(place, kind)]


def nested(place: tuple[Any, ...], value: str) -> str:
    for part in reversed(place):
        value = f"[{value}]" if part == 0 else f"{{{part}: {value}}}"
    return value


def test_rules_are_found_where_several_are_in_one() -> None:
    assert "ge=1" in str(rules_of(Annotated[int, Field(ge=1, le=2)] | None))
    assert annotated_types.Ge(1) in rules_of(Annotated[int, Field(ge=1)])[0]
