"""A value of a YAML file is what it looks like, and no file is more work than its size."""

import contextlib
import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from services.common.strict_yaml import (
    MAX_CHARACTERS,
    MAX_DEPTH,
    MAX_VALUES,
    YamlProblem,
    read_tree,
)


def read(text: str):
    return read_tree(text).data


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("0", 0),
        ("400000", 400_000),
        ("-3", -3),
        ("0.25", 0.25),
        ("-1.50", -1.5),
        ("10000000000000000000000000", 10**25),
        ("true", True),
        ("False", False),
        ("~", None),
        ("", None),
        ("null", None),
        ("words", "words"),
    ],
)
def test_plain_values(written: str, meant: object) -> None:
    found = read(f"key: {written}\n")["key"]
    assert (found, type(found)) == (meant, type(meant))


@pytest.mark.parametrize(
    "written",
    [
        "0400000",  # octal in YAML 1.1: 131072
        "0x10",
        "0b101",
        "0o17",
        "6:40",  # base 60 in YAML 1.1: 400
        "190:20:30.15",
        "1_000",
        "+5",
        "-0",
        "-0.0",
        "007",
        "01.5",
        ".5",
        "5.",
        "1e3",
        "1.5e+3",
        ".inf",
        "-.inf",
        ".nan",
        "inf",
        "nan",
        "yes",
        "No",
        "on",
        "OFF",
        "y",
        "2024-01-31",
        "2001-12-14t21:59:43.10-05:00",
        "'5'",
        '"true"',
        "1" * 31,
    ],
)
def test_every_other_spelling_is_text(written: str) -> None:
    assert read(f"key: {written}\n")["key"] == written.strip("'\"")


def test_keys_are_text_however_they_look() -> None:
    text = "on: 1\nno: 2\n1: 3\n~: 4\ntrue: 5\n1.0: 6\n010: 7\n"
    assert list(read(text)) == ["on", "no", "1", "~", "true", "1.0", "010"]


def test_a_key_that_stands_twice_is_refused_however_it_is_quoted() -> None:
    for text in ("a: 1\na: 2\n", "a: 1\n'a': 2\n", "x:\n  1: 1\n  '1': 2\n"):
        with pytest.raises(YamlProblem, match="appears twice"):
            read(text)


def test_aliases_and_merge_keys_work_and_lines_are_found_through_them() -> None:
    text = (
        "base: &base\n  one: 1\n  two: 2\nmore: &more {two: 3, three: 3}\n"
        "made:\n  <<: [*base, *more]\n  one: 9\nsame: *base\n"
    )
    tree = read_tree(text)
    assert tree.data["made"] == {"one": 9, "two": 2, "three": 3}
    assert tree.data["same"] == {"one": 1, "two": 2}
    assert tree.line(("made", "one")) == 7
    assert tree.line(("made", "two")) == 3
    assert tree.line(("made", "absent")) == 5
    with pytest.raises(YamlProblem, match="must name mappings"):
        read("a: {<<: [1]}\n")


def bomb(levels: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (bomb(9), f"more than {MAX_VALUES:,} values, aliases unfolded"),
        ("a: &a {b: 1}\nc: &c {<<: [" + "*a, " * 30_000 + "*a]}\n", f"more than {MAX_VALUES:,}"),
        ("- x\n" * (MAX_VALUES + 1), f"more than {MAX_VALUES:,} values"),
        ("[" * 5000, f"nested more than {MAX_DEPTH} levels deep"),
        ("- " * 5000, f"nested more than {MAX_DEPTH} levels deep"),
        ("x" * (MAX_CHARACTERS + 1), "longer than"),
        ("a: &a [*a]\n", "leads back"),
        ("a: *nobody\n", "undefined alias"),
        ("a: !!int '0400'\n", "tags are not taken"),
        ("a: !!python/name:os.system\n", "tags are not taken"),
        ("a: !mine 5\n", "tags are not taken"),
        ('a: "\\0"\n', "U+0000"),
        ('a: "\\e[31m"\n', "U+001B"),
        ('a: "\\ud800"\n', "U+D800"),
        ('"a\\u2028": 1\n', "U+2028"),
        ("a: \x07\n", "U+0007"),
        ('a: "\\UFFFFFFFF"\n', "not valid YAML"),
        ('a: "\\U00110000"\n', "not valid YAML"),
        ("a: 1\n---\na: 2\n", "another document"),
        ("? [a]\n: 1\n", "a key must be text"),
    ],
)
def test_what_is_refused(text: str, what: str) -> None:
    with pytest.raises(YamlProblem) as caught:
        read(text)
    assert what in caught.value.what
    assert len(str(caught.value)) < 300


def test_what_json_and_we_both_write_is_read_the_same() -> None:
    value = {"a": [1, 2.5, True, None, "x: y"], "b": {"c": "ü", "d": "line\nline"}}
    assert read(json.dumps(value)) == value
    assert read(yaml.safe_dump(value, allow_unicode=True)) == value


MARKS = "\t\"'{}[]:,?|>&*!%#@`~\n\r\ufeff\u2028\x85\x00\ud800"
PIECES = st.sampled_from(
    (
        *MARKS,
        *("- ", "&a", "*a", "<<: ", "!!str", "%YAML 1.2\n", "%TAG ! x\n", "---\n", "...\n"),
        *("\\UFFFFFFFF", "\\U00110000", "\\x0", "a", "a: ", "0", "1e9", "|+9"),
    )
)


@given(st.lists(PIECES, max_size=30).map("".join))
def test_no_text_raises_anything_else(text: str) -> None:
    with contextlib.suppress(YamlProblem):
        read_tree(text)
