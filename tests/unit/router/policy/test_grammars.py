"""Expressions as grammars: what they say, what they allow, what is refused."""

import itertools
import re

import pytest
import re2

from services.router.policy.effort import Effort
from services.router.policy.expressions import NoGrammar
from services.router.policy.grammars import CHUNK, grammar

ANY = (
    r"[\u0001-\u0009\u000B-\u007F\u0080-\u07FF\u0800-\u0FFF\u1000-\uCFFF\uD000-\uD7FF"
    r"\uE000-\uFFFF\U00010000-\U0003FFFF\U00040000-\U000FFFFF\U00100000-\U0010FFFF]"
)
"""Any character but the end of a line: ranges in which no byte of UTF-8 depends on another."""

RULE = re.compile(r"(\w+) ::= (.*)")


def matches(rules: str, text: str) -> bool:
    """Whether a grammar allows a text: read back as an expression, a reader of its own."""
    bodies = dict(match.groups() for match in RULE.finditer(rules))
    if bodies["root"] == "s0":
        return _leads(bodies, text)

    def written(name: str) -> str:
        body = re.sub(r'"([^"]*)"', r"(?:\1)", bodies[name])
        body = re.sub(r"(?<![\\\w])r\d+\b", lambda used: f"(?:{written(used[0])})", body)
        return body.replace(" ", "").replace("\n", "")

    return re.fullmatch(written("root"), text) is not None


def _leads(rules: dict[str, str], text: str) -> bool:
    """The same of an automaton's grammar: a rule for each state, of sets and where they lead."""
    state = "s0"
    for character in text:
        moves = re.findall(r"(r\d+) (s\d+)", rules[state])
        found = [to for letters, to in moves if re.fullmatch(rules[letters], character)]
        if not found:
            return False
        (state,) = found
    return rules[state].endswith('""')


@pytest.mark.parametrize(
    ("expression", "rules"),
    [
        (r".*a.{12}", f'root ::= r0* "a" r0{{12,12}}\nr0 ::= {ANY}\n'),
        (
            r"(.*a.{60}){3}",
            (
                f"root ::= r2{{3,3}}\nr0 ::= {ANY}\n"
                'r1 ::= r0{16,16}\nr2 ::= r0* "a" r1{3,3} r0{12,12}\n'
            ),
        ),
        (r"^\d+$", "root ::= r0+\nr0 ::= [0-9]\n"),
        ("", 'root ::= ""\n'),
        # The second byte may be any only behind some of the first.
        (
            "[\u4fd0-\u9001]",
            "root ::= [\\u4FD0-\\u4FFF\\u5000-\\u8FFF\\u9000-\\u9001]\n",
        ),
        # In the first place it would negate.
        (r"[\^a]", "root ::= [a\\u005E]\n"),
        (r"[\^-`]", "root ::= [\\u005F-\\u0060\\u005E]\n"),
        (r"\^+", 'root ::= r0+\nr0 ::= "\\u005E"\n'),
        # Engines would take the digits that follow for its own.
        ("K\u00e4fer", 'root ::= "K\\u00E4" "fer"\n'),
        ("K\u00e4se", 'root ::= "K\\u00E4se"\n'),
        ("\u0101a", 'root ::= "\\u0101a"\n'),
        ("[\u00e9a]", "root ::= [a\\u00E9]\n"),
        (r"[\x01-\x1f0-9]", "root ::= [0-9\\u0001-\\u001F]\n"),
    ],
)
def test_sets_and_repeated_parts_are_rules_of_their_own(expression: str, rules: str) -> None:
    # In place, an engine would determinise them: minutes for the first of these.
    assert grammar(expression) == rules


EXPRESSIONS = [
    "abc",
    "a|bc|",
    "(a|b)*c",
    "(?:a?b{2,3})+",
    "[a-c]{0,2}-?",
    "[^ab]*",
    "(?i)a[b-c]",
    "(?i:a)b",
    "^(ab|-)$",
    "(^a|b$)",
    r"\w\W\d?",
    r"\s*a",
    ".a.",
    "(?s).a.",
    "a{0}b",
    "(a*)*b",
    "a*?b+?",
    r"\x61b",
    "[\\]a\\^\\\\]+",
    "[[]a",
    'a"b',
    "é|ü",
    "[a{,]+",
    "[]{,3}a]",
    r"[\]{,3}]-",
    r"(\{,3})?a?",
    "(?i)É",
    "(?i)[à-ü]",
    "(?i)[^à-ü]",
    "(?i)[^É]",
    "(?i)[^a]",
    r"(?i)\W",
    r"(?i)[\Wa]",
]


@pytest.mark.filterwarnings("ignore:Possible nested set")  # as the module says where it serves
@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_a_grammar_allows_what_re2_takes(expression: str) -> None:
    rules = grammar(expression)
    taken = 0
    for length in range(4):
        for letters in itertools.product('abcAB- \n0]é"[', repeat=length):
            text = "".join(letters)
            wanted = re2.fullmatch(expression, text) is not None
            assert matches(rules, text) == wanted, text
            taken += wanted
    assert taken


@pytest.mark.parametrize(
    "expression",
    [
        *(f"a{{{least},{least + more}}}" for least in (0, 1, 17, 40) for more in range(0, 53, 4)),
        "a{0,16}",
        "a{0,17}",
        "a{0,33}",
        "a{48}",
        "a{33,}",
        "(a?){50}",
        "((a?){5}){7}",
        "((a{1,3}){2,4}){0,3}",
        "(a{2,3}){0,20}",
        "(a{2})*",
        "((a+)*){2}",
        "(a{0}){5}",
        "a*a{2,20}a?a+",
        "a{0,20}a{3,20}",
        "(a{0,20}|aa)a{3,20}",
    ],
)
def test_repetitions_are_counted_in_chunks_and_allow_what_they_say(expression: str) -> None:
    rules = grammar(expression)
    assert max(map(int, re.findall(r"(\d+)\}", rules)), default=0) <= CHUNK
    for length in range(110):
        text = "a" * length
        wanted = re2.fullmatch(expression, text) is not None
        assert matches(rules, text) == wanted, length


@pytest.mark.parametrize(
    ("expression", "same"),
    [
        ("(.?){500}", ".{0,500}"),
        ("((.?){30}){33}", ".{0,990}"),
        ("(a*)*(a*)*(a+)*", "a*"),
        ("(((a*)*)*)+", "a*"),
        ("ba?a?a{2}c", "ba{2,4}c"),
    ],
)
def test_a_text_cannot_be_cut_in_many_ways(expression: str, same: str) -> None:
    # An engine would follow each of them at every token.
    assert grammar(expression) == grammar(same)


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("a\0b", "NUL"),
        (r"a\x00b", "NUL"),
        (r"a\0b", "NUL"),
        ("[\\x00]", "NUL"),
        (r"\bword", "anchors"),
        ("a^b", "anchors"),
        ("(a$)*", "anchors"),
        ("(?=a)b", "assert"),
        (r"(a)\1", "groupref"),
        ("a{,3}", "lowest count"),
        ("[[:alpha:]]", "named sets"),
        ("a{,}", "lowest count"),
        (r"\[a{,3}", "lowest count"),
        (r"\pL", r"RE2 knows it, but no grammar is made of it \(bad escape \\p.*: write it out"),
        *((form, "RE2 knows it") for form in (r"a\z", r"\x{e9}", r"\Qa.b\E", "(?<n>a)", "(?U)a")),
        ("(" * 150 + "a" + ")" * 150, "at most 100 groups and repetitions"),
        ("(" * 51 + "a" + ")*" * 51, "at most 100 groups and repetitions"),
        ("".join(f"[a{chr(0x4E00 + number)}]" for number in range(5000)), "at most 4000 parts"),
        (r"(\w+\s?){1,200}", "too many ways at once: put a mark"),
        (f"(?i){''.join(f'[{chr(at)}-Ӿ]' for at in range(0x100, 0x164))}", "more than 20000"),
        ("".join(f"[^{chr(0x4E00 + 17 * number)}]" for number in range(1500)), "at most 250000"),
    ],
)
def test_what_no_grammar_says_is_refused(expression: str, said: str) -> None:
    with pytest.raises(NoGrammar, match=said):
        grammar(expression, Effort(10**9))


@pytest.mark.parametrize(
    "expression",
    [
        "a" * 700,
        "|".join("a" * count for count in range(1, 40)),
        "".join(f"[{chr(0x100 + 2 * at)}-{chr(0x900 + 2 * at)}]" for at in range(100)),
        f"[{''.join(chr(0x100 + 2 * at) for at in range(600))}]",
    ],
)
def test_whatever_writing_a_grammar_takes_is_counted(expression: str) -> None:
    with pytest.raises(NoGrammar, match="takes too long"):
        grammar(expression, Effort(len(expression) * 4 - 1))
    grammar(expression, effort := Effort())
    assert effort.spent > 2500


def test_each_range_of_a_set_costs_what_writing_it_takes() -> None:
    def steps(letters: list[int]) -> int:
        grammar(f"[{''.join(map(chr, letters))}]", effort := Effort())
        return effort.spent

    apart, together = ([0x400 + gap * at for at in range(600)] for gap in (2, 1))
    assert steps(apart) > steps(together) + 400


def test_no_answer_holds_nul() -> None:
    for expression in ("(?s).", r"[^a]", r"\W", r"[\x00a]"):
        assert re2.fullmatch(expression, "\0")
        assert not matches(grammar(expression), "\0")


def test_a_hexadecimal_digit_after_an_escape_is_not_part_of_it() -> None:
    # Engines read \x41b as one character.
    assert grammar(r"\x41b") == 'root ::= "Ab"\n'
    assert grammar(r"\x2db") == 'root ::= "\\u002Db"\n'
