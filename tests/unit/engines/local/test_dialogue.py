import json
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from engines.local.answers import OUT_OF_SCOPE, load_answers
from engines.local.dialogue import Corpus, Question, conversation, epoch_questions, load_corpus
from engines.recipes import RECIPES


@pytest.fixture
def data(tmp_path: Path) -> Path:
    banking, clinc = tmp_path / "banking77", tmp_path / "clinc150"
    banking.mkdir()
    clinc.mkdir()
    rows = "".join(f'"Where is card {i}, please?",card_arrival\n' for i in range(40))
    (banking / "train.csv").write_text("text,category\n" + rows)
    (banking / "test.csv").write_text("text,category\nWhere is it?,card_arrival\n")
    weather = [["will it rain", "weather"]]
    content = {
        "train": [*weather * 5, ["freeze it", "freeze_account"]],
        "val": weather * 3,
        "test": weather,
        "oos_test": [["why is the sky blue", "oos"]],
    }
    (clinc / "data_full.json").write_text(json.dumps(content))
    return tmp_path


def test_the_test_split_is_never_trained_on(data: Path) -> None:
    corpus = load_corpus(data, seed=1)
    seen = {q.text for q in (*corpus.train, *corpus.other, *corpus.validation)}
    assert "Where is it?" not in seen
    assert "why is the sky blue" not in seen
    assert not {q.text for q in corpus.train} & {q.text for q in corpus.validation}
    assert len(corpus.train) == 38


def test_bank_like_questions_are_not_out_of_scope(data: Path) -> None:
    corpus = load_corpus(data, seed=1)
    assert {(q.text, q.intent) for q in corpus.other} == {("will it rain", OUT_OF_SCOPE)}


@pytest.mark.parametrize("name", ["banking77/train.csv", "clinc150/data_full.json"])
def test_missing_data_says_which_file(data: Path, name: str) -> None:
    (data / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"--data: .*{Path(name).name} is missing"):
        load_corpus(data, seed=1)


def test_an_epoch_has_every_banking_question_once(data: Path) -> None:
    corpus = load_corpus(data, seed=1)
    questions = epoch_questions(corpus, 3, Random(5))
    assert len(questions) == len(corpus.train) + 3
    assert set(corpus.train) <= set(questions)


def test_conversations_vary_but_end_with_the_question() -> None:
    earlier = Question("How old must I be?", "age_limit")
    corpus = Corpus([earlier], [Question("will it rain", "out_of_scope")] * 3, [], {})
    question = Question("Where is my card?", "card_arrival")
    random = Random(9)
    recipe = replace(RECIPES["small"], lost_words=0.0)
    seen = [conversation(question, corpus, load_answers(), recipe, random) for _ in range(200)]
    for turns in seen:
        role, content = turns[-1]
        assert role == "user"
        assert content.lower().rstrip("?") == "where is my card"
        assert all(role != "system" for role, _ in turns[1:])
    assert any(turns[0][0] == "system" for turns in seen)
    assert any(("assistant", load_answers()["age_limit"]) in turns for turns in seen)
    assert any(len(turns) == 1 for turns in seen)
