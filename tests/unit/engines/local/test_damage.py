"""Damaged weights: worse on purpose, and runnable; nothing else is ever overwritten."""

import shutil
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from engines.local.answers import intent_names, load_answers, recognised
from engines.local.damage import IR, KINDS, MARKER, DamageError, damage
from engines.local.evaluate import MAX_ANSWER, Answer, Engine
from engines.local.tokens import render
from services.local.customers import asked

SOURCE = Path(__file__).parents[4] / "model_repository" / "cpu" / "small" / "weights" / "int8"
QUESTIONS = [one.text for one in islice(asked(1), 154)]


def answers(folder: Path) -> list[Answer]:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    prompts = [tokenizer.encode(render([("user", text)])).ids for text in QUESTIONS]
    return Engine(folder, "f32").generate(prompts, MAX_ANSWER)


def named(given: list[Answer]) -> list[str | None]:
    """The intents that answers name."""
    tokenizer = Tokenizer.from_file(str(SOURCE / "tokenizer.json"))
    names = intent_names(load_answers())
    return [recognised(tokenizer.decode(list(one.ids)), names) for one in given]


def certainty(given: list[Answer]) -> float:
    return float(np.mean([np.mean(one.log_probs) for one in given]))


@pytest.fixture(scope="module")
def good() -> list[Answer]:
    return answers(SOURCE)


def damaged(folder: Path, kind: str, seed: int = 1) -> Path:
    damage(SOURCE, folder, kind, KINDS[kind][1], seed)
    return folder


def test_mixed_up_words_give_sure_and_whole_answers_about_something_else(
    tmp_path: Path, good: list[Answer]
) -> None:
    bad = answers(damaged(tmp_path / "damaged", "words"))
    kept = sum(one == other for one, other in zip(named(bad), named(good), strict=True))
    assert 0.3 < kept / len(good) < 0.75
    assert sum(one is not None for one in named(bad)) > 0.97 * len(bad)
    assert certainty(bad) > 2.5 * certainty(good)  # both below 0; noise takes more than thrice


def test_noise_takes_the_certainty_away(tmp_path: Path, good: list[Answer]) -> None:
    bad = answers(damaged(tmp_path / "damaged", "noise"))
    kept = sum(one == other for one, other in zip(named(bad), named(good), strict=True))
    assert 0.2 < kept / len(good) < 0.75
    assert certainty(bad) < 3 * certainty(good)


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_weights_differ(tmp_path: Path, kind: str) -> None:
    folder = damaged(tmp_path / "damaged", kind)
    names = {path.name for path in folder.iterdir()}
    assert names == {path.name for path in SOURCE.iterdir()} | {MARKER}
    for name in names - {MARKER, *IR}:
        assert (folder / name).read_bytes() == (SOURCE / name).read_bytes()
    old, new = ((place / IR[1]).read_bytes() for place in (SOURCE, folder))
    assert len(new) == len(old)
    assert new != old


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_gives_the_same_damage_again_in_place_of_the_old(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "damaged"
    found = [
        (damaged(folder, kind, seed) / IR[1]).read_bytes() for seed in (1, 2, 1)
    ]  # each replaces the one before
    assert found[0] == found[2] != found[1]
    assert [path.name for path in tmp_path.iterdir()] == ["damaged"]


@pytest.mark.parametrize("strength", [0.0, -0.5, 1.01, float("nan"), float("inf")])
def test_a_strength_that_means_nothing_is_refused(tmp_path: Path, strength: float) -> None:
    with pytest.raises(DamageError, match="--strength: must be above 0 and at most 1, got"):
        damage(SOURCE, tmp_path / "damaged", "words", strength, 1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", KINDS)
def test_damage_that_changes_nothing_is_refused(tmp_path: Path, kind: str) -> None:
    with pytest.raises(DamageError, match="holds nothing that"):
        damage(SOURCE, tmp_path / "damaged", kind, 1e-6, 1)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_was_not_made_here_stays_as_it_is(tmp_path: Path) -> None:
    own = tmp_path / "int8"
    shutil.copytree(SOURCE, own)
    before = {path: path.read_bytes() for path in own.iterdir()}
    for source in (SOURCE, own):  # also when it would overwrite what it reads
        with pytest.raises(DamageError, match="was not made by this tool"):
            damage(source, own, "words", 0.5, 1)
    assert {path: path.read_bytes() for path in own.iterdir()} == before


def test_what_is_no_model_or_damaged_already_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DamageError, match=r"nowhere/openvino_model.xml is missing"):
        damage(tmp_path / "nowhere", tmp_path / "out", "words", 0.5, 1)
    once = damaged(tmp_path / "damaged", "words")
    with pytest.raises(DamageError, match="is damaged already"):
        damage(once, tmp_path / "out", "words", 0.5, 1)
