"""Who changes something and why, as people write it: checked before it is kept, logged and shown.

A table or a log shows these texts as they are, so nothing in them may move, hide or turn around
what stands beside them.
"""

import unicodedata
from collections.abc import Iterator

from services.common.errors import Violation

MAX_AUTHOR = 64
MAX_REASON = 256

_UNSEEN = ("Cc", "Cf", "Zl", "Zp")
"""Categories of Unicode: control and format characters, and what ends a line or a paragraph."""


def text_violations(
    name: str, text: str, longest: int, *, required: bool = True
) -> Iterator[Violation]:
    """What is wrong with a text; `name` is that of its field, `longest` in characters."""
    if not text.strip():
        if required or text:
            yield Violation(name, "is required")
    elif len(text) > longest:
        yield Violation(name, f"must have at most {longest} characters, got {len(text)}")
    elif any(unicodedata.category(character) in _UNSEEN for character in text):
        yield Violation(name, "must be one line, without control and other unseen characters")
