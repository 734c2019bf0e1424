"""How hard a request looks before a model has run, and how sure an answer is once one has.

What is predicted is the gain: quality of the top tier minus quality of this one, on average over
requests that look like it. Not this tier's failure: a question that no tier answers is not worth
the dearer one, and one that the top tier gets wrong still less.

Features are hashed (Weinberger et al., "Feature Hashing for Large Scale Multitask Learning", 2009):
words and pairs of neighbouring words of what the user wrote, its length and form, and what the
caller knows (task type, retrieval confidence, a vector). After a tier has answered, its certainty
joins them: a learned deferral (Gupta et al., "Language Model Cascades", 2024). The model is linear
over them, words weighted by rarity and scaled to length 1, with a monotone map that calibrates its
output. Its numbers come from an artefact and are fitted elsewhere. Hashes are CRC-32 of UTF-8, the
same on every machine.

Time is bounded by `MAX_CHARACTERS`, not by the length of the prompt.
"""

import math
import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from zlib import crc32

from services.router.policy.certainty import Certainty

FEATURES_VERSION = 1
"""Changes with anything that changes what a feature means; artefacts of another are refused."""

DENSE = 64
"""Indexes below it are form, signals and certainty; then comes the vector, then words."""

MAX_VECTOR = 1024
FIRST_TASK = DENSE + MAX_VECTOR
TASKS = 1 << 12
FIRST_WORD = FIRST_TASK + TASKS
WORDS = 1 << 18
"""Buckets that words and pairs of words share."""

FEATURES = FIRST_WORD + WORDS

MIX = 0x9E3779B1
"""Odd; makes one hash of two neighbours' that depends on their order."""

MAX_CHARACTERS = 2_000
"""Of a longer prompt, the first and last halves of this many are looked at."""

SparseFeatures = tuple[tuple[int, float], ...]
"""Index and value, each index once, values finite; what the ledger keeps."""


@dataclass(frozen=True, slots=True)
class Signals:
    """What the caller and the cache know about a request; None where they said nothing.

    Attributes:
        task_type: the caller's name for what is asked, as `refund` or `summary`.
        retrieval_confidence: how sure the caller's retrieval was, in [0, 1].
        vector: the prompt's vector, if the cache returned one; any length up to `MAX_VECTOR`.
    """

    task_type: str | None = None
    retrieval_confidence: float | None = None
    vector: Sequence[float] | None = None


@dataclass(frozen=True)
class DifficultyModel:
    """Predicts the gain of the top tier over one lower tier. Numbers of an artefact.

    gain = map(bias + sum of weight * value), where the values of words are first multiplied by
    their rarity and then divided by the length of all of them together; words without a rarity
    are unknown and left out. The map is piecewise linear and constant beyond its ends.

    Attributes:
        weights: by feature index; absent is 0.
        rarities: by feature index, of words alone; positive.
        bias: added to every score.
        points: (score, gain), both ascending, gains in [-1, 1]; at least one.
    """

    weights: Mapping[int, float]
    rarities: Mapping[int, float]
    bias: float
    points: tuple[tuple[float, float], ...]
    _scores: tuple[float, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_scores", tuple(score for score, _ in self.points))
        numbers = [self.bias, *self._scores, *self.weights.values(), *self.rarities.values()]
        if not all(map(math.isfinite, numbers)):
            raise ValueError("every weight, rarity and point must be a finite number")
        if not self.points or list(self._scores) != sorted(set(self._scores)):
            raise ValueError("points must ascend, and be at least one")
        gains = [gain for _, gain in self.points]
        if gains != sorted(gains) or not -1.0 <= gains[0] <= gains[-1] <= 1.0:
            raise ValueError("gains of points must ascend within [-1, 1]")
        if any(not 0 <= index < FEATURES for index in self.weights):
            raise ValueError(f"weights must be of features 0 to {FEATURES - 1}")
        if any(not FIRST_WORD <= index < FEATURES for index in self.rarities):
            raise ValueError("rarities must be of words")
        if any(rarity <= 0.0 for rarity in self.rarities.values()):
            raise ValueError("rarities must be positive")

    def gain(self, sparse: SparseFeatures) -> float:
        """Expected quality of the top tier minus that of this one, in [-1, 1]."""
        weight, rarity = self.weights.get, self.rarities.get
        plain = words = squares = 0.0
        for index, value in sparse:
            if index < FIRST_WORD:
                plain += weight(index, 0.0) * value
            elif (rare := rarity(index)) is not None:
                value *= rare  # noqa: PLW2901 -- a hot loop
                squares += value * value
                words += weight(index, 0.0) * value
        return self._mapped(self.bias + plain + (words / math.sqrt(squares) if squares else 0.0))

    def _mapped(self, raw: float) -> float:
        after = bisect_right(self._scores, raw)
        if after == 0:
            return self.points[0][1]
        if after == len(self.points):
            return self.points[-1][1]
        (left, low), (right, high) = self.points[after - 1], self.points[after]
        return low + (high - low) * (raw - left) / (right - left)


def assurance(gain: float) -> float:
    """A predicted gain as a certainty: ln((1 - gain) / 2), at most 0, higher is surer.

    The logarithm of the chance that this answer wins against the top tier's, ties split evenly.
    """
    return math.log(max(1e-9, (1.0 - gain) / 2.0))


# --- features ----------------------------------------------------------------------------------

_TOKEN = re.compile(
    rb"(?:[a-z]|[\xc3-\xdf][\x80-\xbf])+"  # Latin, Greek, Cyrillic, Hebrew, Arabic words
    rb"|\d+(?:[.,]\d+)*"
    rb"|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf7][\x80-\xbf]{3}"  # one character, as in Chinese
    rb"|[^\sa-z0-9\x80-\xff]"
)
_NEGATION = re.compile(rb"\b(?:not|no|never|except|least|false|incorrect|cannot)\b|n't\b")
_QUESTION = re.compile(rb"\b(?:what|which|whom?|whose|when|where|why|how)\b")
_CODE = re.compile(rb"```|\bdef |#include|[{};]\n|=>")
_DIGITS, _SYMBOLS, _QUOTES = b"0123456789", b"=+*/^<>\\|", b"\"'`"


def features(written: str, signals: Signals) -> SparseFeatures:
    """Turns a prompt and its signals into numbers.

    Args:
        written: what the user wrote, the last message last.
        signals: what else is known.
    """
    text = written
    if len(text) > MAX_CHARACTERS:
        half = MAX_CHARACTERS // 2
        text = f"{text[:half]}\n{text[-half:]}"
    data = text.lower().encode(errors="replace")
    tokens = _TOKEN.findall(data)
    found = _form(len(written), data, len(tokens))
    found += _signals(signals)
    found += [(index, 1.0) for index in sorted(_words(tokens))]
    return tuple(found)


def with_certainty(sparse: SparseFeatures, certainty: Certainty | None) -> SparseFeatures:
    """The features after a tier has answered: those before, and how sure it was."""
    if certainty is None:
        return (*sparse, (48, 1.0))
    return (
        *sparse,
        (40, certainty.mean),
        (41, certainty.minimum),
        (42, certainty.first_k),
        (43, math.exp(certainty.mean)),
        (44, math.exp(certainty.minimum)),
        (45, math.exp(certainty.first_k)),
        (46, math.log1p(-certainty.mean)),
        (47, math.log1p(-certainty.minimum)),
    )


def _form(length: int, data: bytes, tokens: int) -> list[tuple[int, float]]:
    """Length and form of the prompt: indexes 0 to 31, values about 1 in size."""
    size = max(1, len(data))
    return [
        (0, math.log1p(length) / 5),
        (1, math.log1p(tokens) / 3),
        (2, size / max(1, tokens) / 5),
        (3, 10 * (size - len(data.translate(None, _DIGITS))) / size),
        (4, math.log1p(data.count(b"\n"))),
        (5, math.log1p(data.count(b"?"))),
        (6, math.log1p(len(_NEGATION.findall(data)))),
        (7, math.log1p(len(_QUESTION.findall(data)))),
        (8, 1.0 if _CODE.search(data) else 0.0),
        (9, math.log1p(size - len(data.translate(None, _SYMBOLS)))),
        (10, math.log1p(size - len(data.translate(None, _QUOTES)))),
        (11, 0.0 if data.isascii() else 1.0),
    ]


def _signals(signals: Signals) -> list[tuple[int, float]]:
    """Signals of the caller: indexes from 32; the vector, of length 1, from `DENSE`."""
    found: list[tuple[int, float]] = []
    confidence = signals.retrieval_confidence
    if confidence is not None and math.isfinite(confidence):
        found += [(32, 1.0), (33, min(1.0, max(0.0, confidence)))]
    vector = signals.vector
    if vector is not None and 0 < len(vector) <= MAX_VECTOR:
        length = math.sqrt(sum(value * value for value in vector))
        if math.isfinite(length) and length > 0.0:
            found.append((34, 1.0))
            found += [(DENSE + at, value / length) for at, value in enumerate(vector)]
    if signals.task_type:
        found.append((FIRST_TASK + crc32(signals.task_type.encode()) % TASKS, 1.0))
    return found


def _words(tokens: Sequence[bytes]) -> set[int]:
    """Indexes of the words and of the pairs of neighbours; how often does not matter."""
    hashes = list(map(crc32, tokens))
    found = {FIRST_WORD + word % WORDS for word in hashes}
    mixed = [(left * MIX ^ right) >> 8 for left, right in pairwise(hashes)]
    found.update([FIRST_WORD + pair % WORDS for pair in mixed])
    return found
