"""Labelled files: what may stand in them, and that nothing of it is lost in silence."""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from services.router.calibrate.__main__ import main
from services.router.calibrate.evidence import BadEvidence, Found
from services.router.calibrate.labelled import from_labelled
from services.router.policy.certainty import Certainty, Measure
from services.router.routes.artefact_file import read
from tests.making.paired import STATED, lines, record, write_routes

CERTIFIED, REFUSED, MISSING = 0, 2, 3
PAGE = Path(__file__).parents[4] / "docs" / "routing.md"

Said = Callable[[], tuple[str, str]]


def table(folder: Path, text: str, *ladder: str, **names: str) -> Found:
    path = folder / "pairs.csv"
    path.write_text(text)
    return from_labelled(path, ladder, names)


def refused(folder: Path, text: str, *ladder: str, **names: str) -> str:
    with pytest.raises(BadEvidence) as caught:
        table(folder, text, *ladder, **names)
    return str(caught.value).removeprefix(f"--labelled: {folder / 'pairs.csv'}")


def sure(found: Found, at: int = 0) -> Certainty | None:
    return found.records[at].tiers[0].certainty


# --- the page ----------------------------------------------------------------------------------


def test_the_example_of_the_page_runs_as_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: Said
) -> None:
    monkeypatch.chdir(tmp_path)
    _, _, example = PAGE.read_text().partition("<!-- labelled example -->\n")
    found = re.match(r"```csv\n(.*?)```\n\n```sh\n(.*?)\n```\n\n[^`]*`(.*?)`", example, re.DOTALL)
    assert found is not None
    text, printed, sentence = found.groups()
    assert len(text.splitlines()) == 10
    Path("pairs.csv").write_text(text)
    program, command, *arguments = shlex.split(printed)
    assert (program, command) == (".venv/bin/pennyweight", "calibrate")
    assert main(arguments) == MISSING
    out, err = said()
    assert sentence in out
    assert "certainty unknown │ 11.1% of cheap's answers" in out
    assert err == ""
    assert read(Path("cards.json")).data.pairs == 9
    assert Path("cards.html").exists()


# --- certainty ---------------------------------------------------------------------------------


def test_one_number_stands_for_each_measure_and_the_file_says_so(tmp_path: Path) -> None:
    found = table(
        tmp_path, "text,small.quality,small.certainty,large.quality\na,1,-0.5,1\nb,1,,1\n"
    )
    assert found.one_number
    assert sure(found) == Certainty(-0.5, -0.5, -0.5)
    assert sure(found, 1) is None


def test_a_probability_is_taken_where_it_is_named_so(tmp_path: Path) -> None:
    found = table(
        tmp_path,
        "text,small.quality,small.probability,large.quality\na,1,1,1\nb,1,0.5,1\nc,0,0,1\n",
    )
    assert sure(found) == Certainty(0.0, 0.0, 0.0)
    assert sure(found, 1) == Certainty(*3 * [pytest.approx(-0.693, abs=1e-3)])
    assert sure(found, 2) is None
    assert len(found.records) == 3


@pytest.mark.parametrize("number", ["-inf", "-Infinity", "nan", ""])
def test_an_answer_without_a_certainty_counts_and_does_not_stand_by_it(
    number: str, tmp_path: Path
) -> None:
    found = table(
        tmp_path, f"text,small.quality,small.certainty,large.quality\na,0,{number},1\nb,1,-1,1\n"
    )
    assert [one.tiers[0].quality for one in found.records] == [0.0, 1.0]
    assert sure(found) is None
    assert found.left_out == {}


def test_all_three_numbers_are_taken_as_they_are(tmp_path: Path) -> None:
    found = table(
        tmp_path,
        "text,small.quality,small.mean,small.minimum,small.first_k,large.quality\na,1,-1,-2,-3,1\n",
    )
    assert not found.one_number
    assert sure(found) == Certainty(-1.0, -2.0, -3.0)


def test_jsonl_may_have_one_number_too(tmp_path: Path) -> None:
    pair = record(1)
    path = tmp_path / "pairs.jsonl"
    for key, number in (("certainty", -0.25), ("probability", 0.5)):
        small = {name: one for name, one in pair["tiers"][0].items() if name != "certainty"}
        path.write_text(lines({**pair, "tiers": [{**small, key: number}, pair["tiers"][1]]}))
        found = from_labelled(path)
        assert found.one_number
        assert sure(found) is not None


CSV = "text,small.quality,small.{},large.quality\na,1,{},1\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            CSV.format("certainty", "0.93"),
            ", line 2: small.certainty must be a log-probability, at most 0, got 0.93; a probab",
        ),
        (CSV.format("probability", "1.2"), ", line 2: small.probability must be in [0, 1], got"),
        (CSV.format("certainty", "high"), ", line 2: small.certainty must be a number, got 'high'"),
        (CSV.format("mean", "-1"), ", line 2: small: a certainty is mean, minimum and first_k"),
        (CSV.format("certainy", "-1"), ": unknown column small.certainy; of small there may be"),
        (CSV.format("valid", "perhaps"), ", line 2: small.valid must be true or false"),
        ("text,small.certainty,large.quality\na,-1,1\n", ": column small.certainty without small"),
        ("text,small.quality,large.quality\na,1,1,-1\n", ", line 2: more values than columns"),
        (
            "text,small.quality,small.certainty,small.probability,large.quality\na,1,-1,0.5,1\n",
            ", line 2: small has both a certainty and a probability",
        ),
        (
            "text,small.quality,small.certainty,small.mean,large.quality\na,1,-1,-1,1\n",
            ", line 2: small: a certainty is mean, minimum and first_k together",
        ),
    ],
)
def test_what_would_be_lost_is_refused(text: str, said: str, tmp_path: Path) -> None:
    assert refused(tmp_path, text).startswith(said)


def test_one_number_and_three_do_not_mix(tmp_path: Path) -> None:
    one, other = record(1), record(2)
    one["tiers"][0]["certainty"] = -0.5
    (tmp_path / "pairs.jsonl").write_text(lines(one, other))
    with pytest.raises(BadEvidence, match="some answers have one number of certainty, some three"):
        from_labelled(tmp_path / "pairs.jsonl")


# --- tiers, forms, questions -------------------------------------------------------------------

OTHERS = "text,cheap.quality,gpt-4.1.quality,gpt-4.1.micro_usd\na,1,0.5,7\n"


def test_tiers_may_be_called_otherwise_in_the_file(tmp_path: Path) -> None:
    found = table(tmp_path, OTHERS, "small", "large", small="cheap", large="gpt-4.1")
    assert [tier.model.tier for tier in found.records[0].tiers] == ["small", "large"]
    assert found.records[0].tiers[1].micro_usd == 7.0
    assert [model.tier for model in table(tmp_path, OTHERS).ladder] == ["cheap", "gpt-4.1"]


def test_a_tier_of_the_same_name_that_is_not_meant_is_left_out(tmp_path: Path) -> None:
    text = "text,small.quality,tiny.quality,large.quality\na,0.1,0.2,1\n"
    found = table(tmp_path, text, "small", "large", small="tiny")
    assert [tier.quality for tier in found.records[0].tiers] == [0.2, 1.0]


def test_tiers_that_the_file_has_not_are_refused_with_those_that_it_has(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    assert refused(tmp_path, OTHERS, "small", "large") == (
        f"--tiers: {path} has no tier small; it has cheap, gpt-4.1: say --tiers small=cheap,"
        "large=gpt-4.1"
    )
    assert refused(tmp_path, OTHERS, "small", "large", small="chaep", large="gpt-4.1") == (
        f"--tiers: {path} has no tier chaep; it has cheap, gpt-4.1"
    )


def test_a_file_may_say_what_had_the_wanted_form_and_what_answered(tmp_path: Path) -> None:
    text = "text,small.quality,small.valid,small.model,large.quality\na,1,no,m,1\nb,1,true,m,1\n"
    found = table(tmp_path, text)
    assert [one.tiers[0].valid for one in found.records] == [False, True]
    assert found.ladder[0].model == "m"


def test_the_same_text_in_another_spelling_is_the_same_question(tmp_path: Path) -> None:
    text = "text,small.quality,large.quality\nWhere is it?,1,1\nwhere is  it,1,1\nHow?,1,1\n"
    found = table(tmp_path, text).records
    assert found[0].question == found[1].question != found[2].question


def test_columns_that_mean_nothing_are_named(tree: Path, said: Said) -> None:
    """Such as one that was to be the propensity."""
    text = "text,id,propensty,small.quality,large.quality,large.micro_usd\n"
    text += "".join(f"case {at},{at},0.5,1,1,100\n" for at in range(20))
    assert table(tree, text).not_read == ("id", "propensty")
    assert main(["--route", "support", "--labelled", str(tree / "pairs.csv")]) == MISSING
    assert "Not read: id, propensty." in said()[0]
    (tree / "pairs.jsonl").write_text(lines(record(1), {**record(2), "propensty": 0.5}))
    assert from_labelled(tree / "pairs.jsonl").not_read == ("propensty",)


def test_a_spreadsheets_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    found = table(tmp_path, "\ufefftext,small.quality,large.quality\na,1,1\n")
    assert len(found.records) == 1


# --- the command -------------------------------------------------------------------------------


def one_number(count: int) -> str:
    rows = ["text,cheap.quality,cheap.certainty,cheap.micro_usd,dear.quality,dear.micro_usd"]
    for number in range(count):
        small, large = record(number)["tiers"]
        mean = small["certainty"]["mean"]
        rows.append(f"case {number},{small['quality']},{mean},10,{large['quality']},100")
    return "\n".join(rows) + "\n"


def test_a_table_with_one_number_certifies_a_route_whose_tiers_have_other_names(
    tree: Path, said: Said
) -> None:
    write_routes(tree, STATED)
    (tree / "pairs.csv").write_text(one_number(900))
    args = ["--route", "support", "--labelled", "pairs.csv", "--tiers", "small=cheap,large=dear"]
    assert main(args) == CERTIFIED
    found = read(tree / "policies" / "calibration" / "support.json")
    assert found.judgement.thresholds.measure is Measure.FIRST_K  # which the route holds back
    assert [str(model) for model in found.ladder] == ["small (tiny int8)", "large (big int8)"]
    assert "Routers will not use it" not in said()[0]


def test_a_table_alone_needs_no_routes_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: Said
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pairs.csv").write_text(one_number(900))
    args = ["--route", "any", "--labelled", "pairs.csv", "--tolerance", "0.04"]
    assert main(args) == REFUSED
    assert "policies/routes.yaml is missing; --alone does without" in said()[1]
    assert main([*args, "--alone", "--out", "made"]) == CERTIFIED
    found = read(Path("made") / "any.json")
    assert [model.tier for model in found.ladder] == ["cheap", "dear"]
    assert found.judgement.thresholds.measure is Measure.MEAN
    assert Path("made/any.looks.jsonl").exists()
    out, _ = said()
    assert "Without a routes file: what the command line left out are defaults" in out
    assert "Routers will not use it" not in out


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        (["--measure", "learned"], "--measure: learned needs mean, minimum and first_k"),
        (["--tiers", "small"], "--tiers: must be as small=cheap,large=dear, got 'small'"),
        (["--tiers", "small=a,large=a"], "--tiers: must be as small=cheap,large=dear"),
        (["--ladder", "cheap,huge"], "has no tier huge; it has cheap, dear"),
        (["--routes-file", "r.yaml"], "--alone: is for --labelled without --routes-file"),
    ],
)
def test_what_cannot_be_is_refused(
    options: list[str],
    rule: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    said: Said,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pairs.csv").write_text(one_number(20))
    args: list[Any] = ["--alone", "--route", "any", "--labelled", "pairs.csv", *options]
    assert main(args) == REFUSED
    assert rule in said()[1]


def test_names_of_tiers_are_for_a_labelled_file(tree: Path, said: Said) -> None:
    assert main(["--route", "support", "--tiers", "small=cheap"]) == REFUSED
    assert "--tiers: is for a labelled file" in said()[1]
    assert main(["--route", "support", "--alone"]) == REFUSED
    assert "--alone: is for --labelled" in said()[1]


def test_uneven_propensities_of_a_file_need_the_lowest(tree: Path, said: Said) -> None:
    pairs = [{**record(at), "propensity": (0.05, 0.2)[at % 2]} for at in range(400)]
    (tree / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    args = ["--route", "support", "--labelled", "pairs.jsonl"]
    assert main(args) == REFUSED
    assert "say the lowest with which any request was drawn" in said()[1]
    assert main([*args, "--lowest-propensity", "0.01"]) == MISSING
    found = read(tree / "policies" / "calibration" / "support.json")
    assert found.data.lowest_propensity == 0.01
    assert "betting test" in found.certificate.method
