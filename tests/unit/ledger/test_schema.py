"""Every record is documented, serialised as it stands, and carries the one spelling of time."""

import ast
import dataclasses
import re
import sys
from pathlib import Path

import orjson
import pytest

from pennyweight.ledger import schema
from pennyweight.ledger.schema import KINDS, SCHEMA, LedgerRecord, TextRecord, time_text
from tests.making.ledger import attempt, line, outcome, pair, request

RECORDS = [request("r1", attempt()), request(), pair(), pair(kind="cached_pair"), outcome()]
CLASSES = [one for one in vars(schema).values() if dataclasses.is_dataclass(one)]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_field_is_documented_and_no_other(kind: type) -> None:
    documented = re.findall(r"^ {8}(\w+): ", kind.__doc__ or "", re.MULTILINE)
    assert documented == [field.name for field in dataclasses.fields(kind)]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.kind)
def test_a_line_holds_every_field_of_its_kind(record: LedgerRecord) -> None:
    told = orjson.loads(line(record))
    assert list(told) == [field.name for field in dataclasses.fields(KINDS[told["kind"]])]
    assert isinstance(record, KINDS[told["kind"]])
    assert told["schema"] == SCHEMA
    for part in told.get("attempts", []):
        assert list(part) == [field.name for field in dataclasses.fields(schema.AttemptRecord)]


def test_texts_are_kept_as_messages_and_answers() -> None:
    text = TextRecord(
        messages=(schema.MessageRecord(role="user", content="Where is it?"),), answers=("Here.",)
    )
    told = orjson.loads(line(pair(text=text)))
    assert told["text"] == {
        "messages": [{"role": "user", "content": "Where is it?"}],
        "answers": ["Here."],
    }


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "1970-01-01T00:00:00.000Z"),
        (1_795_880_539.1239, "2026-11-28T15:42:19.123Z"),
        (1_795_880_539.9999, "2026-11-28T15:42:19.999Z"),
    ],
)
def test_time_has_one_spelling(seconds: float, text: str) -> None:
    assert time_text(seconds) == text


def test_the_schema_imports_the_standard_library_alone() -> None:
    """It is in the wheel of callers, which has three dependencies."""
    tree = ast.parse(Path(schema.__file__).read_text())
    roots = set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            roots.add((node.module or "").partition(".")[0])
        elif isinstance(node, ast.Import):
            roots |= {one.name.partition(".")[0] for one in node.names}
    assert roots
    assert roots <= sys.stdlib_module_names
