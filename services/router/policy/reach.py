"""How few tokens a text can have, without tokenising it.

A token covers so many bytes of text at most as the longest one in its vocabulary has. That holds
for tokenizers that lose nothing of a text, which is known of byte-pair encodings over bytes, or
with a token for each byte to fall back on, behind normalizers that are known here. Of any other
nothing is said: it may map a word, or a run of unknown characters, to one token, or to none.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

BYTES = 256

SHRINKS = 4
"""What NFC makes of one byte may have been so many: three and a half for U+0390 at worst."""

_WORDS = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_WIDE = bytes(range(0x80, BYTES))
_ANY = bytes(range(BYTES))

_KEEPING = frozenset({"ByteLevel", "Metaspace", "Digits", "Punctuation", "Split"})
"""Pre-tokenizers that only cut a text, or add to it, unless they are told to remove something."""


@dataclass(frozen=True, slots=True)
class Reach:
    """What one token covers at most, in bytes of UTF-8.

    Attributes:
        whole: of any kind.
        words: of ASCII letters and digits; None where nobody knows.
        wide: of characters beyond ASCII; None where nobody knows.
        blanks: of white space too: no token swallows the blanks beside it.
    """

    whole: int
    words: int | None
    wide: int | None
    blanks: bool

    def least_tokens(self, texts: Iterable[str]) -> int:
        """Tokens that these texts have at least, one after another."""
        whole = words = wide = 0
        for text in texts:
            data = (text if self.blanks else "".join(text.split())).encode()
            whole += len(data)
            if self.words is not None:
                words += _count(data, _WORDS)
            if self.wide is not None:
                wide += _count(data, _WIDE)
        counts = ((whole, self.whole), (words, self.words), (wide, self.wide))
        return max([-(-count // most) for count, most in counts if most])


def reach_of(tokenizer: Mapping[str, Any]) -> Reach | None:
    """What one token of a tokenizer covers; None where nothing is known of it.

    Args:
        tokenizer: what its ``tokenizer.json`` says.
    """
    model = tokenizer["model"]
    steps = list(_steps(tokenizer.get("pre_tokenizer")))
    normalizers = list(_steps(tokenizer.get("normalizer")))
    vocabulary = model.get("vocab")
    if model.get("type") != "BPE" or not isinstance(vocabulary, dict):
        return None
    if not all(map(_keeps, steps)) or not all(map(_is_known, normalizers)):
        return None
    shown = _byte_alphabet()
    if any(step["type"] == "ByteLevel" for step in steps) and shown.keys() <= vocabulary.keys():
        bytes_of = _shown_bytes(shown)
    elif model.get("byte_fallback") and _has_fallbacks(vocabulary):
        bytes_of = str.encode
    else:
        return None
    added = tokenizer.get("added_tokens") or []
    contents = [token["content"].encode() for token in added]
    blanks = not any(token.get("lstrip") or token.get("rstrip") for token in added)
    ranked = sorted(vocabulary, key=_upper, reverse=True)

    def longest(kind: bytes) -> int:
        most = max([1, *[_count(content, kind) for content in contents]])
        for token in ranked:
            if _upper(token) <= most:
                break  # those after it are no longer
            most = max(most, _count(bytes_of(token), kind))
        return most

    whole = longest(_ANY)
    if any(step["type"] == "NFC" for step in normalizers):
        return Reach(SHRINKS * whole, None, None, blanks)
    return Reach(whole, longest(_WORDS), longest(_WIDE), blanks)


def _steps(step: Mapping[str, Any] | None) -> Iterable[Mapping[str, Any]]:
    """A normalizer or pre-tokenizer as the steps it is made of."""
    if step is None:
        return
    if step["type"] != "Sequence":
        yield step
        return
    for inner in ("normalizers", "pretokenizers"):
        for one in step.get(inner) or ():
            yield from _steps(one)


def _keeps(step: Mapping[str, Any]) -> bool:
    return step["type"] in _KEEPING and step.get("behavior") != "Removed"


def _is_known(step: Mapping[str, Any]) -> bool:
    """Whether a normalizer adds to a text, or shrinks it no more than `SHRINKS` says."""
    match step:
        case {"type": "NFC" | "Prepend"}:
            return True
        case {"type": "Replace", "pattern": {"String": str(old)}, "content": str(new)}:
            return old == " " and len(new) >= 1
    return False


def _has_fallbacks(vocabulary: Mapping[str, int]) -> bool:
    return all(f"<0x{byte:02X}>" in vocabulary for byte in range(BYTES))


def _byte_alphabet() -> Mapping[str, int]:
    """The characters by which vocabularies over bytes show each byte, as GPT-2 had them first."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, BYTES)]
    others = [byte for byte in range(BYTES) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {
        chr(BYTES + number): byte for number, byte in enumerate(others)
    }


def _shown_bytes(shown: Mapping[str, int]) -> Callable[[str], bytes]:
    """Turns a token of such a vocabulary into its bytes; any other token is what is written."""
    table, all_shown = str.maketrans(dict(shown)), frozenset(shown)

    def bytes_of(token: str) -> bytes:
        if not all_shown.issuperset(token):
            return token.encode()
        return token.translate(table).encode("latin-1")

    return bytes_of


def _upper(token: str) -> int:
    """No kind of bytes that a token stands for is more than it has itself."""
    return len(token.encode())


def _count(data: bytes, kind: bytes) -> int:
    return len(data) - len(data.translate(None, kind))
