"""How hard a request looks before any model has run: the gain that the top tier would bring.

What is predicted is P(top tier right and this tier wrong), not P(this tier wrong): a question that
no tier answers is not worth the dearer one. Features are hashed (Weinberger et al., "Feature
Hashing for Large Scale Multitask Learning", 2009): words and word pairs of the last turn, pieces
of words, length and structure, and what the caller knows (task type, retrieval confidence, a
vector). The model is linear, with a monotone map that calibrates its output; its numbers come from
an artefact and are fitted elsewhere. Hashes are CRC-32 of UTF-8, the same on every machine.

Evaluation is bounded by `MOST_CHARACTERS`, not by the length of the prompt.
"""

import math
import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from zlib import crc32

FEATURES_VERSION = 1
"""Changes with anything that changes what a feature means; artefacts of another are refused."""

BUCKETS = 1 << 16
"""Hashed features share this many buckets."""

DENSE = 64
"""Indexes below it are structure and signals; hashed features begin after the vector's."""

LONGEST_VECTOR = 1024
FIRST_BUCKET = DENSE + LONGEST_VECTOR
FEATURES = FIRST_BUCKET + BUCKETS

MOST_CHARACTERS = 2_000
"""Of a longer prompt, the first and last halves of this many are looked at."""

SparseFeatures = tuple[tuple[int, float], ...]
"""Index and value, ascending by index, values finite; what the ledger keeps."""


@dataclass(frozen=True, slots=True)
class Signals:
    """What the caller and the cache know about a request; None where they said nothing.

    Attributes:
        task_type: the caller's name for what is asked, as `refund` or `summary`.
        retrieval_confidence: how sure the caller's retrieval was, in [0, 1].
        vector: the prompt's vector, if the cache returned one; any length up to `LONGEST_VECTOR`.
    """

    task_type: str | None = None
    retrieval_confidence: float | None = None
    vector: Sequence[float] | None = None


_WORD = re.compile(r"[^\W\d_]+|\d+(?:[.,]\d+)*|[^\w\s]", re.UNICODE)
_NEGATION = re.compile(
    r"\b(?:not|no|never|except|least|false|incorrect|cannot|n't)\b", re.IGNORECASE
)
_QUESTION = re.compile(r"\b(?:what|which|who|whom|whose|when|where|why|how)\b", re.IGNORECASE)
_CODE = re.compile(r"```|\bdef |\bclass |[{};]\s*$|=>|#include", re.MULTILINE)


def features(turns_text: str, signals: Signals) -> SparseFeatures:
    """Turns a prompt and its signals into numbers.

    Args:
        turns_text: what the user wrote, the last turn last.
        signals: what else is known.
    """
    text = turns_text
    if len(text) > MOST_CHARACTERS:
        text = text[: MOST_CHARACTERS // 2] + "\n" + text[-MOST_CHARACTERS // 2 :]
    found = _structure(turns_text, text)
    _add_signals(found, signals)
    _add_words(found, text.lower(), signals.task_type)
    return tuple(sorted(found.items()))


@dataclass(frozen=True)
class DifficultyModel:
    """Predicts the gain of the top tier over one lower tier. Numbers of an artefact.

    gain = map(bias + sum of weight * value), the map piecewise linear and constant beyond its ends.

    Attributes:
        weights: by feature index; absent is 0.
        bias: added to every score.
        points: (score, gain), both ascending, gains in [0, 1]; at least one.
    """

    weights: Mapping[int, float]
    bias: float
    points: tuple[tuple[float, float], ...]
    _scores: tuple[float, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_scores", tuple(score for score, _ in self.points))
        numbers = [self.bias, *self._scores, *self.weights.values()]
        if not all(map(math.isfinite, numbers)):
            raise ValueError("every weight and point must be a finite number")
        if not self.points or list(self.points) != sorted(self.points):
            raise ValueError("points must be ascending, and at least one")
        gains = [gain for _, gain in self.points]
        if gains != sorted(gains) or gains[0] < 0.0 or gains[-1] > 1.0:
            raise ValueError("gains of points must ascend within [0, 1]")
        if any(not 0 <= index < FEATURES for index in self.weights):
            raise ValueError(f"weights must be of features 0 to {FEATURES - 1}")

    def gain(self, told: SparseFeatures) -> float:
        """Probability that the top tier is right where this tier is wrong, in [0, 1]."""
        weight = self.weights.get
        raw = self.bias + sum(weight(index, 0.0) * value for index, value in told)
        after = bisect_right(self._scores, raw)
        if after == 0:
            return self.points[0][1]
        if after == len(self.points):
            return self.points[-1][1]
        (left, low), (right, high) = self.points[after - 1], self.points[after]
        return low + (high - low) * (raw - left) / (right - left)


# --- features ----------------------------------------------------------------------------------


def _structure(whole: str, text: str) -> dict[int, float]:
    """Length and form of the prompt; dense indexes 0 to 31, values about 1 in size."""
    words = len(text.split())
    size = max(1, len(text))
    digits = sum(map(str.isdigit, text))
    return {
        0: math.log1p(len(whole)) / 5,
        1: math.log1p(words) / 3,
        2: len(text) / max(1, words) / 5,
        3: 10 * digits / size,
        4: math.log1p(text.count("\n")),
        5: math.log1p(text.count("?")),
        6: math.log1p(len(_NEGATION.findall(text))),
        7: math.log1p(len(_QUESTION.findall(text))),
        8: 1.0 if _CODE.search(text) else 0.0,
        9: math.log1p(sum(map(text.count, "=+*/^<>\\"))),
        10: math.log1p(sum(map(text.count, "\"'\u201c\u201d\u2018\u2019"))),
        11: 10 * sum(map(str.isupper, text)) / size,
        12: 0.0 if text.isascii() else 1.0,
    }


def _add_signals(found: dict[int, float], signals: Signals) -> None:
    """Signals of the caller: dense indexes from 32, the vector from `DENSE`."""
    confidence = signals.retrieval_confidence
    if confidence is not None and math.isfinite(confidence):
        found[32] = 1.0
        found[33] = min(1.0, max(0.0, confidence))
    if signals.vector is not None and 0 < len(signals.vector) <= LONGEST_VECTOR:
        values = [float(value) for value in signals.vector]
        length = math.sqrt(sum(value * value for value in values))
        if math.isfinite(length) and length > 0.0:
            found[34] = 1.0
            found.update((DENSE + at, value / length) for at, value in enumerate(values))


def _add_words(found: dict[int, float], text: str, task_type: str | None) -> None:
    """Words and pairs of words, hashed; together of length 1. The task type stands alone."""
    words = _WORD.findall(text)
    counts: dict[int, int] = {}
    before = "^"
    for word in words:
        one = crc32(word.encode()) % BUCKETS
        counts[one] = counts.get(one, 0) + 1
        two = crc32(f"{before} {word}".encode()) % BUCKETS
        counts[two] = counts.get(two, 0) + 1
        before = word
    values = {index: 1.0 + math.log(count) for index, count in counts.items()}
    length = math.sqrt(sum(value * value for value in values.values())) or 1.0
    for index, value in values.items():
        found[FIRST_BUCKET + index] = value / length
    if task_type:
        index = FIRST_BUCKET + crc32(f"task\0{task_type}".encode()) % BUCKETS
        found[index] = found.get(index, 0.0) + 1.0
