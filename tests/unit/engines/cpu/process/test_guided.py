"""What the tokens of a tokenizer.json spell."""

from collections.abc import Sequence
from typing import Any

import pytest

from engines.cpu.process.guided import NoVocabularyError, token_bytes


def tokenizer(
    vocabulary: dict[str, int],
    decoder: dict[str, Any],
    model: str = "BPE",
    added: Sequence[tuple[int, str, bool]] = (),
) -> dict[str, Any]:
    return {
        "model": {"type": model, "vocab": vocabulary},
        "decoder": decoder,
        "added_tokens": [
            {"id": index, "content": content, "special": special}
            for index, content, special in added
        ],
    }


def test_byte_level_tokens_are_bytes() -> None:
    vocabulary = {"<s>": 0, "a": 1, "Ġb": 2, "Ã¤": 3, "Ċ": 4}
    spelled = token_bytes(
        tokenizer(vocabulary, {"type": "ByteLevel"}, added=[(0, "<s>", True), (5, "<x>", False)])
    )
    assert spelled == [b"", b"a", b" b", "ä".encode(), b"\n", b"<x>"]


def test_byte_fallback_tokens_are_bytes() -> None:
    decoder = {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]}
    spelled = token_bytes(tokenizer({"▁the": 0, "<0x0A>": 1, "é": 2}, decoder))
    assert spelled == [b" the", b"\n", "é".encode()]


@pytest.mark.parametrize(
    "unknown",
    [
        tokenizer({"a": 0}, {"type": "WordPiece"}, model="WordPiece"),
        tokenizer({"a": 0}, {"type": "WordPiece"}),
        {},
    ],
)
def test_other_tokenizers_are_refused(unknown: dict[str, Any]) -> None:
    with pytest.raises(NoVocabularyError):
        token_bytes(unknown)
