"""Text and tokens of the small model: nothing is lost, nobody speaks with another's voice."""

import asyncio
import json
import shutil
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.decoders import ByteFallback, ByteLevel, Fuse
from tokenizers.decoders import Sequence as InTurn
from tokenizers.models import BPE

from services.common.config import ConfigError
from services.common.errors import BadRequest
from services.router.engines import tokenizer
from services.router.engines.tokenizer import ModelText, StreamDetokenizer
from services.router.policy.prompts import Message
from services.router.ports import TooLong
from tests.making.policies import TOKENIZER

TEXT = ModelText(TOKENIZER)
PLAIN = Tokenizer.from_file(str(TOKENIZER / "tokenizer.json"))
ADDED = json.loads((TOKENIZER / "tokenizer.json").read_text())["added_tokens"]
SPECIAL = {one["content"]: one["id"] for one in ADDED}
IDS = frozenset(SPECIAL.values())

anything = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=40)
spelling = st.lists(st.sampled_from([*SPECIAL, "hi", " ", "<", "|>", "é", "🎈"]), max_size=6)


def decoded(tokens: Sequence[int]) -> str:
    watch = TEXT.detokenizer()
    return watch.feed(tokens) + watch.rest()


def pieces(tokens: list[int], sizes: list[int]) -> list[str]:
    watch = TEXT.detokenizer()
    told, at = [], 0
    for size in [*sizes, len(tokens)]:
        if chunk := tokens[at : at + size]:
            told.append(watch.feed(chunk))
        at += size
    return [*told, watch.rest()]


@given(anything)
@example("🎈é ü\u0000\U000f0000")
@example("\ufffd")
@example("x\ufffd\ufffd")
def test_plain_text_survives_the_way_to_tokens_and_back(text: str) -> None:
    tokens = TEXT.encode_plain(text)
    assert not IDS.intersection(tokens)
    assert decoded(tokens) == text


@given(anything, st.lists(st.integers(1, 5), max_size=20))
@example("a🎈b🎈", [1] * 20)
@example("a\ufffd", [1] * 20)
def test_characters_are_never_broken_however_the_tokens_come(text: str, sizes: list[int]) -> None:
    told = pieces(TEXT.encode_plain(text), sizes)
    assert "".join(told) == text
    assert "\ufffd" not in "".join(told).replace("\ufffd" * text.count("\ufffd"), "")


def test_of_several_tokens_the_finished_characters_come_at_once() -> None:
    tokens = TEXT.encode_plain("yes 🎈")
    assert len(TEXT.encode_plain("🎈")) > 1
    watch = TEXT.detokenizer()
    first = "".join(watch.feed([token]) for token in tokens[:-1])
    assert first.startswith("yes")
    assert "\ufffd" not in first
    assert first + watch.feed(tokens[-1:]) == "yes 🎈"


def test_a_character_that_is_never_finished_is_left_out() -> None:
    tokens = TEXT.encode_plain("yes 🎈")[:-1]
    assert decoded(tokens).strip() == "yes"


@pytest.mark.parametrize("fallback", [False, True])
def test_a_replacement_character_at_the_end_is_told_where_it_is_one(*, fallback: bool) -> None:
    """Tokens spell bytes in an alphabet of letters, or as their numbers."""
    byte = "<0x{:02X}>" if fallback else "{:c}"
    names = [byte.format(number) for number in b"\xef\xbf\xbd"] + ["yes", "<end>"]
    model = BPE({name: number for number, name in enumerate(names)}, [], byte_fallback=fallback)
    plain = Tokenizer(model)
    plain.decoder = InTurn([ByteFallback(), Fuse()]) if fallback else ByteLevel()
    plain.add_special_tokens(["<end>"])
    watch = StreamDetokenizer(plain)
    assert watch.feed([3, 0, 1, 2, 4]) + watch.rest() == "yes\ufffd"
    watch = StreamDetokenizer(plain)
    assert watch.feed([3, 0, 1, 4]) + watch.rest() == "yes"


@given(st.lists(st.integers(0, 400), max_size=30), st.lists(st.integers(1, 4), max_size=30))
def test_any_tokens_of_a_model_can_be_told(tokens: list[int], sizes: list[int]) -> None:
    "".join(pieces(tokens, sizes)).encode()


def test_end_and_padding_tokens_are_those_of_the_folder() -> None:
    config = json.loads((TOKENIZER / "tokenizer_config.json").read_text())
    assert TEXT.end_id == SPECIAL[config["eos_token"]]
    assert TEXT.pad_id == SPECIAL[config["pad_token"]]


async def test_the_template_brings_the_special_tokens_in() -> None:
    ids = TEXT.encode([Message("system", "Be kind."), Message("user", "hi")])
    assert [i for i in ids if i in IDS] == [
        SPECIAL["<s>"],
        SPECIAL["<|system|>"],
        SPECIAL["<|user|>"],
        SPECIAL["<|assistant|>"],
    ]


@given(st.lists(spelling, min_size=1, max_size=3))
async def test_special_tokens_that_a_caller_spells_out_are_plain_text(
    spelled: list[list[str]],
) -> None:
    contents = ["x" + "".join(one) + "x" for one in spelled]
    ids = TEXT.encode([Message("user", one) for one in contents])
    expected = [SPECIAL["<s>"], *[SPECIAL["<|user|>"]] * len(contents), SPECIAL["<|assistant|>"]]
    assert [i for i in ids if i in IDS] == expected
    assert PLAIN.decode(ids, skip_special_tokens=True) == "".join(contents)


@pytest.mark.parametrize("content", ["  hi  ", "  </s>hi\n", "\t<|user|>  "])
async def test_spelling_a_special_token_does_not_change_how_the_template_treats_text(
    content: str,
) -> None:
    told = TEXT.encode([Message("user", content)])
    stripped = TEXT.encode([Message("user", content.strip())])
    assert told == stripped


async def test_a_private_character_of_a_caller_stays_text() -> None:
    content = "\U000f0000\U000f0001</s>"
    ids = TEXT.encode([Message("user", content), Message("user", "x\U000f0000</s>")])
    text = PLAIN.decode(ids, skip_special_tokens=True)
    assert text == content + "x\U000f0000</s>"


@given(st.lists(spelling, min_size=1, max_size=3), st.integers(1, 60))
def test_below_a_limit_a_conversation_has_its_tokens_and_otherwise_too_many(
    spelled: list[list[str]], limit: int
) -> None:
    messages = [Message("user", "x" + "".join(one)) for one in spelled]
    ids = TEXT.encode(messages)
    found = TEXT.encode_below(messages, limit)
    if len(ids) < limit:
        assert found == ids
    else:
        assert isinstance(found, TooLong)
        assert limit <= found.tokens <= len(ids)


def test_what_cannot_fit_is_not_tokenised(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("it was")

    monkeypatch.setattr(tokenizer, "_encoding", never)
    for content in ("🎈" * 395_000, "🎈" * 395_000 + "</s>", "card " * 79_000):
        found = TEXT.encode_below([Message("user", content)], 512)
        assert isinstance(found, TooLong)
        assert found.tokens > 512


def test_what_may_fit_is() -> None:
    messages = [Message("user", "card " * 79_000)]
    ids = TEXT.encode(messages)
    assert TEXT.encode_below(messages, len(ids) + 1) == ids
    assert TEXT.encode_below(messages, len(ids)) == TooLong(len(ids))


@pytest.fixture
def patient_interpreter() -> Iterator[None]:
    """Takes itself from no thread that does not let go of it."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(100.0)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("patient_interpreter")
async def test_others_run_while_a_long_text_is_tokenised(monkeypatch: pytest.MonkeyPatch) -> None:
    inner, inside = tokenizer._encoding, threading.Event()

    def watched(*given: Any) -> Any:
        inside.set()
        found = inner(*given)
        inside.clear()
        return found

    messages = [Message("user", "🎈" * 200_000)]
    expected = TEXT.encode(messages)
    monkeypatch.setattr(tokenizer, "_encoding", watched)
    running = asyncio.create_task(asyncio.to_thread(TEXT.encode_below, messages, 10**9))
    turns = 0
    while not running.done():
        await asyncio.sleep(0)
        turns += inside.is_set()
    assert turns > 20
    assert await running == expected


async def test_a_tokenizer_neither_cuts_nor_fills_up_a_prompt(tmp_path: Path) -> None:
    made = folder(tmp_path)
    cutting = Tokenizer.from_file(str(TOKENIZER / "tokenizer.json"))
    cutting.enable_truncation(4)
    cutting.enable_padding(length=64)
    cutting.save(str(made / "tokenizer.json"))
    for content in ("hi", "a longer question than that"):
        messages = [Message("user", content)]
        assert ModelText(made).encode(messages) == TEXT.encode(messages)
        assert ModelText(made).encode_plain(content) == TEXT.encode_plain(content)


def folder(tmp_path: Path, **changes: object) -> Path:
    """A copy of the model's folder with another configuration; None drops a key."""
    made = tmp_path / "model"
    made.mkdir(exist_ok=True)
    shutil.copy(TOKENIZER / "tokenizer.json", made)
    config = json.loads((TOKENIZER / "tokenizer_config.json").read_text()) | changes
    told = {key: value for key, value in config.items() if value is not None}
    (made / "tokenizer_config.json").write_text(json.dumps(told))
    return made


ATTACKS = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ messages.__class__.__base__ }}",
    "{{ raise_exception.__globals__['json'] }}",
    "{{ cycler.__init__.__globals__.os.system('true') }}",
    "{{ messages.append({'role': 'system', 'content': 'x'}) }}",
    "{{ messages[0].update({'content': 'x'}) }}",
    "{{ strftime_now.__code__.co_consts }}",
    "{{ '{0.__class__.__mro__}'.format(messages) }}",
]


@pytest.mark.parametrize("template", ATTACKS)
async def test_a_template_cannot_reach_out(tmp_path: Path, template: str) -> None:
    text = ModelText(folder(tmp_path, chat_template=template))
    with pytest.raises(BadRequest, match=r"unsafe|undefined"):
        text.encode([Message("user", "hi")])


async def test_a_template_that_refuses_says_so(tmp_path: Path) -> None:
    template = "{{ raise_exception('only one message') if messages | length > 1 }}"
    text = ModelText(folder(tmp_path, chat_template=template))
    with pytest.raises(BadRequest, match="only one message") as caught:
        text.encode([Message("user", "hi"), Message("user", "hi")])
    assert caught.value.violations[0].name == "prompt.messages"


async def test_content_is_never_run_as_a_template() -> None:
    content = "{{ 7 * 7 }}{% raw %}"
    ids = TEXT.encode([Message("user", content)])
    assert PLAIN.decode(ids, skip_special_tokens=True) == content


async def test_a_template_beside_the_folder_goes_first(tmp_path: Path) -> None:
    made = folder(tmp_path)
    (made / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    assert ModelText(made).encode([Message("user", "hi")]) == TEXT.encode_plain("hi")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"chat_template": None}, "no chat template"),
        ({"chat_template": "{% for %}"}, "chat template: "),
        ({"eos_token": "<unheard of>"}, "eos_token: not in the vocabulary, got '<unheard of>'"),
        ({"eos_token": None}, "eos_token: "),
        ({"pad_token": "<unheard of>"}, "pad_token: "),
    ],
)
def test_a_folder_that_cannot_serve_stops_the_start(
    tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        ModelText(folder(tmp_path, **changes))
    assert said in str(caught.value)
    assert str(tmp_path) in caught.value.source


@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json"])
def test_a_missing_or_broken_file_stops_the_start(tmp_path: Path, file: str) -> None:
    made = folder(tmp_path)
    (made / file).write_text("{")
    with pytest.raises(ConfigError, match="cannot load the tokenizer"):
        ModelText(made)
    (made / file).unlink()
    with pytest.raises(ConfigError, match="cannot load the tokenizer"):
        ModelText(made)


def test_without_a_padding_token_the_end_token_pads(tmp_path: Path) -> None:
    text = ModelText(folder(tmp_path, pad_token=None))
    assert text.pad_id == text.end_id


def test_a_token_may_be_told_as_an_object(tmp_path: Path) -> None:
    text = ModelText(folder(tmp_path, eos_token={"content": "</s>", "special": True}))
    assert text.end_id == SPECIAL["</s>"]
