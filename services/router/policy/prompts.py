"""Conversations and what belongs to them: passages that the caller retrieved, and trimming.

Trimming leaves out what an answer rarely needs: blanks, old turns, passages that have little to do
with the question. It can change an answer, so it is a lever like any other.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from services.router.policy.routes import Trimming

MAX_COMPARED_CHARACTERS = 4_000
"""Characters whose words are compared: of longer texts the first and the last half of these."""

_WORD = re.compile(r"\w+")
_BLANKS = re.compile(r"(?<=\S)[ \t]{2,}")
_EMPTY_LINES = re.compile(r"\n(?:[ \t]*\n){2,}")
_FENCE = "```"


@dataclass(frozen=True, slots=True)
class Message:
    """One message of the conversation; `role` is system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Passage:
    """A retrieved text; `relevance` as the caller's retrieval found it, or None."""

    text: str
    relevance: float | None = None


def with_passages(messages: Sequence[Message], passages: Sequence[Passage]) -> tuple[Message, ...]:
    """The conversation with the passages before the text of its last message."""
    if not passages:
        return tuple(messages)
    last = messages[-1]
    content = "\n\n".join([*(passage.text for passage in passages), last.content])
    return (*messages[:-1], replace(last, content=content))


def trimmed(
    messages: Sequence[Message], passages: Sequence[Passage], trimming: Trimming
) -> tuple[Message, ...]:
    """The conversation with its passages, without what `trimming` leaves out."""
    kept = list(messages)
    if trimming.history_turns is not None:
        kept = _recent(kept, trimming.history_turns)
    if trimming.passages is not None:
        passages = _relevant(passages, messages[-1].content, trimming.passages)
    found = with_passages(kept, passages)
    if not trimming.white_space:
        return found
    return tuple(replace(message, content=_tightened(message.content)) for message in found)


def _recent(messages: list[Message], most: int) -> list[Message]:
    """The instructions, and the conversation from the user's turn so many turns ago."""
    asked = [at for at, message in enumerate(messages) if message.role == "user"]
    start = asked[-most] if len(asked) > most else 0
    instructions = [message for message in messages[:start] if message.role == "system"]
    return [*instructions, *messages[start:]]


def _relevant(passages: Sequence[Passage], question: str, most: int) -> list[Passage]:
    """The most relevant passages, in the order they came; of equal ones the first."""
    if len(passages) <= most:
        return list(passages)
    scores = [passage.relevance for passage in passages]
    known = [score for score in scores if score is not None]
    if len(known) < len(passages):
        known = _overlaps([passage.text for passage in passages], question)
    best = sorted(range(len(passages)), key=lambda at: (-known[at], at))[:most]
    return [passages[at] for at in sorted(best)]


def _overlaps(texts: Sequence[str], question: str) -> list[float]:
    """How much each text has to do with the question: BM25 over these texts.

    Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009), with
    its usual k1 = 1.2 and b = 0.75.
    """
    holders: dict[str, list[tuple[int, int]]] = {word: [] for word in _words(question)}
    lengths = []
    for at, text in enumerate(texts):
        words = _words(text)
        lengths.append(len(words))
        for word, count in Counter(filter(holders.__contains__, words)).items():
            holders[word].append((at, count))
    mean = max(1.0, sum(lengths) / len(lengths))
    scores = [0.0] * len(texts)
    for holding in filter(None, holders.values()):
        rarity = math.log(1.0 + (len(texts) - len(holding) + 0.5) / (len(holding) + 0.5))
        for at, count in holding:
            slack = 1.2 * (0.25 + 0.75 * lengths[at] / mean)
            scores[at] += rarity * count * 2.2 / (count + slack)
    return scores


def _words(text: str) -> list[str]:
    if len(text) > MAX_COMPARED_CHARACTERS:
        half = MAX_COMPARED_CHARACTERS // 2
        text = f"{text[:half]} {text[-half:]}"
    return _WORD.findall(text.lower())


def _tightened(text: str) -> str:
    """Without runs of blanks and of empty lines; indents and fenced code stay as they are."""
    parts = text.split(_FENCE)
    parts[::2] = [_EMPTY_LINES.sub("\n\n", _BLANKS.sub(" ", part)) for part in parts[::2]]
    return _FENCE.join(parts).strip()
