"""How good answers are: against each other, by their form, and by what callers say later.

Quality is from 0, useless, to 1. `normalised` says which answers count as the same one. The
similarity of two texts is lexical: it sees words and spelling, not meaning. Where meaning matters,
put a judge with an embedding model or a language model behind `JudgeKind.MODEL`.

Outcomes tell about the answer that was given, and about those equal to it. What they say of others:

- A corrected answer is the one right answer: what equals it is worth 1, anything else 0. Where many
  wordings are right, do not send one.
- The answer given was right: a cheaper tier that said something else counts as wrong, a safer tier
  that did is unknown.
- It was wrong, or has just a rating: those that said something else are unknown.

Leaving out what is unknown would leave out just the requests where a lever may have done harm. So
it counts as what speaks against the lever: `loss_at_worst` is an upper bound on loss. And callers
choose what they report: what is measured holds for requests like those.
"""

import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from zlib import crc32

from services.router.policy.forms import Validator, json_schema, matching
from services.router.policy.schemas import BadValidator

MAX_NORMALISED = 200_000
"""Characters; longer answers are the same only to the letter."""

MAX_COMPARED_CHARACTERS = 20_000
"""Characters whose n-grams are compared: of longer texts the first and the last half of these."""

KEPT_FORMS = 64
"""Compiled forms that are kept, of some MB at most each; requests of one application mostly want
the same few."""

_COMBINING = "".join(
    mark
    for mark in map(chr, range(0x300, 0x20000))
    if unicodedata.combining(mark) or mark in "\u0f73\u0f75\u0f81\uff9e\uff9f"
)
"""Marks that belong to the letter before them, and those few that only come apart into such."""
_HEAP = re.compile(f"[{_COMBINING}]{{31}}")
"""More marks on one letter than any script needs (Unicode's Stream-Safe Text Format allows 30): to
put them in order takes time that grows with their square, and nothing else runs meanwhile."""

_MARK = re.compile(r"[^\w\s]|_")
_MAX_EXACT = 2**53


# --- answers against each other ----------------------------------------------------------------


def normalised(text: str) -> str:
    """The text without what does not make it another answer.

    JSON objects and arrays count by their value: order of keys, white space and ``1.0`` for ``1``
    do not matter. Other text counts without regard to case, width, white space and punctuation.
    What belongs to a number stays: 3.5 is not 35, nor is -2 the same as 2. So does punctuation that
    is the whole answer. A text with a heap of accents on one letter is the same only to the letter.
    """
    if len(text) > MAX_NORMALISED:
        return text
    value = _json_value(text)
    if value is not None:
        return value
    if _HEAP.search(text):
        return text
    folded = unicodedata.normalize("NFKC", text).casefold().replace("\N{MINUS SIGN}", "-")
    folded = unicodedata.normalize("NFKC", folded)
    bare = " ".join(_MARK.sub(_kept, folded).split())
    return bare or " ".join(folded.split())


def by_match(answers: Sequence[str]) -> tuple[float, ...]:
    """1 for answers that are the same as the last one, 0 for others."""
    wanted = normalised(answers[-1])
    return (*(float(normalised(answer) == wanted) for answer in answers[:-1]), 1.0)


def by_similarity(answers: Sequence[str], least: float) -> tuple[float, ...]:
    """Similarity of each answer to the last one; below `least` it counts as 0."""
    found = [similarity(answer, answers[-1]) for answer in answers[:-1]]
    return (*(alike if alike >= least else 0.0 for alike in found), 1.0)


def similarity(one: str, other: str) -> float:
    """How much of their words and spelling two texts share, in [0, 1].

    Cosine between hashed vectors of words and of character 3-, 4- and 5-grams, weighted
    1 + ln(count), of the normalised texts. A lexical embedding without a model: "refund" and "money
    back" have nothing in common, "it is open" and "it is not open" nearly everything.
    """
    one, other = normalised(one), normalised(other)
    if one == other:
        return 1.0
    left, right = _weights(one), _weights(other)
    if not left or not right:
        return 0.0
    if len(left) > len(right):
        left, right = right, left
    shared = sum(weight * right.get(gram, 0.0) for gram, weight in left.items())
    return min(1.0, shared / (_length(left) * _length(right)))


def _kept(found: "re.Match[str]") -> str:
    """What stays of a character that is no letter, digit or white space."""
    mark, text, at = found.group(), found.string, found.start()
    category = unicodedata.category(mark)
    if category == "Cf":  # invisible
        return ""
    if category[0] != "P":  # symbols such as + and < say something; accents belong to letters
        return mark
    before, after = text[at - 1 : at] if at else "", text[at + 1 : at + 2]
    if after.isdecimal() and (before.isdecimal() or (mark in "-." and not before.isalnum())):
        return mark
    if mark == "%" and before.isdecimal():
        return mark
    return "" if mark in "'\N{RIGHT SINGLE QUOTATION MARK}" and before.isalnum() else " "


def _json_value(text: str) -> str | None:
    """A JSON object or array in one spelling; None if it is none."""
    bare = text.strip()
    if not bare or bare[0] not in "{[" or bare[-1] not in "}]":
        return None
    try:
        value = json.loads(bare, parse_float=_number, parse_constant=_number)
        return json.dumps(value, sort_keys=True, separators=(",", ":"))
    except (ValueError, RecursionError):
        return None


def _number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return int(number) if number.is_integer() and abs(number) <= _MAX_EXACT else number


def _weights(text: str) -> dict[int, float]:
    """A sparse vector by the hashes of what occurs in a text."""
    if len(text) > MAX_COMPARED_CHARACTERS:
        half = MAX_COMPARED_CHARACTERS // 2
        text = f"{text[:half]} {text[-half:]}"
    counts = Counter([crc32(f"\0{word}".encode(errors="replace")) for word in text.split()])
    padded = f" {text} "
    for size in (3, 4, 5):
        grams = range(len(padded) - size + 1)
        counts.update([crc32(padded[at : at + size].encode(errors="replace")) for at in grams])
    return {gram: 1.0 + math.log(count) for gram, count in counts.items()}


def _length(vector: dict[int, float]) -> float:
    return math.sqrt(sum(weight * weight for weight in vector.values()))


# --- the form of an answer ---------------------------------------------------------------------


def by_form(answers: Sequence[str], kind: str, form: str) -> tuple[float, ...] | None:
    """1 for answers of the wanted form, 0 for others; None if the form itself is none.

    Args:
        answers: any number.
        kind: `json_schema` or `regex`.
        form: its text.
    """
    check = _form(kind, form)
    return None if check is None else tuple(float(check.holds(answer)) for answer in answers)


@lru_cache(maxsize=KEPT_FORMS)
def _form(kind: str, text: str) -> Validator | None:
    try:
        return matching(text) if kind == "regex" else json_schema(text)
    except (BadValidator, OverflowError, RecursionError):
        return None


# --- what judges and callers say ---------------------------------------------------------------


def sensible(qualities: Sequence[float], answers: int) -> tuple[float, ...] | None:
    """What a judge said, if it is one number in [0, 1] for each answer; else None."""
    fits = len(qualities) == answers and all(0.0 <= quality <= 1.0 for quality in qualities)
    return tuple(qualities) if fits else None


def qualities_from_outcome(
    answered: int,
    digests: Sequence[str],
    resolved: bool | None,  # noqa: FBT001 -- an outcome's three fields, in their order
    rating: float | None,
    corrected_digest: str | None,
) -> tuple[float | None, ...] | None:
    """Quality of each answer as an outcome tells it; see above for what is assumed.

    A corrected answer says more than whether it was resolved, and that more than a rating.

    Args:
        answered: number of the answer that was given.
        digests: of the normalised answers, safer tiers later.
        resolved: whether the answer given did what it was asked for; None if not said.
        rating: of the answer given, in [-1, 1]; None if not said.
        corrected_digest: of what the answer should have been; None if not said.

    Returns:
        None in the place of an answer whose quality is unknown; None if nothing is known at all.
    """
    if not 0 <= answered < len(digests):
        return None
    if corrected_digest is not None:
        return tuple(float(digest == corrected_digest) for digest in digests)
    if resolved is not None:
        given = float(resolved)
    elif rating is not None and -1.0 <= rating <= 1.0:
        given = (rating + 1.0) / 2.0
    else:
        return None
    cheaper = 0.0 if resolved else None
    return tuple(
        given if digest == digests[answered] else cheaper if at < answered else None
        for at, digest in enumerate(digests)
    )


def loss_at_worst(qualities: Sequence[float | None], safer: int, given: int) -> float | None:
    """Quality of the safer answer minus that of the given one, in [-1, 1]: the most it can be.

    Returns:
        None if neither is known.
    """
    if safer == given:
        return 0.0
    best, had = qualities[safer], qualities[given]
    if best is None and had is None:
        return None
    return (1.0 if best is None else best) - (0.0 if had is None else had)


def at_worst(qualities: Sequence[float | None]) -> tuple[float, ...]:
    """The qualities with the greatest losses against the last one: what is unknown filled in."""
    lower = [quality or 0.0 for quality in qualities[:-1]]
    return (*lower, 1.0 if qualities[-1] is None else qualities[-1])
