"""Every question of BANKING77's test part, answered by every local tier: the pairs of `tiers`.

The answers are made once, by the engine that serves them, and kept in a file that names the weights
they came from; new weights are asked anew. The models were never trained on these questions.
"""

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

from tokenizers import Tokenizer

from bench import report
from engines.local.answers import intent_names, load_answers, recognised
from engines.local.dialogue import Question, load_corpus
from engines.local.evaluate import MAX_ANSWER, Engine
from engines.local.tokens import render
from engines.recipes import SEED
from services.common.files import whole_file

TIERS = (("small", "int8"), ("large", "int8"))
"""Model and precision of every tier that is asked, cheapest first."""

REPOSITORY = Path("model_repository/cpu")
TURN = 154
"""Questions a tier answers before the other has its turn."""

KEPT = Path("state/bench/tiers")
FORM = 4
REPEATS = 2
"""Each answer is made so often; the shorter time counts, so that a busy neighbour matters less."""


@dataclass(frozen=True)
class Answered:
    """One question and what one tier made of it.

    Attributes:
        question: what the customer asked.
        answer: what the tier said.
        right: the answer names the right intent.
        log_probs: of its tokens.
        engine_ms: processor time of the engine, the question being the only one in flight.
    """

    question: str
    answer: str
    right: bool
    log_probs: Sequence[float]
    engine_ms: float


def answered(data: Path, limit: int | None) -> list[list[Answered]]:
    """What every tier, cheapest first, made of every test question, in the order of the file.

    Args:
        data: folder with the public data sets.
        limit: so many questions drawn at random, answered anew; None for all of them.

    Raises:
        FileNotFoundError: the questions are not there.
    """
    questions = load_corpus(data, SEED).tests["banking"]
    folders = [REPOSITORY / tier / "weights" / precision for tier, precision in TIERS]
    if limit is not None:
        rows = list(_ask(folders, Random(SEED).sample(questions, limit)))
        return [list(tier) for tier in zip(*rows, strict=True)]
    path = KEPT / f"{'-'.join(map(_weights_name, folders))}-{FORM}.jsonl"
    if not path.is_file():
        report.say(f"asking {len(TIERS)} tiers {len(questions):,} questions; kept in {path}")
        with whole_file(path) as unfinished, unfinished.open("w", encoding="utf-8") as file:
            for row in _ask(folders, questions):
                file.write(json.dumps([asdict(answer) for answer in row]) + "\n")
    with path.open(encoding="utf-8") as file:
        kept = [[Answered(**answer) for answer in json.loads(line)] for line in file]
    return [list(tier) for tier in zip(*kept, strict=True)]


def _ask(folders: Sequence[Path], questions: Sequence[Question]) -> Iterator[list[Answered]]:
    """The tiers take turns, `TURN` questions each: warm, as alone, and both meet the same noise."""
    engines = [Engine(folder, "f32") for folder in folders]
    tokenizers = [Tokenizer.from_file(str(folder / "tokenizer.json")) for folder in folders]
    for start in range(0, len(questions), TURN):
        asked = questions[start : start + TURN]
        answers = [
            _answers(engine, tokenizer, asked)
            for engine, tokenizer in zip(engines, tokenizers, strict=True)
        ]
        yield from map(list, zip(*answers, strict=True))


def _answers(engine: Engine, tokenizer: Tokenizer, asked: Sequence[Question]) -> list[Answered]:
    names = intent_names(load_answers())
    prompts = [tokenizer.encode(render([("user", question.text)])).ids for question in asked]
    found = []
    for question, prompt in zip(asked, prompts, strict=True):
        times = []
        for _ in range(REPEATS):
            before = time.process_time()
            answer = engine.generate([prompt], MAX_ANSWER)[0]
            times.append(time.process_time() - before)
        text = tokenizer.decode(list(answer.ids), skip_special_tokens=True)
        found.append(
            Answered(
                question=question.text,
                answer=text,
                right=recognised(text, names) == question.intent,
                log_probs=[round(float(value), 6) for value in answer.log_probs],
                engine_ms=round(min(times) * 1e3, 4),
            )
        )
    return found


def _weights_name(folder: Path) -> str:
    path = folder / "openvino_model.bin"
    if not path.is_file():
        raise SystemExit(f"{path} is missing; `make models` makes it")
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]
