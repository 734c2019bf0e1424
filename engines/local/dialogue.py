# ruff: noqa: S311 -- repeatable draws are the point
"""Training and test conversations, from BANKING77 and CLINC150.

BANKING77 gives the bank's customers; CLINC150's questions from other walks of life, and its
questions that fit no intent at all, give what a bank's assistant cannot help with.
"""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from engines.local.answers import OUT_OF_SCOPE
from engines.local.tokens import Turn
from engines.recipes import Recipe

# CLINC150's banking and credit-card domains, and intents that a bank's customer might mean.
BANK_LIKE = frozenset(
    (
        *("account_blocked", "apr", "application_status", "balance", "bill_balance", "bill_due"),
        *("card_declined", "credit_limit", "credit_limit_change", "credit_score", "damaged_card"),
        *("direct_deposit", "exchange_rate", "expiration_date", "freeze_account"),
        *("improve_credit_score", "interest_rate", "international_fees", "min_payment"),
        *("new_card", "order_checks", "pay_bill", "pin_change", "redeem_rewards"),
        *("replacement_card_duration", "report_fraud", "report_lost_card", "rewards_balance"),
        *("routing", "spending_history", "transactions", "transfer"),
    )
)

# Shares of the training conversations that vary in each way.
LOWER_CASE = 0.2
ANY_WORDS = 0.5  # of the system prompts
NO_CLOSING_MARK = 0.2
TIDY = 0.1  # of the rest: a capital first and a question mark last

SYSTEM_SENTENCES = (
    "You are a helpful assistant.",
    "You are a bank's support assistant.",
    "You are a friendly customer service agent for a mobile bank.",
    "You work for the support team of a bank.",
    "Answer the customer's question in one sentence.",
    "Be brief and polite.",
    "Be concise.",
    "Answer in English.",
    "Do not ask for passwords or card numbers.",
    "Name the intent first, then help.",
    "If you cannot help, say so.",
    "Only answer questions about the account, cards, transfers and payments.",
    "Think carefully before you answer.",
    "Today the support desk is open from 8 to 18.",
    "The customer has a standard plan.",
    "Never promise a refund.",
)


@dataclass(frozen=True)
class Question:
    """What a customer asked and the intent a person gave it."""

    text: str
    intent: str


@dataclass(frozen=True)
class Corpus:
    """Every question, split by use: nothing in `tests` is ever trained or tuned on."""

    train: Sequence[Question]
    other: Sequence[Question]  # out of scope, for training; far more than one epoch wants
    validation: Sequence[Question]
    tests: Mapping[str, Sequence[Question]]  # by name: banking, other-domains, out-of-scope


def load_corpus(data: Path, seed: int) -> Corpus:
    """Read the folder that holds `banking77/` and `clinc150/`."""
    banking, clinc = data / "banking77", data / "clinc150" / "data_full.json"
    for path in (banking / "train.csv", banking / "test.csv", clinc):
        if not path.is_file():
            raise FileNotFoundError(
                f"--data: {path} is missing; the folder needs BANKING77's train.csv and test.csv"
                " in banking77/ and CLINC150's data_full.json in clinc150/"
            )
    known = _banking(banking / "train.csv")
    Random(seed).shuffle(known)
    held_back = len(known) // 20
    foreign = json.loads(clinc.read_text())
    return Corpus(
        train=known[held_back:],
        other=_foreign(foreign["train"]),
        validation=known[:held_back] + _foreign(foreign["val"])[: held_back // 5],
        tests={
            "banking": _banking(banking / "test.csv"),
            "other-domains": _foreign(foreign["test"]),
            "out-of-scope": _foreign(foreign["oos_test"]),
        },
    )


def _banking(path: Path) -> list[Question]:
    with path.open(newline="", encoding="utf-8") as file:
        return [Question(row["text"].strip(), row["category"]) for row in csv.DictReader(file)]


def _foreign(rows: Sequence[Sequence[str]]) -> list[Question]:
    return [Question(text, OUT_OF_SCOPE) for text, intent in rows if intent not in BANK_LIKE]


def epoch_questions(corpus: Corpus, others: int, random: Random) -> list[Question]:
    """One epoch: every banking question and a fresh draw of `others` that are out of scope."""
    questions = [*corpus.train, *random.sample(corpus.other, others)]
    random.shuffle(questions)
    return questions


def conversation(
    question: Question, corpus: Corpus, answers: Mapping[str, str], recipe: Recipe, random: Random
) -> list[Turn]:
    """The question as a chat that waits for the answer, varied so that variation does not matter.

    Some have a system prompt, some an earlier exchange; case and closing marks vary.
    """
    turns: list[Turn] = []
    if random.random() < recipe.system_prompts:
        turns.append(("system", system_prompt(corpus, random)))
    while random.random() < recipe.earlier_turns:
        earlier = random.choice(corpus.train)
        turns += [("user", earlier.text), ("assistant", answers[earlier.intent])]
    words = question.text.split()
    kept = [word for word in words if random.random() >= recipe.lost_words]
    text = " ".join(kept or words)
    if random.random() < LOWER_CASE:
        text = text.lower()
    if random.random() < NO_CLOSING_MARK:
        text = text.rstrip("?.! ") or text
    elif random.random() < TIDY:
        text = text[0].upper() + text[1:] + ("" if text[-1] in "?.!" else "?")
    return [*turns, ("user", text)]


def system_prompt(corpus: Corpus, random: Random) -> str:
    """One to three sentences; half the time about anything, so that their words never sway."""
    count = random.randint(1, 3)
    if random.random() < ANY_WORDS:
        return ". ".join(other.text for other in random.sample(corpus.other, count)) + "."
    return " ".join(random.sample(SYSTEM_SENTENCES, count))
