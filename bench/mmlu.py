"""How well predicted difficulty chooses between Mixtral-8x7B and GPT-4 on MMLU's questions.

RouteLLM's table says of 14,042 questions whether each model was right. Five folds by question: a
model is fitted on four (its penalty chosen within them, by `services.router.calibrate.fit`) and
ranks the fifth; the ranks of all five are pooled. Nothing is fitted or chosen on the fold that is
measured, except that the kinds of features were compared by cross-validation on the half of the
questions named DESIGN below; the other half, never looked at for that, is printed beside.

APGR is the area under the share of the gap between the models that is won back, over the share of
questions sent to the strong one. A caller's task type is the subject's name here; the figures
printed without it use the question's text alone.
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold

from bench import report
from services.router.calibrate.fit import fit_gain
from services.router.policy.difficulty import Signals, features

Floats = NDArray[np.float64]

WEAK, STRONG = "mistralai/Mixtral-8x7B-Instruct-v0.1", "gpt-4-1106-preview"
WANTED = 0.95
"""Share of the strong model's accuracy."""

FOLDS = 5
SEED = 1
RESAMPLES = 400
QUICK_QUESTIONS = 600


@dataclass(frozen=True)
class Question:
    """One question and who was right; `subject` is the file it stands in."""

    text: str
    subject: str
    weak: bool
    strong: bool

    @property
    def design(self) -> bool:
        """Whether features were compared on it."""
        return crc32(self.text.encode()) % 2 == 0


def load(data: Path) -> list[Question]:
    """Every question of the table."""
    return [
        Question(row["prompt"], path.stem, row[WEAK] == "True", row[STRONG] == "True")
        for path in sorted((data / "routellm-mmlu" / "responses").glob("*.csv"))
        for row in _rows(path)
    ]


def _rows(path: Path) -> Iterator[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)


# --- measures ----------------------------------------------------------------------------------


def apgr(score: Floats, weak: Floats, strong: Floats) -> float:
    """Area under the share of the gap won back; the highest scores go to the strong model first."""
    won = np.cumsum((strong - weak)[np.argsort(-score, kind="stable")])
    return float((won.sum() - won[-1] / 2.0) / won[-1] / len(won))


def strong_share(score: Floats, weak: Floats, strong: Floats) -> float:
    """Least share of questions for the strong model at which its accuracy is WANTED, in percent."""
    won = np.cumsum((strong - weak)[np.argsort(-score, kind="stable")])
    enough = weak.sum() + np.concatenate(([0.0], won)) >= WANTED * strong.sum()
    return 100.0 * float(enough.argmax()) / len(won)


def shown(name: str, score: Floats, weak: Floats, strong: Floats) -> tuple[str, ...]:
    """A row of the table, with intervals over resampled questions."""
    random = np.random.default_rng(SEED)
    areas, shares = [], []
    for _ in range(RESAMPLES):
        drawn = random.integers(0, len(score), len(score))
        areas.append(apgr(score[drawn], weak[drawn], strong[drawn]))
        shares.append(strong_share(score[drawn], weak[drawn], strong[drawn]))
    area_low, area_high = np.quantile(areas, (0.025, 0.975))
    share_low, share_high = np.quantile(shares, (0.025, 0.975))
    return (
        name,
        f"{apgr(score, weak, strong):.3f}",
        f"{area_low:.3f}-{area_high:.3f}",
        f"{strong_share(score, weak, strong):.1f} %",
        f"{share_low:.1f}-{share_high:.1f}",
    )


# --- what is compared --------------------------------------------------------------------------


def predicted(questions: Sequence[Question], gains: Floats, *, subject: bool) -> Floats:
    """The gain that the router's own model predicts for each question, fitted without it."""
    found = [
        features(one.text, Signals(task_type=one.subject if subject else None)) for one in questions
    ]
    scores = np.zeros(len(questions))
    for number, (train, test) in enumerate(_folds(len(questions))):
        report.say(f"fold {number + 1} of {FOLDS}, {'with' if subject else 'without'} the subject")
        ones = np.ones(len(train))
        fitted = fit_gain([found[at] for at in train], gains[train], ones, seed=SEED)
        if fitted is not None:
            scores[test] = [fitted.model.gain(found[at]) for at in test]
    return scores


def baseline(questions: Sequence[Question], gains: Floats) -> Floats:
    """TF-IDF and logistic regression on "strong right and weak wrong"."""
    scores = np.zeros(len(questions))
    texts = np.array([one.text for one in questions], dtype=object)
    for train, test in _folds(len(questions)):
        words = TfidfVectorizer(sublinear_tf=True, min_df=2, ngram_range=(1, 2))
        model = LogisticRegression(C=1.0, solver="liblinear")
        model.fit(words.fit_transform(texts[train]), gains[train] > 0)
        scores[test] = model.decision_function(words.transform(texts[test]))
    return scores


def _folds(count: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    yield from KFold(FOLDS, shuffle=True, random_state=SEED).split(np.arange(count))


def run(*, quick: bool, data: Path) -> None:
    """Fits, ranks and prints."""
    questions = load(data)
    if not questions:
        report.say(f"mmlu: {data} holds no routellm-mmlu/responses/*.csv; name it with --data")
        return
    if quick:
        questions = questions[:: len(questions) // QUICK_QUESTIONS]
    weak = np.array([one.weak for one in questions], dtype=float)
    strong = np.array([one.strong for one in questions], dtype=float)
    gains = strong - weak
    design = np.array([one.design for one in questions])
    report.say("TF-IDF and logistic regression")
    simple = baseline(questions, gains)
    plain = predicted(questions, gains, subject=False)
    full = predicted(questions, gains, subject=True)
    random = np.random.default_rng(SEED).random(len(questions))
    unseen = ~design
    report.table(
        f"Mixtral-8x7B ({weak.mean():.1%}) or GPT-4 ({strong.mean():.1%}): "
        f"{len(questions):,} questions of MMLU",
        ("ranked by", "APGR", "95 % interval", f"strong for {WANTED:.0%}", "95 % interval"),
        [
            shown("chance", random, weak, strong),
            shown("TF-IDF + logistic regression", simple, weak, strong),
            shown("predicted gain, text alone", plain, weak, strong),
            shown("predicted gain, text and subject", full, weak, strong),
            shown("  questions not designed on", full[unseen], weak[unseen], strong[unseen]),
            shown("oracle", gains, weak, strong),
        ],
        note=(
            "Source: RouteLLM's MMLU responses (Apache-2.0). Strong for 95 %: least share of"
            " questions sent to\nGPT-4 for 95 % of its accuracy. Reference: chance 0.487 / 68.1 %,"
            " TF-IDF + logistic regression\non the gain 0.684 / 42.6 %, oracle 8.5 %."
        ),
    )
    report.figure("mmlu.apgr", apgr(full, weak, strong), "x")
    report.figure("mmlu.strong_share_at_95", strong_share(full, weak, strong), "%")
