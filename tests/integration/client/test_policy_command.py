"""``pennyweight policy check``: what router and scaler would say, with nothing that runs."""

import json
import shutil
from pathlib import Path

import pytest

from tests.integration.client.running import pennyweight
from tests.integration.client.test_calibrate_passes_on import only_the_package

ROOT = Path(__file__).resolve().parents[3]
POLICIES = ROOT / "policies"
QUERIES = "need a scaler with the setting PENNYWEIGHT_SCALER_PROMETHEUS; else it refuses them"
EMPTY = "is empty, so that the pool keeps its size; with `max` it follows its load"


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    """The tree's policies, to be changed; what they name stays where it is."""
    shutil.copytree(POLICIES, tmp_path / "policies")
    (tmp_path / "model_repository").symlink_to(ROOT / "model_repository")
    return tmp_path / "policies"


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def line_of(text: str, file: Path) -> int:
    (line,) = (at for at, line in enumerate(file.read_text().splitlines(), 1) if text in line)
    return line


async def test_the_policies_of_the_tree_are_good() -> None:
    files = [f"policies/{name}.yaml" for name in ("routes", "prices", "scaling")]
    ended = await pennyweight("policy", "check", *files, cwd=ROOT)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == (
        "policies/routes.yaml: a router would take these routes.\n"
        "policies/prices.yaml: a router would take these prices.\n"
        "policies/scaling.yaml: a scaler would take these pools.\n"
    )


async def test_what_would_be_refused_is_told_as_the_services_do(policies: Path) -> None:
    change(policies / "routes.yaml", "tolerance: 0.01 ", "tolerance: 1e-2 ")
    change(policies / "scaling.yaml", "size: 1 ", "size: 7 ")
    change(policies / "prices.yaml", "400000", "0400000")
    files = [str(policies / f"{name}.yaml") for name in ("routes", "scaling", "prices")]
    ended = await pennyweight("policy", "check", *files, "--json", cwd=ROOT)
    assert (ended.code, ended.err) == (1, "")
    routes, scaling, prices = map(json.loads, ended.out.splitlines())
    assert [one["holds"] for one in (routes, scaling, prices)] == ["routes", "scaling", "prices"]
    assert [one["good"] for one in (routes, scaling, prices)] == [False] * 3
    (problem,) = routes["problems"]
    assert (problem["key"], problem["value"]) == (
        "routes.support-chat.quality.tolerance",
        "'1e-2'",
    )
    (problem,) = scaling["problems"]
    assert problem["rule"] == "must not exceed the number of slots, 2"
    ended = await pennyweight("policy", "check", files[1], cwd=ROOT)
    lines = (policies / "scaling.yaml").read_text().splitlines()
    line = next(number for number, text in enumerate(lines, 1) if "size: 7 " in text)
    assert ended.code == 1
    line = line_of("size: 7 ", policies / "scaling.yaml")
    assert ended.out == (
        f"{files[1]} would be refused:\n"
        f"  line {line}: pools.small-cpu.size: must not exceed the number of slots, 2, got 7\n"
    )


async def test_routes_are_checked_with_their_prices_and_models(policies: Path) -> None:
    routes = str(policies / "routes.yaml")
    change(policies / "prices.yaml", "  large", "  huge")
    ended = await pennyweight("policy", "check", routes, cwd=ROOT)
    assert ended.code == 1
    assert "tiers.large: has no price in " in ended.out
    prices = str(POLICIES / "prices.yaml")
    ended = await pennyweight("policy", "check", routes, "--prices", prices, cwd=ROOT)
    assert (ended.code, ended.out) == (0, f"{routes}: a router would take these routes.\n")
    (policies.parent / "model_repository").unlink()
    ended = await pennyweight("policy", "check", routes, "--prices", prices, cwd=ROOT)
    assert ended.code == 1
    assert "cannot load the tokenizer" in ended.out
    ended = await pennyweight(
        "policy", "check", routes, "--prices", prices, "--no-models", cwd=ROOT
    )
    assert ended.code == 0
    scaling = str(policies / "scaling.yaml")
    assert (await pennyweight("policy", "check", scaling, cwd=ROOT)).code == 1
    assert (await pennyweight("policy", "check", scaling, "--no-models", cwd=ROOT)).code == 0


async def test_cores_are_those_of_the_machine_that_the_pools_run_on(policies: Path) -> None:
    scaling = str(policies / "scaling.yaml")
    change(policies / "scaling.yaml", "cpus: []", "cpus: [9999]")
    assert (await pennyweight("policy", "check", scaling, cwd=ROOT)).code == 0
    ended = await pennyweight("policy", "check", scaling, "--this-machine", cwd=ROOT)
    assert ended.code == 1
    assert "must be cores that this machine has, 0" in ended.out
    assert ended.out.endswith(", got 9999\n")


@pytest.mark.parametrize(
    ("text", "said"),
    [("other: 1\n", "is no policy file."), ("", "is no policy file."), (None, "cannot be read")],
)
async def test_what_is_no_policy_file_cannot_be_checked(
    tmp_path: Path, text: str | None, said: str
) -> None:
    if text is not None:
        (tmp_path / "file.yaml").write_text(text)
    ended = await pennyweight("policy", "check", str(tmp_path / "file.yaml"), cwd=ROOT)
    assert (ended.code, ended.out) == (2, "")
    assert said in ended.err


async def test_a_broken_file_is_told_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "file.yaml").write_text("pools:\n  a: [\n")
    ended = await pennyweight("policy", "check", str(tmp_path / "file.yaml"), cwd=ROOT)
    assert ended.code == 1
    assert "line 3: not valid YAML" in ended.out
    ended = await pennyweight(
        "policy", "check", str(tmp_path / "file.yaml"), "--kind", "prices", cwd=ROOT
    )
    assert ended.code == 1


async def test_outside_the_source_tree_it_says_where_to_run_it(tmp_path: Path) -> None:
    environment = {"PYTHONPATH": str(only_the_package(tmp_path))}
    ended = await pennyweight("policy", "check", "routes.yaml", cwd=tmp_path, **environment)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == (
        "Checking policy files needs Pennyweight's source tree.\n"
        "Run it in the folder that holds services/.\n"
    )


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (
            "tier: large",
            "tier: lage",
            "must be a tier of the routes (large, small), got 'lage'",
        ),
        ("precision: int8", "precision: int4", "must be the precision of tier small, int8, got"),
    ],
)
async def test_pools_that_serve_no_tier_are_told(
    policies: Path, old: str, new: str, problem: str
) -> None:
    scaling = policies / "scaling.yaml"
    change(scaling, old, new)
    tier = "large" if "large" in old else "small"
    for asked in ("scaling", "routes"):  # the other is found beside it
        file = policies / f"{asked}.yaml"
        ended = await pennyweight("policy", "check", str(file), cwd=ROOT)
        assert ended.code == 1
        assert ended.out.startswith(f"{scaling} does not go with its routes:\n")
        assert problem in ended.out
        assert f"must serve tier {tier} of the routes" in ended.out
    (policies / "elsewhere").mkdir()
    apart = scaling.rename(policies / "elsewhere" / "scaling.yaml")
    alone = ("policy", "check", "--no-models", str(apart))
    ended = await pennyweight(*alone, cwd=ROOT)
    assert ended.code == 0
    assert "note: pools: their tiers were not checked: no routes.yaml lies beside it" in ended.out
    named = ("--routes", str(policies / "routes.yaml"))
    assert (await pennyweight(*alone, *named, cwd=ROOT)).code == 1
    told = await pennyweight("scaler", "check", "--no-models", str(apart), *named, cwd=ROOT)
    assert (told.code, problem in told.out) == (1, True)
    change(policies / "prices.yaml", "  large", "  huge")
    ended = await pennyweight(*alone, *named, cwd=ROOT)
    assert "were not checked: " in ended.out
    assert "routes.yaml or its prices would be refused" in ended.out
    change(policies / "prices.yaml", "  huge", "  large")
    assert (await pennyweight(*alone, str(policies / "routes.yaml"), cwd=ROOT)).code == 1


async def test_prices_are_checked_with_the_routes_beside_them(policies: Path) -> None:
    prices = policies / "prices.yaml"
    change(prices, "  large", "  huge")
    ended = await pennyweight("policy", "check", str(prices), cwd=ROOT)
    assert ended.code == 1
    assert f"tiers.large: has no price in {prices}" in ended.out
    (policies / "routes.yaml").rename(policies / "other.yaml")
    ended = await pennyweight("policy", "check", str(prices), cwd=ROOT)
    assert (ended.code, ended.out) == (0, f"{prices}: a router would take these prices.\n")


async def test_what_else_a_file_needs_is_a_note_and_no_fault(policies: Path) -> None:
    scaling = policies / "scaling.yaml"
    query = "queries: {busy: {query: sum(busy), target: 70}}"
    change(scaling, "      work: null ", f"      {query}\n      work: null ")
    change(scaling, "      min: 1", "      min: 0")
    change(scaling, "size: 1  ", "size: 0  ")
    scaling.write_text(scaling.read_text() + "    scale:\n")
    ended = await pennyweight("policy", "check", str(scaling), cwd=ROOT)
    assert (ended.code, ended.err) == (0, "")
    good, *notes = ended.out.splitlines()
    assert good == f"{scaling}: a scaler would take these pools."
    begin = "  note: line "
    assert [note.startswith(begin) for note in notes] == [True] * 4
    found = [note.removeprefix(begin).partition(": ")[2] for note in notes]
    assert found == [
        "pools.small-cpu.scale.min: counts as 1 without `zero`: one replica always stays, got 0",
        f"pools.small-cpu.scale.queries: {QUERIES}",
        "pools.small-cpu.size: the pool begins with 1, as scale keeps it from 1 to 2, got 0",
        f"pools.large-cpu.scale: {EMPTY}",
    ]
    ended = await pennyweight("policy", "check", str(scaling), "--json", cwd=ROOT)
    shown = json.loads(ended.out)
    assert (shown["good"], len(shown["notes"])) == (True, 4)


@pytest.mark.parametrize(
    ("name", "said"),
    [("nosuch.yaml", "No such file or directory"), (".", "Is a directory")],
)
async def test_a_file_that_is_none_is_told_in_words(tmp_path: Path, name: str, said: str) -> None:
    file = tmp_path / name
    for command in (("policy", "check"), ("scaler", "check")):
        ended = await pennyweight(*command, str(file), cwd=ROOT)
        assert (ended.code, ended.out) == (2, "")
        assert ended.err == f"{file} cannot be read: {said}.\n"
