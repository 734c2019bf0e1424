"""Chat templates and tokens of the tiers, from the model folders' Hugging Face files.

The only importer in the services of `tokenizers` and `jinja2`. A model folder holds
``tokenizer.json`` and ``tokenizer_config.json``, and the template either there or in
``chat_template.jinja``.
"""

import datetime as dt
import json
import os
import re
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Encoding, Tokenizer
from tokenizers.decoders import DecodeStream

from services.common.config import ConfigError
from services.common.errors import BadRequest, Violation
from services.common.plain_files import read_plain
from services.router.policy.prompts import Message
from services.router.policy.reach import reach_of
from services.router.ports import TooLong

# Whoever tokenises counts its threads; those that the library would start, nobody does.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

MAX_TOKENIZER_BYTES = 2**28
"""Of each file of a tokenizer; the largest known have some 30 MiB."""

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
"""What unfinished characters are decoded to; an answer may also have it as a character."""

_SPELLED = (REPLACEMENT, "ï¿½", "<0xEF><0xBF><0xBD>")
"""How tokens spell that character: as it is, and its bytes as vocabularies write bytes."""

FIRST_PRIVATE = 0xF0000
"""Start of a private-use plane; stands for a message while the template renders around it."""


class ModelText:
    """Renders, tokenises and detokenises for one model."""

    def __init__(self, folder: Path) -> None:
        """Loads the folder.

        Raises:
            ConfigError: a file is missing or broken, or there is no chat template.
        """
        try:
            vocabulary = read_plain(folder / "tokenizer.json", MAX_TOKENIZER_BYTES)
            self._tokenizer = Tokenizer.from_buffer(vocabulary)
            self._plain = Tokenizer.from_buffer(vocabulary)
            config = json.loads(read_plain(folder / "tokenizer_config.json", MAX_TOKENIZER_BYTES))
        except Exception as error:  # tokenizers raises bare Exception
            raise ConfigError(str(folder), [f"cannot load the tokenizer: {error}"]) from error
        for loaded in (self._tokenizer, self._plain):  # a prompt is neither cut nor filled up
            loaded.no_truncation()
            loaded.no_padding()
        self._plain.encode_special_tokens = True
        self._reach = reach_of(json.loads(self._tokenizer.to_str()))
        self.end_id = self._special(config, "eos_token", folder)
        pad = config.get("pad_token")
        self.pad_id = self._special(config, "pad_token", folder) if pad else self.end_id
        self._template = self._compile(folder, config)
        self._names = {
            key: _token_text(config[key]) for key in ("bos_token", "eos_token") if config.get(key)
        }
        special = [t.content for t in self._tokenizer.get_added_tokens_decoder().values()]
        self._special_text = re.compile("|".join(map(re.escape, special)) or r"(?!)")

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """See `TierText.encode`."""
        return _ids([_encoding(*part) for part in self._parts(messages)])

    def encode_below(self, messages: Sequence[Message], limit: int) -> list[int] | TooLong:
        """See `TierText.encode_below`."""
        parts = self._parts(messages)
        least = self._least_tokens(parts)
        if least >= limit:
            return TooLong(least)
        encodings = [_encoding(*part) for part in parts]
        count = sum([len(encoding) for encoding in encodings])
        if count >= limit:
            return TooLong(count)
        return _ids(encodings)

    def least_tokens(self, messages: Sequence[Message]) -> int:
        """See `TierText.least_tokens`."""
        return self._least_tokens(self._parts(messages))

    def encode_plain(self, text: str) -> list[int]:
        """See `TierText.encode_plain`."""
        ids: list[int] = _encoding(self._plain, text).ids
        return ids

    def detokenizer(self) -> "StreamDetokenizer":
        """See `TierText.detokenizer`."""
        return StreamDetokenizer(self._tokenizer)

    def _least_tokens(self, parts: list[tuple[Tokenizer, str]]) -> int:
        if self._reach is None:
            return 0
        return self._reach.least_tokens([text for _, text in parts])

    def _parts(self, messages: Sequence[Message]) -> list[tuple[Tokenizer, str]]:
        """The rendered conversation, and which tokenizer takes each part of it."""
        if any(self._special_text.search(message.content) for message in messages):
            return self._guarded_parts(messages)
        text = self._render(
            [{"role": message.role, "content": message.content} for message in messages]
        )
        return [(self._tokenizer, text)]

    def _guarded_parts(self, messages: Sequence[Message]) -> list[tuple[Tokenizer, str]]:
        """The parts where messages spell out special tokens, which are plain text there.

        Otherwise a caller could write ``<|assistant|>`` and speak with the model's voice. The
        template renders around one private character a message; only its own parts may hold
        special tokens.
        """
        marks = [chr(FIRST_PRIVATE + number) for number in range(len(messages))]
        contents = {
            mark: message.content.strip() for mark, message in zip(marks, messages, strict=True)
        }
        text = self._render(
            [
                # The space around a message stays, for templates that trim it.
                {"role": message.role, "content": message.content.replace(contents[mark], mark)}
                for mark, message in zip(marks, messages, strict=True)
            ]
        )
        return [
            (self._plain, contents[part]) if part in contents else (self._tokenizer, part)
            for part in re.split(f"([{marks[0]}-{marks[-1]}])", text)
            if part
        ]

    def _render(self, messages: list[dict[str, str]]) -> str:
        try:
            text: str = self._template.render(
                messages=messages, add_generation_prompt=True, **self._names
            )
        except TemplateError as error:
            violation = Violation("prompt.messages", f"the chat template refuses them: {error}")
            raise BadRequest.of(violation) from error
        return text

    def _special(self, config: dict[str, Any], key: str, folder: Path) -> int:
        text = _token_text(config.get(key))
        number: int | None = self._tokenizer.token_to_id(text)
        if number is None:
            raise ConfigError(str(folder), [f"{key}: not in the vocabulary, got {text!r}"])
        return number

    @staticmethod
    def _compile(folder: Path, config: dict[str, Any]) -> Any:
        beside = folder / "chat_template.jinja"
        source = config.get("chat_template")
        try:
            if beside.exists():
                source = read_plain(beside, MAX_TOKENIZER_BYTES).decode("utf-8")
        except (OSError, ValueError) as error:
            raise ConfigError(str(folder), [f"chat template: {error}"]) from error
        if not isinstance(source, str):
            raise ConfigError(str(folder), ["has no chat template"])
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = _strftime_now
        try:
            template = environment.from_string(source)
        except TemplateError as error:
            raise ConfigError(str(folder), [f"chat template: {error}"]) from error
        # Each render copies the globals, and a plain dict copies far quicker than jinja's ChainMap.
        template.globals = dict(template.globals)
        return template


class StreamDetokenizer:
    """Incremental detokenisation that never splits a character; state of one answer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._stream = DecodeStream(skip_special_tokens=True)
        self._held: list[int] = []

    def feed(self, tokens: Sequence[int]) -> str:
        """See `Detokenizer.feed`."""
        self._held += tokens
        text: str | None = self._stream.step(self._tokenizer, list(tokens))
        if text is None:  # the last character is not complete yet
            return ""
        self._held.clear()
        return text

    def rest(self) -> str:
        """See `Detokenizer.rest`."""
        if not self._held:
            return ""
        text: str = self._tokenizer.decode(self._held, skip_special_tokens=True)
        if text.endswith(REPLACEMENT) and not self._spelled().endswith(_SPELLED):
            text = text.rstrip(REPLACEMENT)
        self._held.clear()
        return text

    def _spelled(self) -> str:
        """What is held as its tokens spell it."""
        added = self._tokenizer.get_added_tokens_decoder()
        plain = (one for one in self._held if one not in added or not added[one].special)
        return "".join([self._tokenizer.id_to_token(one) or "" for one in plain])


def _encoding(tokenizer: Tokenizer, text: str) -> Encoding:
    """A text's tokens; others run meanwhile, as a batch lets go of the interpreter.

    A fast batch leaves out where in the text each token is, which is most of the memory.
    """
    (encoding,) = tokenizer.encode_batch_fast([text], add_special_tokens=False)
    return encoding


def _ids(encodings: Sequence[Encoding]) -> list[int]:
    return list(chain.from_iterable([encoding.ids for encoding in encodings]))


def _token_text(token: Any) -> str:
    return str(token.get("content", "")) if isinstance(token, dict) else str(token)


def _refuse(message: str) -> None:
    raise TemplateError(message)


def _strftime_now(form: str) -> str:
    return dt.datetime.now(dt.UTC).strftime(form)
