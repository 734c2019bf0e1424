"""What a broken rule says: our words for the errors of the library that checks values.

Each sentence says what would be valid. `spelled` gives a text its rule together with its words.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import AfterValidator
from pydantic_core import ErrorDetails

WHOLE = "must be a whole number in plain digits, such as 250"
NUMBER = "must be a number in plain digits, such as 250 or 0.25"
TRUTH = "must be true or false"
LIST = "must be a list"
NO_SUCH_KEY = "no such key"
MEANT = "did you mean"
MAPPING = "must hold keys with values"

PLAIN_DIGITS = re.compile(r"-?[0-9]+(\.[0-9]+)?")

_Words = str | Callable[[Mapping[str, Any]], str]

_RULES: Mapping[str, _Words] = {
    "missing": "is missing",
    **dict.fromkeys(("unexpected_keyword_argument", "extra_forbidden"), NO_SUCH_KEY),
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), WHOLE),
    "int_parsing_size": "is too large",
    **dict.fromkeys(("float_type", "float_parsing", "finite_number"), NUMBER),
    **dict.fromkeys(("bool_type", "bool_parsing"), TRUTH),
    "greater_than": lambda of: f"must be more than {_number(of['gt'])}",
    "greater_than_equal": lambda of: f"must be at least {_number(of['ge'])}",
    "less_than": lambda of: f"must be less than {_number(of['lt'])}",
    "less_than_equal": lambda of: f"must be at most {_number(of['le'])}",
    "multiple_of": lambda of: f"must be a multiple of {_number(of['multiple_of'])}",
    **dict.fromkeys(("string_type", "path_type"), "must be text; put it in quotes"),
    "string_pattern_mismatch": lambda of: f"must look like {of['pattern']}",
    "string_too_short": lambda of: f"must have at least {_many(of['min_length'], 'character')}",
    "string_too_long": lambda of: f"must have at most {_many(of['max_length'], 'character')}",
    "string_unicode": "must be text",
    **dict.fromkeys(("enum", "literal_error"), lambda of: f"must be {_listed(of['expected'])}"),
    **dict.fromkeys(("list_type", "tuple_type", "set_type", "frozen_set_type"), LIST),
    **dict.fromkeys(
        ("dict_type", "mapping_type", "dataclass_type", "dataclass_exact_type", "model_type"),
        MAPPING,
    ),
    "too_short": lambda of: f"must have at least {_many(of['min_length'], 'entry')}",
    "too_long": lambda of: f"must have at most {_many(of['max_length'], 'entry')}",
    **dict.fromkeys(("value_error", "assertion_error"), lambda of: str(of["error"])),
    "none_required": "must be empty",
}
OTHERWISE = "has a value that does not fit here"


def rule_of(wrong: ErrorDetails) -> str:
    """The rule that a value broke, in words that say what would be valid."""
    kind, value = wrong["type"], wrong["input"]
    if kind in ("int_type", "int_parsing", "float_type", "float_parsing") and isinstance(
        value, str
    ):
        if len(value) > 30 and PLAIN_DIGITS.fullmatch(value):  # noqa: PLR2004 - see strict_yaml
            return "has too many digits"
        if PLAIN_DIGITS.fullmatch(value) and kind.endswith("_type"):
            return f"{_said(kind, wrong)}, without quotes and without a zero in front"
    if kind == "missing" and wrong["loc"] == ():
        return OTHERWISE
    return _said(kind, wrong)


def spelled(pattern: str, words: str) -> AfterValidator:
    """A text that matches the whole pattern; else the rule is these words."""
    compiled = re.compile(pattern)

    def check(text: str) -> str:
        if compiled.fullmatch(text) is None:
            raise ValueError(words)
        return text

    return AfterValidator(check)


def _said(kind: str, wrong: ErrorDetails) -> str:
    words = _RULES.get(kind, OTHERWISE)
    if isinstance(words, str):
        return words
    try:
        return words(wrong.get("ctx", {}))
    except KeyError:  # the library says less than it did
        return OTHERWISE


def _number(value: object) -> str:
    whole = isinstance(value, float) and value.is_integer() and abs(value) < 1e15  # noqa: PLR2004
    return f"{value:.0f}" if whole else str(value)


def _many(count: int, noun: str) -> str:
    plural = noun[:-1] + "ies" if noun.endswith("y") else noun + "s"
    return f"{count} {noun if count == 1 else plural}"


def _listed(expected: str) -> str:
    return expected.replace("'", "")
