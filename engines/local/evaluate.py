# ruff: noqa: S311 -- repeatable draws are the point
"""Measure the local models through the real engine: `python -m engines.local.evaluate --data DIR`.

For each tier and precision: how often the answer names the right intent, how well the
log-probabilities tell right from wrong, and the engine's time per token. Runs in the services'
environment; BANKING77's test questions were never used in training.
"""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import openvino as ov
import openvino_genai
from rich.console import Console
from rich.progress import track
from rich.table import Table
from tokenizers import Tokenizer

from engines.local.answers import SEPARATOR, intent_names, load_answers, recognised
from engines.local.dialogue import Question, load_corpus
from engines.local.tokens import EOS_ID, Turn, render
from engines.recipes import RECIPES, SEED

KNOWN_SYSTEM_PROMPT = "You are a bank's support assistant."  # one of those trained with
UNSEEN_SYSTEM_PROMPT = "You are Penny. Help every client of our savings bank kindly and quickly."
MAX_ANSWER = 64  # tokens
FIRST = 4  # tokens a cascade might hold back before it trusts an answer
IN_FLIGHT = 32
TIMED_TOKENS = 64


@dataclass(frozen=True)
class Answer:
    """What the engine generated for one question."""

    ids: Sequence[int]
    log_probs: Sequence[float]


@dataclass(frozen=True)
class Speed:
    """Engine time for each generated token, milliseconds, prompts not counted."""

    alone: float
    together: float  # the same with IN_FLIGHT streams


class Engine:
    """The weights of one folder in the in-flight-batching pipeline of the CPU engine."""

    def __init__(self, folder: Path, precision_hint: str) -> None:
        schedule = openvino_genai.SchedulerConfig()
        schedule.num_kv_blocks = 1024
        schedule.dynamic_split_fuse = True
        schedule.max_num_batched_tokens = 2048
        properties = {
            "INFERENCE_PRECISION_HINT": precision_hint,
            "INFERENCE_NUM_THREADS": 1,
            "ENABLE_CPU_PINNING": False,
        }
        self._pipeline = openvino_genai.ContinuousBatchingPipeline(
            str(folder), schedule, "CPU", properties
        )
        self._used = 0

    def generate(self, prompts: Sequence[Sequence[int]], longest: int) -> list[Answer]:
        """Greedy answers in the order of the prompts."""
        waiting = self._add(prompts, longest, to_the_end=False)
        self._finish()
        outputs = [handle.read_all()[0] for handle in waiting]
        return [Answer(o.generated_ids, o.generated_log_probs) for o in outputs]

    def speed(self, rounds: int) -> Speed:
        """The best of some rounds on random prompts, so that a busy neighbour matters less."""
        return Speed(self._per_token(1, rounds), self._per_token(IN_FLIGHT, rounds))

    def _add(
        self, prompts: Sequence[Sequence[int]], longest: int, *, to_the_end: bool
    ) -> list[Any]:
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens = longest
        config.eos_token_id = EOS_ID
        config.ignore_eos = to_the_end
        config.do_sample = False
        config.logprobs = 1
        first, self._used = self._used, self._used + len(prompts)
        return [
            self._pipeline.add_request(first + i, ov.Tensor(np.array([prompt], np.int64)), config)
            for i, prompt in enumerate(prompts)
        ]

    def _finish(self) -> None:
        while self._pipeline.has_non_finished_requests():
            self._pipeline.step()

    def _per_token(self, streams: int, rounds: int) -> float:
        random = Random(SEED)
        best = float("inf")
        for _ in range(rounds):
            prompts = [[random.randrange(300, 2000) for _ in range(24)] for _ in range(streams)]
            waiting = self._add(prompts, TIMED_TOKENS + 1, to_the_end=True)
            self._pipeline.step()  # all prompts fit one step, which also makes the first token
            started = time.perf_counter()
            self._finish()
            taken = time.perf_counter() - started
            best = min(best, taken / TIMED_TOKENS / streams * 1e3)
            for handle in waiting:
                handle.read_all()
        return best


def area_under_curve(right: Sequence[float], wrong: Sequence[float]) -> float:
    """Chance that a right answer scores higher than a wrong one; 0.5 tells nothing apart."""
    if not right or not wrong:
        return float("nan")
    order = np.sort(np.array(wrong))
    below = np.searchsorted(order, right, "left") + np.searchsorted(order, right, "right")
    return float(below.mean() / 2 / len(order))


@dataclass(frozen=True)
class Quality:
    """What one set of questions showed; shares from 0 to 1."""

    named: float  # the answer names the right intent
    exact: float  # the answer is the right sentence, to the last letter
    auroc_intent: float  # of the mean log-prob of the tokens that name the intent
    auroc_first: float  # of the mean log-prob of the first few tokens


def judge(
    engine: Engine,
    tokenizer: Tokenizer,
    questions: Sequence[Question],
    answers: Mapping[str, str],
    before: Sequence[Turn] = (),
) -> Quality:
    """Ask every question, each in a conversation of its own that starts with `before`."""
    prompts = [
        tokenizer.encode(render([*before, ("user", question.text)])).ids for question in questions
    ]
    colon = tokenizer.encode(SEPARATOR.rstrip()).ids[0]
    names = intent_names(answers)
    named = exact = 0
    scores: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    for start in track(range(0, len(prompts), IN_FLIGHT), "asking", transient=True):
        batch = slice(start, start + IN_FLIGHT)
        given = engine.generate(prompts[batch], MAX_ANSWER)
        for question, answer in zip(questions[batch], given, strict=True):
            text = tokenizer.decode(list(answer.ids), skip_special_tokens=True)
            right = recognised(text, names) == question.intent
            named += right
            exact += text == answers[question.intent]
            ids = list(answer.ids)
            end = ids.index(colon) + 1 if colon in ids else len(ids)
            log_probs = np.array(answer.log_probs)
            scores[right].append((float(log_probs[:end].mean()), float(log_probs[:FIRST].mean())))
    intent, first = (
        area_under_curve([s[i] for s in scores[True]], [s[i] for s in scores[False]])
        for i in range(2)
    )
    return Quality(named / len(questions), exact / len(questions), intent, first)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Measure the local models.")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--repository", type=Path, default=Path("model_repository/cpu"))
    parser.add_argument("--tier", choices=[*RECIPES], action="append", help="default: all")
    parser.add_argument("--precision-hint", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--limit", type=int, help="questions of each set, for a quick look")
    parser.add_argument("--rounds", type=int, default=20, help="of the speed measurement")
    options = parser.parse_args()
    try:
        tests = load_corpus(options.data, SEED).tests
    except FileNotFoundError as error:
        sys.exit(str(error))
    answers = load_answers()
    banking = tests["banking"]
    sets: list[tuple[str, Sequence[Question], Sequence[Turn]]] = [
        *((name, questions, ()) for name, questions in tests.items()),
        ("+ system prompt", banking, [("system", KNOWN_SYSTEM_PROMPT)]),
        ("+ unseen system prompt", banking, [("system", UNSEEN_SYSTEM_PROMPT)]),
        ("+ earlier turn", banking, _earlier_turn(answers)),
    ]
    quality = Table("tier", "precision", "questions", "of", "named", "exact", "AUROC", "first 4")
    speeds = Table("tier", "precision", "ms/token alone", f"ms/token, {IN_FLIGHT} in flight")
    for tier in options.tier or RECIPES:
        for precision in RECIPES[tier].precisions:
            folder = options.repository / tier / "weights" / precision
            if not (folder / "openvino_model.xml").is_file():
                sys.exit(f"--repository: {folder} holds no weights; run engines.local.export")
            engine = Engine(folder, options.precision_hint)
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            speed = engine.speed(options.rounds)
            speeds.add_row(tier, precision, f"{speed.alone:.3f}", f"{speed.together:.4f}")
            for name, every, before in sets:
                questions = sample(every, options.limit)
                q = judge(engine, tokenizer, questions, answers, before)
                shares = (f"{q.named:.1%}", f"{q.exact:.1%}")
                areas = (f"{q.auroc_intent:.3f}", f"{q.auroc_first:.3f}")
                quality.add_row(tier, precision, name, str(len(questions)), *shares, *areas)
    console = Console()
    console.print(quality)
    console.print(speeds)


def sample(questions: Sequence[Question], limit: int | None) -> Sequence[Question]:
    """Some questions of a set, or all of them; the files are sorted by intent."""
    if limit is None or limit >= len(questions):
        return questions
    return Random(SEED).sample(questions, limit)


def _earlier_turn(answers: Mapping[str, str]) -> list[Turn]:
    """An exchange about something else, before the question that counts."""
    return [("user", "How old do I have to be?"), ("assistant", answers["age_limit"])]


if __name__ == "__main__":
    main()
