"""Fewest tokens of a text: never more than it has, whatever the text and the tokenizer."""

import json
import unicodedata
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from services.router.policy.reach import SHRINKS, Reach, reach_of
from tests.making.policies import TOKENIZER

FALLBACKS = [f"<0x{byte:02X}>" for byte in range(256)]


def over_bytes() -> Tokenizer:
    """The small model's: byte pairs."""
    return Tokenizer.from_file(str(TOKENIZER / "tokenizer.json"))


def merged(*texts: str) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A vocabulary with these texts, and merges that lead to them letter by letter."""
    tokens = list(FALLBACKS)
    merges = []
    for text in texts:
        tokens += [char for char in text if char not in tokens]
        for end in range(2, len(text) + 1):
            if text[:end] not in tokens:
                tokens.append(text[:end])
                merges.append((text[: end - 1], text[end - 1]))
    return {token: number for number, token in enumerate(tokens)}, merges


def with_fallback(*texts: str, **named: Any) -> Tokenizer:
    """As Llama 2 and Mistral have them: characters, and bytes where those are unknown."""
    vocabulary, merges = merged(*(texts or ("▁▁▁▁▁▁▁▁", "▁the▁", "aaaaaaaa", "éé", "🎈")))
    made = Tokenizer(models.BPE(vocabulary, merges, byte_fallback=True, **named))
    made.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    made.decoder = decoders.ByteFallback()
    return made


def composing() -> Tokenizer:
    """As Qwen has them: bytes behind NFC."""
    made = over_bytes()
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(" ", "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return made


def swallowing() -> Tokenizer:
    """As Phi 3 has them: special tokens that take the blanks beside them along."""
    made = with_fallback()
    made.add_special_tokens([AddedToken("<|end|>", rstrip=True, lstrip=True)])
    return made


def wide_vocabulary() -> Tokenizer:
    """Tokens that are never reached count too, which costs nothing but sharpness."""
    made = over_bytes()
    made.add_tokens([AddedToken("🎈🎈🎈🎈🎈🎈"), AddedToken("card number")])
    return made


def empty_sequences() -> Tokenizer:
    """As DeepSeek has them: a normalizer of no steps."""
    made = over_bytes()
    made.normalizer = normalizers.Sequence([])
    return made


KNOWN = [empty_sequences, over_bytes, with_fallback, composing, swallowing, wide_vocabulary]

anything = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=60)
repeated = st.builds(
    lambda part, times: part * times,
    st.sampled_from(
        ["🎈", " ", "a", "the ", "é", "e\u0301", "\u1fbe\u0308\u0301", "ᄀ\u1161\u11a8"]
    )
    | st.sampled_from(["<|end|>", "<|end|> \u3000\n", "card number", "\u212a", "▁", "\0", "1"]),
    st.integers(0, 60),
)


def known(make: Callable[[], Tokenizer]) -> tuple[Tokenizer, Reach]:
    made = make()
    reach = reach_of(json.loads(made.to_str()))
    assert reach is not None
    return made, reach


@pytest.mark.parametrize(("tokenizer", "reach"), [known(make) for make in KNOWN])
@given(parts=st.lists(anything | repeated, max_size=4))
@example(parts=["\u1fbe\u0308\u0301" * 100])
@example(parts=["<|end|>" + " \u3000\n" * 200])
@example(parts=["▁" * 100])
def test_no_text_has_fewer_tokens(tokenizer: Tokenizer, reach: Reach, parts: list[str]) -> None:
    texts = ["".join(parts), *parts]
    count = sum(len(tokenizer.encode(text, add_special_tokens=False)) for text in texts)
    assert reach.least_tokens(texts) <= count


@pytest.mark.parametrize(
    ("make", "text", "least"),
    [
        (over_bytes, "🎈" * 100_000, 100_000),
        (with_fallback, "🎈" * 100_000, 10_000),
        (with_fallback, "b" * 100_000, 10_000),
        (composing, "🎈" * 100_000, 1_000),
        (swallowing, "🎈" * 100_000, 10_000),
        (swallowing, " " * 100_000, 0),
    ],
)
def test_a_long_text_has_many(make: Callable[[], Tokenizer], text: str, least: int) -> None:
    _, reach = known(make)
    found = reach.least_tokens([text])
    assert found >= least
    assert (found == 0) == (least == 0)


def changed(make: Callable[[], Tokenizer], **parts: Any) -> Tokenizer:
    made = make()
    for name, part in parts.items():
        setattr(made, name, part)
    return made


def words() -> Tokenizer:
    return Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))


def without_a_byte() -> Tokenizer:
    vocabulary, merges = merged("aa")
    del vocabulary["<0xFF>"]
    return Tokenizer(models.BPE(vocabulary, merges, byte_fallback=True))


def without_fallback() -> Tokenizer:
    vocabulary, merges = merged("aa")
    return Tokenizer(models.BPE(vocabulary, merges, unk_token="a", fuse_unk=True))


@pytest.mark.parametrize(
    "tokenizer",
    [
        pytest.param(words(), id="words that it does not know are one token"),
        pytest.param(Tokenizer(models.Unigram([("a", 0.0)])), id="another model"),
        pytest.param(without_fallback(), id="unknown characters become one token"),
        pytest.param(without_a_byte(), id="a byte has no token"),
        pytest.param(
            changed(over_bytes, pre_tokenizer=pre_tokenizers.WhitespaceSplit()),
            id="blanks are dropped",
        ),
        pytest.param(
            changed(over_bytes, pre_tokenizer=pre_tokenizers.Split("a", "removed")),
            id="something is removed",
        ),
        *[
            pytest.param(changed(over_bytes, normalizer=one), id=str(one))
            for one in (
                normalizers.NFKC(),
                normalizers.Lowercase(),
                normalizers.StripAccents(),
                normalizers.Strip(),
                normalizers.Replace("aaaa", "a"),
                normalizers.Replace(" ", ""),
                normalizers.Sequence([normalizers.NFC(), normalizers.Strip()]),
            )
        ],
    ],
)
def test_of_what_may_lose_text_nothing_is_said(tokenizer: Tokenizer) -> None:
    assert reach_of(json.loads(tokenizer.to_str())) is None


def test_nfc_shrinks_no_character_by_more_than_is_allowed_for() -> None:
    longest: dict[str, int] = {}
    characters = [chr(n) for n in range(0x110000) if not 0xD800 <= n < 0xE000]
    for char in characters:  # such as the kelvin sign, which becomes a K
        whole = unicodedata.normalize("NFD", char)
        if len(whole) == 1:
            longest[whole] = max(longest.get(whole, len(whole.encode())), len(char.encode()))
    worst = max(
        sum(longest[part] for part in unicodedata.normalize("NFD", char)) / len(char.encode())
        for char in characters
        if unicodedata.normalize("NFC", char) == char
    )
    assert 3.0 < worst <= SHRINKS
