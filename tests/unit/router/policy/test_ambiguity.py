"""In how many ways a text may be read at once."""

import json

import pytest

from services.router.policy.ambiguity import ways
from services.router.policy.effort import Effort, TooMuch
from services.router.policy.expressions import Choice, NoGrammar, Repeat, Set, read
from services.router.policy.grammars import grammar
from services.router.policy.schema_rules import told
from services.router.policy.simplified import simplified

ENOUGH = 200


def most_ways(expression: str) -> int:
    return ways(simplified(read(expression), Effort()), ENOUGH, Effort())


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "[a-z]*",
        ".{0,200}",
        "([a-z]{1,10} ){1,5}",
        r"(\w+ ){0,200}",
        r"[\w.+-]+@[\w-]+\.[\w.-]+",
        r"(\d{1,3}\.){3}\d{1,3}",
        ".*(yes|no).*",
        ".*a.{12}",
        r"(- [^\n]+\n){1,10}",
        r"([A-Z][a-z]+( [A-Z][a-z]+)*, )*x",
        "|".join(f"word {number}" for number in range(300)),
    ],
)
def test_what_is_read_in_one_way_takes_few_steps(expression: str) -> None:
    assert most_ways(expression) <= 16


@pytest.mark.parametrize(
    "part",
    [
        "(.{0,9}x?){0,10}a",
        "(a?b?){0,1000}",
        r"(\w+\s?){1,200}",
        r"(\w+ ?)*x",
        "(.*b?){0,10}a",
    ],
)
@pytest.mark.parametrize("hidden", ["{}", "(qz){{67}}{}", "([^C].|C({}))", "((x|y){{9}}{})?"])
def test_what_is_read_in_many_ways_is_found_wherever_it_stands(part: str, hidden: str) -> None:
    assert most_ways(hidden.format(part)) > 100


D = r"[\x01\x0e]\x10|[\x02\x0e]\x11|[\x03\x0e]\x12|[\x04\x0e]\x13"
"""Decoys: a character that all of them take, and no more."""

CORES = [
    "[a-z ].{{0,8}}{}",
    "([a-z ]x?){{0,16}}y?{}",
    "{}|[a-z]{{1,9}} ?",
    "{}|[ab][ab].{{0,8}}",
    "{}|[a-z]{{0,3}}{{3}}[a-z]?",
    "(a?b?){{0,60}}c?{}",
    r"\w+,?{}",
]
DECOYS = {
    "none": "",
    "beside": f"|{D}",
    "long": "|" + "|".join(f"[{chr(at)}~]{{30}}[{at}]" for at in range(48, 58)),
    "repeating": "|" + "|".join(f"[{chr(at)}~]{{0,9}}[{at}]" for at in range(48, 58)),
    "many": "|" + "|".join(f"[\u0400-{chr(at)}]{{2,3}};{at}" for at in range(0x410, 0x438)),
    "overlapping partly": "|[a-e\x0e]1|[b-f\x0e]2|[c-g\x0e]3|[d-h\x0e]4|[a-h]0",
    "words": "|" + "|".join(f"{chr(0x410 + at)}word{at}" for at in range(60)),
}
AROUND = [
    "(qz){{66}}({}){{0,10}}[.]",
    "(({}|!){{0,9}}#){{0,9}}",
    f"({D}|({{}})*!)*",
]


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("decoys", DECOYS)
@pytest.mark.parametrize("core", CORES)
def test_nothing_draws_away_from_what_is_read_in_many_ways(
    core: str, decoys: str, around: str
) -> None:
    core = core.format(DECOYS[decoys]).removeprefix("|")
    assert found_out(around.format(core))


def test_alternatives_that_go_on_side_by_side_are_found_beside_others() -> None:
    alike = "|".join(f"[a-z{chr(0x400 + at)}][a-z ]{{400}}{at};" for at in range(60))
    assert found_out(f"(qz){{66}}({D}|{alike})")
    words = "|".join(f"{chr(0x500 + at)}word{at}" for at in range(300))
    assert found_out(f"(qz){{66}}({words}|[a-z ].{{0,100}}){{0,10}}[.]")


def found_out(expression: str) -> bool:
    """Whether it is refused, or told as an automaton."""
    try:
        return "s0 ::=" in grammar(expression)
    except NoGrammar:
        return True


def test_it_stops_where_it_has_seen_enough() -> None:
    effort = Effort()
    ways(read("((a?b?){0,1000}){0,1000}"), ENOUGH, effort)
    assert effort.spent < 20_000


def test_it_ends_with_the_effort() -> None:
    with pytest.raises(TooMuch):
        ways(read(".*a.{12}"), ENOUGH, Effort(100))


@pytest.mark.parametrize(
    ("expression", "same"),
    [
        ("(a{0,9}){0,10}", "a{0,90}"),
        ("((a*)*)*", "a*"),
        ("(a{1,3}){2,4}", "a{2,12}"),
        ("a*a+a{2}", "a{3,}"),
        ("(b|(a?)*)c", "(b|a*)c"),
        ("abc|abd|b|ab", "ab(c|d|)|b"),
        ("x(a|a)", "xa"),
    ],
)
def test_repetitions_that_are_one_are_said_as_one(expression: str, same: str) -> None:
    assert simplified(read(expression), Effort()) == simplified(read(same), Effort())


@pytest.mark.parametrize("expression", ["(a{2}){0,3}", "(a{2,3}){1,2}", "(ab)*a", "a*b*"])
def test_others_stay(expression: str) -> None:
    assert simplified(read(expression), Effort()) == read(expression)


def test_sets_beside_each_other_cost_as_many_steps_as_they_have_ranges() -> None:
    part = Choice(tuple(Set(((at, at),)) for at in range(1, 1001)))
    assert ways(Repeat(part, 2, 2), ENOUGH, effort := Effort()) <= 16
    assert 2000 < effort.spent < 20_000


def test_the_character_is_tried_that_most_ways_take_wherever_it_stands_in_a_set() -> None:
    own = [[chr(0x400 + 20 * number + 2 * at) for at in range(9)] for number in range(30)]
    for shared, few in (("", True), ("\u2014", False)):
        sets = "|".join(f"[{''.join(letters)}{shared}]{letters[0]}" for letters in own)
        assert (most_ways(f"({sets})*!") <= 16) is few


def test_what_alternatives_begin_with_is_counted_as_often_as_it_is_looked_at() -> None:
    simplified(read("|".join("a" * count for count in range(1, 41))), effort := Effort())
    assert effort.spent > 2000


@pytest.mark.parametrize(
    "around", ["{}", ".*({}).*", "({})(, ({})){{0,4}}", "I say ({}) as .{{1,200}}"]
)
def test_long_lists_of_words_are_told_as_they_are(around: str) -> None:
    words = "|".join(f"{chr(97 + at % 26)}{at:06}" for at in range(500))
    assert "s0 ::=" not in grammar(around.format(words, words))


SENTENCES = [
    r"([A-Z].{0,50}[.!?] ?){1,3}",
    r"(.{1,80}, ){1,5}.{1,80}",
    r"(\d+\. .+\n?){1,10}",
    r"(.+: .+; ?)+",
    r"([A-Z][^.!?]{1,300}[.!?] ){0,2}[A-Z][^.!?]{1,300}[.!?]",
    r"\s*(\w+)\s*=\s*(\d+|\"[^\"]*\")\s*(;\s*(\w+)\s*=\s*(\d+|\"[^\"]*\")\s*)*",
    r"\|( [^|\n]* \|)+\n\|( ?-+ ?\|)+\n(\|( [^|\n]* \|)+\n)*",
    r"(- .{1,100}\n?){1,5}",
]


@pytest.mark.parametrize("expression", SENTENCES)
def test_what_texts_are_mostly_asked_for_in_is_told_as_it_is(expression: str) -> None:
    assert "s0 ::=" not in grammar(expression)
    assert "s0 ::=" not in told(json.dumps({"type": "string", "pattern": f"^(?:{expression})$"}))


def test_effort_is_left_for_the_automaton_of_what_overlaps() -> None:
    assert "s0 ::=" in grammar("(ab|a)*(ba|b)*" * 20)
