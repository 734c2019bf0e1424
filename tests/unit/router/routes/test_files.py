"""Policy files are refused with file, line, key, rule and value, or taken whole."""

from dataclasses import fields, replace
from pathlib import Path

import pytest

from services.common.config import ConfigError
from services.router.policy.routes import (
    CachePolicy,
    Cancel,
    EvidencePolicy,
    Price,
    Quality,
    QualityOptions,
    RouteOptions,
    TierOptions,
)
from services.router.routes.files import PolicyFiles, read_routes
from tests.making.policy_folder import LADDERED, PRICES, ROUTES, Files


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_files_become_policies(files: Files, tmp_path: Path) -> None:
    loaded = files.load()
    small, large = loaded.tiers["small"], loaded.tiers["large"]
    assert small.tokenizer == str(tmp_path / "models/small")  # beside policies/, wherever we run
    assert large.tokenizer == "/models/large"
    assert (small.cancel, large.cancel) == (Cancel.ABORT, Cancel.DRAIN)
    assert (small.price, large.queue_size) == (Price(100_000, 400_000), 7)
    chat, theirs = loaded.routes["chat"], loaded.routes["theirs"]
    assert chat.ladder == (small, large)
    assert chat.fixed_tier is small
    assert chat.cache == CachePolicy(use=True, ttl_seconds=60, wait_seconds=1)
    assert not theirs.cache.use
    assert theirs.tenants == {"acme"}


def test_every_key_of_the_file_is_a_field_of_what_it_means(files: Files) -> None:
    loaded = files.load(LADDERED)
    declared = read_routes(files.routes)
    good, entry = loaded.routes["good"], declared.routes["good"]
    for field in fields(RouteOptions):
        assert getattr(good, field.name) == getattr(entry, field.name)
    assert good.quality is not None
    for field in fields(QualityOptions):
        assert getattr(good.quality, field.name) == getattr(entry.quality, field.name)
    large, options = loaded.tiers["large"], declared.tiers["large"]  # its tokenizer is absolute
    for field in fields(TierOptions):
        assert getattr(large, field.name) == getattr(options, field.name)


def test_equal_files_are_equal_versions_and_others_are_not(files: Files) -> None:
    version = files.load().version
    assert files.load().version == version
    assert files.load(prices=PRICES.replace("100000", "100001")).version != version
    assert files.load(routes=ROUTES + "# a remark\n").version != version


def test_the_policies_of_the_tree_are_good() -> None:
    folder = Path(__file__).parents[4] / "policies"
    loaded = PolicyFiles(folder / "routes.yaml", folder / "prices.yaml").load()
    assert loaded.routes
    for tier in loaded.tiers.values():
        assert Path(tier.tokenizer).is_relative_to(folder.parent)


def test_the_new_route_of_the_tree_shows_every_key_and_says_what_is_the_default() -> None:
    folder = Path(__file__).parents[4] / "policies"
    route = (
        PolicyFiles(folder / "routes.yaml", folder / "prices.yaml").load().routes["support-trial"]
    )
    artefact = str(folder / "calibration/support-trial.json")
    shown = EvidencePolicy(share_until_calibrated=1.0, most_running=16)
    assert route.quality is not None
    asked = replace(route.quality, calibration=None)  # whoever tries it calibrates it
    assert asked == Quality(tolerance=0.05, artefact=artefact, evidence=shown)
    assert not route.trimming.on


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "fixed_tier: small",
            "fixed_tier: tiny",
            ["line 17: ", "routes.chat.fixed_tier: ", "not in the ladder", "'tiny'"],
        ),
        (
            "ladder: [small, large]",
            "ladder: [small, huge]",
            ["line 16: ", "routes.chat.ladder: ", "no such tier", "'huge'"],
        ),
        (
            "ladder: [small, large]",
            "ladder: [small, small]",
            ["line 16: ", "routes.chat.ladder: ", "a tier twice", "['small', 'small']"],
        ),
        (
            "default: 64",
            "default: 257",
            ["line 18: ", "routes.chat.output_tokens.default: ", "more than most (256)", "257"],
        ),
        ("ladder: [large]", "ladder: []", ["line 21: ", "routes.theirs.ladder: ", "got []"]),
        (
            "queue_size: 7",
            "queue: 7",
            [
                "line 13: ",
                "tiers.large.queue: ",
                "no such key; did you mean queue_size? There are model, precision",
            ],
        ),
        (
            "    tenants: [acme]",
            "    tenants: acme",
            ["line 23: ", "routes.theirs.tenants", "must be a list", "'acme'"],
        ),
        ("tenants: [acme]", "tenants: [ACME]", ["line 23: ", "theirs.tenants.0", "'ACME'"]),
        (
            "max_sequence_tokens: 512",
            "max_sequence_tokens: many",
            ["line 6: ", "tiers.small.max_sequence_tokens: ", "whole number", "'many'"],
        ),
        (
            "max_sequence_tokens: 512",
            "max_sequence_tokens: 0",
            ["line 6: ", "tiers.small.max_sequence_tokens: ", "must be at least 1"],
        ),
        ("cancel: drain", "cancel: crash", ["line 12: ", "tiers.large.cancel: ", "'crash'"]),
        ("ttl_seconds: 60", "ttl_seconds: -1", ["line 19: ", "routes.chat.cache.ttl_seconds: "]),
        ("ttl_seconds: 60", "ttl_seconds: .nan", ["line 19: ", "routes.chat.cache.ttl_seconds: "]),
        ("use: true", "use: perhaps", ["line 19: ", "routes.chat.cache.use: ", "'perhaps'"]),
        ("    precision: fp8\n", "", ["line 7: ", "tiers.large.precision: ", "is missing"]),
        ("  small:\n", "  Small Tier:\n", ["line 2: ", "Small Tier"]),
        ("  theirs:", "  chat:", ["line 20: ", "chat: appears twice"]),
    ],
)
def test_a_wrong_route_file_is_refused(files: Files, old: str, new: str, said: list[str]) -> None:
    assert old in ROUTES
    with pytest.raises(ConfigError) as caught:
        files.load(routes=ROUTES.replace(old, new, 1))
    assert caught.value.source == str(files.routes)
    (problem,) = caught.value.problems
    for part in said:
        assert part in problem


def test_a_tier_without_a_price_is_refused(files: Files) -> None:
    with pytest.raises(ConfigError) as caught:
        files.load(prices="tiers:\n  small: {prompt: 1, output: 1}\n")
    assert caught.value.problems == [f"line 7: tiers.large: has no price in {files.prices}"]


@pytest.mark.parametrize(
    ("prices", "said"),
    [
        ("tiers:\n  small: {prompt: -1, output: 1}\n", "line 2: tiers.small.prompt: "),
        ("tiers:\n  small: {prompt: 1.5, output: 1}\n", "line 2: tiers.small.prompt: "),
        ("tiers:\n  small: {prompt: 1}\n", "line 2: tiers.small.output: "),
        ("tiers: {}\ncurrency: euro\n", "line 2: currency: "),
        *(
            (f"tiers:\n  small: {{prompt: {price}, output: 1}}\n", "line 2: tiers.small.prompt: ")
            for price in (
                *("0400000", "6:40", "no", "true", "1_000", "1e6", "0x10", ".inf", "'5'", "", "+5"),
                *(10**12 + 1, 10**19, 10**25, "9" * 5000),
            )
        ),
    ],
)
def test_a_wrong_price_file_is_refused(files: Files, prices: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        files.load(prices=prices)
    assert caught.value.source == str(files.prices)
    assert any(problem.startswith(said) for problem in caught.value.problems)


def test_all_that_is_wrong_is_said_at_once(files: Files) -> None:
    wrong = ROUTES.replace("fixed_tier: small", "fixed_tier: tiny").replace("[large]", "[huge]")
    with pytest.raises(ConfigError) as caught:
        files.load(routes=wrong)
    assert len(caught.value.problems) == 3


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.yaml.*cannot be read"):
        PolicyFiles(tmp_path / "absent.yaml", tmp_path / "prices.yaml").load()
