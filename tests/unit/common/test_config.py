"""Configuration: what is wrong is said with place, key, rule and value."""

from dataclasses import field
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field
from pydantic.dataclasses import dataclass

from services.common.config import (
    STRICT,
    ConfigError,
    die,
    from_environment,
    load_document,
    parse_document,
    prefix_of,
)
from services.common.server_settings import ServerSettings

PREFIX = "PENNYWEIGHT_SHOP_"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Settings:
    name: str = "corner"
    shelves: Annotated[int, Field(ge=1)] = 3
    folder: Path | None = None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Shelf:
    label: str
    height_cm: Annotated[float, Field(gt=0)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Shop:
    shelves: tuple[Shelf, ...] = ()
    prices: dict[str, float] = field(default_factory=dict)


def problems_of(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_document(text, Shop, source="shop.yaml")
    assert caught.value.source == "shop.yaml"
    return caught.value.problems


def test_the_environment_is_read_and_converted() -> None:
    environ = {f"{PREFIX}SHELVES": "7", f"{PREFIX}FOLDER": "/srv", "OTHER": "x"}
    assert from_environment(Settings, PREFIX, environ) == Settings(shelves=7, folder=Path("/srv"))
    assert prefix_of("shop") == PREFIX


def test_an_empty_variable_is_an_unset_one() -> None:
    assert from_environment(Settings, PREFIX, {f"{PREFIX}SHELVES": ""}) == Settings()


def test_every_wrong_variable_is_named_with_rule_and_value() -> None:
    environ = {f"{PREFIX}SHELVES": "0", f"{PREFIX}SHELFS": "3"}
    with pytest.raises(ConfigError) as caught:
        from_environment(Settings, PREFIX, environ)
    assert caught.value.problems == [
        "PENNYWEIGHT_SHOP_SHELFS: no such setting",
        "PENNYWEIGHT_SHOP_SHELVES: must be at least 1, got '0'",
    ]


def test_a_misspelt_variable_alone_stops_the_start() -> None:
    with pytest.raises(ConfigError, match="PENNYWEIGHT_SHOP_SHELFS: no such setting"):
        from_environment(Settings, PREFIX, {f"{PREFIX}SHELFS": "3"})


def test_a_rule_over_several_settings_is_said_plainly() -> None:
    environ = {f"{PREFIX}LISTEN": "0.0.0.0:1"}
    with pytest.raises(ConfigError) as caught:
        from_environment(ServerSettings, PREFIX, environ)
    (problem,) = caught.value.problems
    assert problem.startswith("PENNYWEIGHT_SHOP_*: ")
    assert problem.endswith("listen: 0.0.0.0:1 is not loopback, so keys_file must be set")


@pytest.mark.parametrize("listen", ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "example.com:1", ":1"])
def test_without_a_key_file_only_loopback_is_served(listen: str) -> None:
    with pytest.raises(ValueError, match="keys_file must be set"):
        ServerSettings(listen=listen)
    assert ServerSettings(listen=listen, keys_file=Path("keys.yaml")).listen == listen


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "localhost:1", "[::1]:1", "unix:/tmp/socket"])
def test_loopback_needs_no_key_file(listen: str) -> None:
    assert ServerSettings(listen=listen).keys_file is None


@pytest.mark.parametrize("name", ["listen", "metrics_listen"])
@pytest.mark.parametrize("port", ["65536", "99999", "-1", "http", "", "08"])
def test_a_port_that_is_none_stops_the_start(name: str, port: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}: must end in a port from 0 to 65535"):
        from_environment(ServerSettings, "P_", {f"P_{name.upper()}": f"127.0.0.1:{port}"})


@pytest.mark.parametrize("port", ["0", "1", "9999", "65535"])
def test_a_port_that_is_one_passes(port: str) -> None:
    settings = from_environment(ServerSettings, "P_", {"P_LISTEN": f"[::1]:{port}"})
    assert settings.listen == f"[::1]:{port}"


def test_a_certificate_needs_its_key() -> None:
    with pytest.raises(ValueError, match="go together"):
        ServerSettings(tls_certificate=Path("a.pem"))


def test_a_document_is_read() -> None:
    text = "shelves:\n  - {label: top, height_cm: 30}\nprices: {bread: 250}\n"
    shop = parse_document(text, Shop, source="shop.yaml").content
    assert shop == Shop(shelves=(Shelf(label="top", height_cm=30.0),), prices={"bread": 250})


def test_an_empty_document_has_the_defaults() -> None:
    assert parse_document("# nothing\n", Shop, source="shop.yaml").content == Shop()


def test_a_broken_rule_is_named_with_line_key_rule_and_value() -> None:
    text = "shelves:\n  - label: top\n    height_cm: 30\n  - label: low\n    height_cm: -1\n"
    assert problems_of(text) == ["line 5: shelves.1.height_cm: must be more than 0, got -1"]


def test_every_problem_is_told_at_once() -> None:
    text = "prices:\n  bread: cheap\nshelfs: []\nshelves:\n  - label: top\n"
    first, second, third = problems_of(text)
    assert first == "line 5: shelves.0.height_cm: is missing"
    assert second.startswith("line 2: prices.bread: must be a number in plain digits")
    assert second.endswith("got 'cheap'")
    assert third == "line 3: shelfs: no such key; did you mean shelves? There are shelves, prices"


def test_a_repeated_key_is_refused_at_any_depth() -> None:
    text = "prices: {bread: 1, milk: 2}\nshelves:\n  - label: a\n    height_cm: 1\n    label: b\n"
    assert problems_of(text) == ["line 5: shelves.0.label: appears twice, first in line 3"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("shelves: [\n", "line 2: not valid YAML: expected the node content"),
        ("a: b: c\n", "line 1: not valid YAML: mapping values are not allowed here"),
        ("a: 1\n---\nb: 2\n", "line 2: not valid YAML: but found another document"),
        ("prices: {bread: 2024-13-45}\n", "line 1: prices.bread: must be a number"),
        ("prices: {[a]: 1}\n", "line 1: a key must be text"),
        ("prices: &loop {again: *loop}\n", "line 1: an alias leads back to what it is part of"),
        ("[" * 5000, "line 1: nested more than 32 levels deep"),
        ("shelves: \x00\n", "not valid YAML: "),
        (
            "!!python/object:os.system {}\n",
            "line 1: tags are not taken, got 'tag:yaml",
        ),
        ("- 1\n", "line 1: "),
        ("just text\n", "line 1: "),
        ("1: 2\n", "line 1: "),
    ],
)
def test_what_is_no_fitting_document_is_refused_with_its_line(text: str, problem: str) -> None:
    assert problem in problems_of(text)[0]


def test_a_rule_over_several_values_is_named_with_its_line() -> None:
    text = "prices:\n  bread: 1\nshelves:\n  - {label: a, height_cm: 1}\n"
    document = parse_document(text, Shop, source="shop.yaml")
    document.refuse([])
    with pytest.raises(ConfigError) as caught:
        document.refuse([(("shelves", 0, "label"), "no good"), (("prices", "milk"), "is missing")])
    assert caught.value.source == "shop.yaml"
    assert caught.value.problems == [
        "line 4: shelves.0.label: no good",
        "line 1: prices.milk: is missing",
    ]


def test_a_long_value_is_shortened() -> None:
    (problem,) = problems_of(f"prices: {{bread: {'x' * 500}}}\n")
    assert len(problem) < 300
    assert problem.endswith("...")


def test_a_document_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_document(tmp_path / "none.yaml", Shop)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(ConfigError, match=r"binary\.yaml: cannot be read"):
        load_document(tmp_path / "binary.yaml", Shop)


def test_bad_configuration_ends_the_process_with_status_2(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as caught:
        die(ConfigError("shop.yaml", ["line 1: a: b", "line 2: c: d"]))
    assert caught.value.code == 2
    assert capsys.readouterr().err == (
        "pennyweight: bad configuration in shop.yaml\n  line 1: a: b\n  line 2: c: d\n"
    )


def test_a_key_as_others_spell_it_is_answered_with_ours() -> None:
    for key, meant in (("heightCm", "height_cm"), ("labelText", "label")):
        text = f"shelves:\n  - label: a\n    height_cm: 1\n    {key}: 1\n"
        (problem,) = problems_of(text)
        rule = f"no such key; did you mean {meant}? There are label, height_cm"
        assert problem == f"line 4: shelves.0.{key}: {rule}"
