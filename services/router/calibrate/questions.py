"""Which pairs are of the same question, and which part of the evidence a question belongs to.

A question that was asked often is one piece of evidence, not many: its pairs all tell the same.
So each question is represented by its oldest pair, which knows how often it was asked, and belongs
to one part of the evidence with all of its pairs. Which part follows from the question and the
route alone: there is nothing to choose anew until the split suits, and a question keeps its part
when evidence grows.

Standing questions, asked ten times as often as the middle one or more, are a different matter.
There are few, much of the traffic may be theirs, and they are taken to go on being asked: of them
one knows the loss itself, not just that of a sample. Nothing is learned from them. All are in the
certify part, where each of their requests counts as a draw of traffic, by the share of all other
questions that are in it.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from statistics import median

from services.router.calibrate.evidence import Record
from services.router.policy.difficulty import FIRST_TASK, SparseFeatures

STANDING = 10.0
"""How often a standing question is asked, against the middle one."""

FORM = 32
"""Features below it are the prompt's form; what lies between them and the task is the caller's."""


def recognised(records: Sequence[Record]) -> list[Record]:
    """The records with their questions.

    Where one of them does not name its question, all go by what the user wrote as its features have
    it: words, pairs of words, length and form.
    """
    if all(record.question for record in records):
        return list(records)
    return [replace(record, question=_by_words(record.features)) for record in records]


def distinct(records: Sequence[Record]) -> list[Record]:
    """The first record of each question, with how often it was asked, in their order.

    One that was drawn more rarely than the first counts for more than one, by their propensities.
    """
    first: dict[str, Record] = {}
    asked: dict[str, float] = {}
    for record in records:
        stands = first.setdefault(record.question, record)
        more = record.asked * stands.propensity / record.propensity
        asked[record.question] = asked.get(record.question, 0.0) + more
    return [replace(record, asked=max(1.0, asked[question])) for question, record in first.items()]


def split(
    records: Sequence[Record], certify_share: float, route: str
) -> tuple[list[Record], list[Record]]:
    """The part to learn and choose on, and the part to certify on.

    Args:
        records: each of another question.
        certify_share: share of the questions that certify, in (0, 1).
        route: whose evidence it is; another one's falls apart in another way.

    Returns:
        both in an order that depends on nothing but the questions.
    """
    standing = STANDING * median(record.asked for record in records)
    fit: list[Record] = []
    certify: list[Record] = []
    for place, record in sorted(
        ((_place(one.question, route), one) for one in records), key=_first
    ):
        inside = place < certify_share
        if record.asked >= standing:
            draws = max(2, round(record.asked))
            weight = certify_share * record.asked
            certify.append(replace(record, asked=weight, draws=draws, once=inside))
        else:
            (certify if inside else fit).append(record)
    return fit, certify


def _place(question: str, route: str) -> float:
    digest = hashlib.blake2b(f"{route}\n{question}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2.0**64


def _first(drawn: tuple[float, Record]) -> float:
    return drawn[0]


def _by_words(sparse: SparseFeatures) -> str:
    written = sorted(one for one in sparse if one[0] < FORM or one[0] >= FIRST_TASK)
    return hashlib.blake2b(repr(written).encode()).hexdigest()
