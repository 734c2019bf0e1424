"""Letters whose case does not count: as RE2 has it, which checks the answers."""

import pytest
import re2

from services.router.policy.cases import LAST_CASED, cased, other_cases
from services.router.policy.expressions import Set, read

LETTERS = [number for number in range(1, LAST_CASED + 1) if not 0xD800 <= number <= 0xDFFF]
CASED = [number for number in LETTERS if cased([(number, number)])]
TEXT = "".join(map(chr, CASED))


def test_the_other_cases_of_each_letter_are_those_of_re2() -> None:
    assert len(CASED) > 2800
    for number in CASED:
        taken = set(re2.findall(f"(?i){re2.escape(chr(number))}", TEXT))
        assert taken == {chr(number), *map(chr, other_cases(number, number))}, hex(number)


def test_re2_knows_no_other_case_of_any_of_them() -> None:
    known = set(CASED)
    others = "".join(re2.escape(chr(number)) for number in LETTERS if number not in known)
    options = re2.Options()
    options.max_mem = 64 << 20
    assert re2.compile(f"(?i)[{others}]", options).search(TEXT) is None


@pytest.mark.parametrize(
    "expression",
    [
        *("k", "S", "\u0131", "\u0130", "\u017f", "\u212a", "\u00df", "\u0390", "[^k]", "[^s]"),
        *("[^\u017f]", "[^a-z]", "[^A-Z0-9]", "[^\u0131]", "[à-ÿ]", "[^\u0391-\u03a9]"),
        *(r"\W", r"[^\w]", r"[\W]", r"[\Wk]", r"[^\W]", r"\w", "[K-\u212b]", "[^K-\u212b]"),
    ],
)
def test_an_engine_may_write_no_letter_that_the_check_refuses(expression: str) -> None:
    language = read(f"(?i){expression}")
    assert isinstance(language, Set)
    allowed = "".join(chr(at) for start, end in language.ranges for at in range(start, end + 1))
    assert re2.fullmatch(f"(?i)(?:{expression})+", allowed)
    assert set(re2.findall(f"(?i){expression}", TEXT)) - set(allowed) <= {"\u212a", "\u017f"}
