"""What a route asks of its answers is taken from its file, or refused with line, key and rule."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.common.config import ConfigError
from services.router.policy.routes import EvidencePolicy, Hold, JudgeKind, Judging, Limits, Trimming
from tests.making.policy_folder import LADDERED, Files


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_what_a_route_asks_of_its_answers_is_taken(files: Files, tmp_path: Path) -> None:
    loaded = files.load(LADDERED.replace("precision: int8", "precision: int8\n    version: v7"))
    good, plain = loaded.routes["good"], loaded.routes["plain"]
    assert good.fixed_tier is None
    assert good.quality is not None
    assert (good.quality.tolerance, good.quality.confidence) == (0.03, 0.9)
    assert (good.quality.hold, good.quality.first_tokens) == (Hold.TOKENS, 12)
    assert good.quality.run_length == 5000
    assert good.quality.evidence == EvidencePolicy(
        share=0.1,
        share_until_calibrated=0.5,
        keep_text=True,
        most_running=2,
        seconds=30.0,
        judge=Judging(JudgeKind.MODEL, "judge.local:50061", 3.0, 0.0),
    )
    assert good.quality.artefact == str(tmp_path / "policies/calibration/good.json")
    assert good.quality.calibration is None  # there is no such file
    assert good.limits == Limits(micro_usd=500, seconds=20)
    assert good.trimming == Trimming(white_space=True, history_turns=6, passages=4)
    assert plain.quality is not None
    assert plain.quality.evidence == EvidencePolicy()
    assert (plain.limits, plain.trimming) == (Limits(), Trimming())
    assert [tier.version for tier in good.ladder] == ["v7", ""]


def test_a_calibration_may_lie_anywhere(files: Files, tmp_path: Path) -> None:
    for named, found in (
        ("mine.json", tmp_path / "policies/mine.json"),
        ("../up/mine.json", tmp_path / "up/mine.json"),
        ("/somewhere/mine.json", Path("/somewhere/mine.json")),
    ):
        routes = LADDERED.replace("tolerance: 0.02", f"tolerance: 0.02, calibration: {named}")
        quality = files.load(routes).routes["plain"].quality
        assert quality is not None
        assert quality.artefact == str(found)


QUALITY = "routes.good.quality."


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("tolerance: 0.03", "tolerance: 0", f"line 27: {QUALITY}tolerance: "),
        ("tolerance: 0.03", "tolerance: 1", f"line 27: {QUALITY}tolerance: "),
        ("tolerance: 0.03", "tolerance: .nan", f"line 27: {QUALITY}tolerance: "),
        ("      tolerance: 0.03\n", "", f"line 26: {QUALITY}tolerance: "),
        ("confidence: 0.9", "confidence: 0.49", f"line 28: {QUALITY}confidence: "),
        ("confidence: 0.9", "confidence: 1", f"line 28: {QUALITY}confidence: "),
        ("hold: tokens", "hold: nothing", f"line 29: {QUALITY}hold: "),
        ("first_tokens: 12", "first_tokens: 0", f"line 30: {QUALITY}first_tokens: "),
        ("first_tokens: 12", "first_tokens: 257", f"line 30: {QUALITY}first_tokens: "),
        ("run_length: 5000", "run_length: 1", f"line 31: {QUALITY}run_length: "),
        ("run_length: 5000", "run_length: .inf", f"line 31: {QUALITY}run_length: "),
        ("share: 0.1", "share: 1.01", f"line 33: {QUALITY}evidence.share: "),
        ("share_until_calibrated: 0.5", "share_until_calibrated: -0.1", "line 34: "),
        ("keep_text: true", "keep_text: much", f"line 35: {QUALITY}evidence.keep_text: "),
        ("most_running: 2", "most_running: 0", f"line 36: {QUALITY}evidence.most_running: "),
        ("seconds: 30", "seconds: 0", f"line 37: {QUALITY}evidence.seconds: "),
        ("kind: model", "kind: oracle", f"line 38: {QUALITY}evidence.judge.kind: "),
        ("judge.local:50061", "judge.local", f"line 38: {QUALITY}evidence.judge.address: "),
        ("timeout_seconds: 3", "least_similarity: 2", f"line 38: {QUALITY}evidence.judge.least_"),
        (
            "address: judge.local:50061, ",
            "",
            f"line 38: {QUALITY}evidence.judge: kind model needs an address",
        ),
        (
            "kind: model",
            "kind: similarity",
            (
                f"line 38: {QUALITY}evidence.judge.address: only for kind model, "
                "got 'judge.local:50061' with similarity"
            ),
        ),
        ("micro_usd: 500", "micro_usd: 0", "line 39: routes.good.limits.micro_usd: "),
        ("seconds: 20", "seconds: -1", "line 39: routes.good.limits.seconds: "),
        (
            "seconds: 20",
            "seconds: 0.005",
            (
                "line 39: routes.good.limits.seconds: refuses all, "
                "at most deadline.shortest_seconds (0.005), got 0.005"
            ),
        ),
        ("history_turns: 6", "history_turns: 0", "line 40: routes.good.trimming.history_turns: "),
        ("passages: 4", "passages: some", "line 40: routes.good.trimming.passages: "),
        (
            "    quality: {tolerance: 0.02}",
            "    quality: {tolerance: 0.02}\n    fixed_tier: small",
            "line 41: routes.plain: needs exactly one of fixed_tier and quality, got both",
        ),
        (
            "    quality: {tolerance: 0.02}",
            "    limits: {}",
            "line 41: routes.plain: needs exactly one of fixed_tier and quality, got neither",
        ),
        (
            "[small, large]\n    quality: {tol",
            "[large]\n    quality: {tol",
            (
                "line 42: routes.plain.ladder: quality needs at least 2 tiers to choose from, "
                "got ['large']"
            ),
        ),
        (
            "[small, large]\n    quality: {tol",
            "[large, small]\n    quality: {tol",
            (
                "line 42: routes.plain.ladder: cheapest first, but large is dearer than small, "
                "got ['large', 'small']"
            ),
        ),
        ("precision: int8", "precision: int8\n    version: 7", "line 5: tiers.small.version: "),
    ],
)
def test_what_a_route_asks_of_its_answers_is_checked(
    files: Files, old: str, new: str, said: str
) -> None:
    assert LADDERED.count(old) == 1 or old in {"seconds: 30", "precision: int8"}
    with pytest.raises(ConfigError) as caught:
        files.load(routes=LADDERED.replace(old, new, 1))
    (problem,) = caught.value.problems
    assert problem.startswith(said)


@pytest.mark.parametrize(
    ("section", "place"),
    [
        ("  small:\n    ", "tiers.small."),
        ("  good:\n    ", "routes.good."),
        ("    quality:\n      ", QUALITY),
        ("      evidence:\n        ", f"{QUALITY}evidence."),
        ("judge: {", f"{QUALITY}evidence.judge."),
        ("limits: {", "routes.good.limits."),
        ("trimming: {", "routes.good.trimming."),
        ("output_tokens: {", "routes.chat.output_tokens."),
        ("cache: {", "routes.chat.cache."),
        ("routes:\n  ", "routes."),
    ],
)
def test_a_key_that_there_is_not_is_refused_wherever_it_stands(
    files: Files, section: str, place: str
) -> None:
    assert section in LADDERED
    end = ", " if section.endswith("{") else section[section.index("\n") :]
    with pytest.raises(ConfigError) as caught:
        files.load(routes=LADDERED.replace(section, f"{section}misspelt: 7{end}", 1))
    (problem,) = caught.value.problems
    assert f": {place}misspelt: " in problem


def test_a_tier_that_is_dearer_for_prompts_alone_may_stand_below(files: Files) -> None:
    prices = "tiers:\n  small: {prompt: 9, output: 1}\n  large: {prompt: 1, output: 9}\n"
    assert files.load(prices=prices)


@settings(max_examples=100)
@given(cut=st.integers(0, len(LADDERED)), junk=st.sampled_from(["", "\x00", ": [", "\t", "&a *a"]))
def test_a_file_cut_off_anywhere_is_taken_or_refused(
    tmp_path_factory: pytest.TempPathFactory, cut: int, junk: str
) -> None:
    files = Files(tmp_path_factory.mktemp("cut"))
    with contextlib.suppress(ConfigError):
        loaded = files.load(routes=LADDERED[:cut] + junk)
        assert loaded.routes.keys() <= {"chat", "theirs", "good", "plain"}
