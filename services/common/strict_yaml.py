"""Reads YAML so that a value is what it looks like, and bounded in all that could hurt.

Numbers are plain decimal ones, truth values are ``true`` and ``false``: ``0400`` (octal in YAML
1.1), ``6:40`` (base 60), ``1_000``, ``1e3``, ``0x10``, ``.inf``, ``yes`` and ``no`` are texts here,
which whoever wants a number refuses. Keys are always text. Aliases and merge keys work; what they
unfold to is counted. Leaves to `config` what a document must hold.
"""

import re
from dataclasses import dataclass
from typing import Any

from yaml import YAMLError
from yaml.composer import Composer
from yaml.error import MarkedYAMLError
from yaml.events import AliasEvent
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.parser import Parser
from yaml.reader import Reader, ReaderError
from yaml.resolver import BaseResolver
from yaml.scanner import Scanner

MAX_CHARACTERS = 1 << 20
"""Of a document."""

MAX_VALUES = 50_000
"""Values of a document, keys and what aliases unfold to included."""

MAX_DEPTH = 32
"""Mappings and lists within each other."""

MAX_SHOWN_PLACE = 200
"""Characters of a place that a problem tells."""

MERGE = "<<"

Place = tuple[int | str, ...]
"""Where a value stands in a document: the keys and positions that lead to it."""

_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,29}")
_BROKEN = re.compile(r"(?!-0\.0*$)-?(0|[1-9][0-9]{0,29})\.[0-9]{1,30}")
_WORDS = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
}
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029]")
"""Characters that end a line of a log, steer a terminal, cut a path or cannot be sent."""


class YamlProblem(Exception):
    """A text that is no document.

    Attributes:
        line: where; 0: nowhere in particular.
        what: is wrong, in a sentence.
    """

    def __init__(self, line: int, what: str) -> None:
        self.line = line
        self.what = what
        super().__init__(f"line {line}: {what}")


@dataclass(frozen=True)
class Tree:
    """A document.

    Attributes:
        data: dicts, lists, texts, numbers, truth values and None.
        root: its nodes, to find lines.
    """

    data: Any
    root: Node | None

    def data_at(self, place: Place) -> Any:
        """What stands at a place; None: nothing, or an empty value."""
        found = self.data
        for part in place:
            try:
                found = found[part]
            except (LookupError, TypeError):
                return None
        return found

    def line(self, place: Place) -> int:
        """Line of the deepest part of the place that the document has."""
        node, line = self.root, 1 if self.root is None else _line(self.root)
        for part in place:
            found = _below(node, part)
            if found is not None:  # else it is no part of the document, such as the arm of a union
                line, node = found
        return line


def read_tree(text: str) -> Tree:
    """Reads a document.

    Raises:
        YamlProblem: it is no YAML, a key appears twice, or it is larger than documents may be.
    """
    if len(text) > MAX_CHARACTERS:
        raise YamlProblem(0, f"longer than {MAX_CHARACTERS:,} characters")
    try:
        composer = _Composer(text)
        root = composer.get_single_node()
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        what = f"not valid YAML: holds the character U+{error.character:04X}"
        raise YamlProblem(line, what) from error
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = f"not valid YAML: {error.problem or error.context}"
        raise YamlProblem(0 if mark is None else mark.line + 1, what) from error
    except (YAMLError, RecursionError, ValueError, OverflowError) as error:
        # The library raises others than its own for an escape beyond Unicode: "\\UFFFFFFFF".
        raise YamlProblem(0, f"not valid YAML: {' '.join(str(error).split())}") from error
    return Tree(None if root is None else _Reading().value(root), root)


def scalar(text: str) -> Any:
    """What a plain text, without quotes, stands for."""
    if text in _WORDS:
        return _WORDS[text]
    if _WHOLE.fullmatch(text):
        return int(text)
    if _BROKEN.fullmatch(text):
        return float(text)
    return text


class _Composer(Reader, Scanner, Parser, Composer, BaseResolver):
    """Nodes of a document, counted while they are made."""

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)
        Composer.__init__(self)
        BaseResolver.__init__(self)
        self._depth = 0
        self._count = 0

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        line = event.start_mark.line + 1
        self._count += 1
        if self._count > MAX_VALUES:
            raise YamlProblem(line, f"more than {MAX_VALUES:,} values")
        if self._depth >= MAX_DEPTH:
            raise YamlProblem(line, f"nested more than {MAX_DEPTH} levels deep")
        if not isinstance(event, AliasEvent) and getattr(event, "tag", None) not in (None, "!"):
            raise YamlProblem(line, f"tags are not taken, got {str(event.tag)[:80]!r}")
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


class _Reading:
    """One way from nodes to values; counts what it unfolds."""

    def __init__(self) -> None:
        self._count = 0
        self._within: list[Node] = []
        self._place: list[str] = []

    def value(self, node: Node) -> Any:
        self._count += 1
        if self._count > MAX_VALUES:
            raise YamlProblem(_line(node), f"more than {MAX_VALUES:,} values, aliases unfolded")
        if isinstance(node, ScalarNode):
            text = _text(node)
            return scalar(text) if node.style is None else text
        if any(node is outer for outer in self._within):
            raise YamlProblem(_line(node), "an alias leads back to what it is part of")
        if len(self._within) >= MAX_DEPTH:
            raise YamlProblem(_line(node), f"nested more than {MAX_DEPTH} levels deep")
        self._within.append(node)
        try:
            if isinstance(node, SequenceNode):
                return [self._at(str(place), one) for place, one in enumerate(node.value)]
            return self._mapping(node)
        finally:
            self._within.pop()

    def _at(self, key: str, node: Node) -> Any:
        self._place.append(key)
        value = self.value(node)
        self._place.pop()
        return value

    def _mapping(self, node: Node) -> dict[str, Any]:
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, ScalarNode):
                raise YamlProblem(_line(key), "a key must be text")
            name = _text(key)
            if name == MERGE and key.style is None:
                many = value.value if isinstance(value, SequenceNode) else [value]
                for one in many:
                    if not isinstance(one, MappingNode):
                        raise YamlProblem(_line(key), f"{MERGE}: must name mappings")
                    merged = {**self.value(one), **merged}  # the first of several counts
                continue
            if name in own:
                place = ".".join((*self._place, name))[:MAX_SHOWN_PLACE]
                first = next(_line(one) for one, _ in node.value if one.value == name)
                raise YamlProblem(_line(key), f"{place}: appears twice, first in line {first}")
            self._count += 1
            own[name] = self._at(name, value)
        return {**merged, **own}


def _text(node: ScalarNode) -> str:
    text: str = node.value
    if (found := _UNSAFE.search(text)) is not None:
        raise YamlProblem(_line(node), f"holds the character U+{ord(found[0]):04X}")
    return text


def _line(node: Node) -> int:
    return int(node.start_mark.line) + 1


def _below(node: Node | None, part: int | str) -> tuple[int, Node] | None:
    """Line and value of a key or a position; None where there is none."""
    if isinstance(node, SequenceNode):
        if isinstance(part, int) and part < len(node.value):
            return _line(node.value[part]), node.value[part]
        return None
    if not isinstance(node, MappingNode):
        return None
    merged: list[Node] = []
    for key, value in node.value:
        if key.value == str(part):
            return _line(key), value
        if key.value == MERGE:
            merged += value.value if isinstance(value, SequenceNode) else [value]
    return next((found for one in merged if (found := _below(one, part)) is not None), None)
