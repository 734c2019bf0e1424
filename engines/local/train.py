# mypy: disable-error-code="import-not-found, untyped-decorator"
# ruff: noqa: S311 -- repeatable shuffling is the point
"""Train a tier's local model: `python -m engines.local.train --data DIR --tier large`.

Writes a Hugging Face checkpoint (safetensors, tokenizer, config) that `export.py` turns into
OpenVINO graphs and that TensorRT-LLM can build engines from.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random

import torch
from rich.console import Console
from rich.progress import Progress
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional

from engines.local.answers import SEPARATOR, load_answers
from engines.local.dialogue import (
    SYSTEM_SENTENCES,
    Corpus,
    Question,
    conversation,
    epoch_questions,
    load_corpus,
)
from engines.local.llama import Llama
from engines.local.tokens import (
    BOS_ID,
    EOS,
    EOS_ID,
    PAD_ID,
    Turn,
    render,
    save_tokenizer,
    train_tokenizer,
)
from engines.recipes import RECIPES, SEED, Recipe

Keep = Callable[[Llama, dict[str, object]], None]  # a model worth saving and its record

IGNORED = -100  # a target that costs nothing
LENGTH_STEP = 8  # tokens; few different lengths, so that kernels are made once
CHUNK = 50  # batches sorted by length together: little padding, still random


@dataclass(frozen=True)
class Sample:
    """Token ids of a conversation with its answer, and where the answer starts."""

    ids: list[int]
    answer: int


class Writer:
    """Turns questions into samples."""

    def __init__(
        self, tokenizer: Tokenizer, answers: Mapping[str, str], corpus: Corpus, recipe: Recipe
    ) -> None:
        self.tokenizer, self.answers, self.corpus = tokenizer, answers, corpus
        self.recipe = recipe
        self.splitting = Tokenizer.from_str(tokenizer.to_str())
        self.splitting.model.dropout = recipe.split_words or None
        self.whole = {i: tokenizer.encode(text + EOS).ids for i, text in answers.items()}
        mark = SEPARATOR.rstrip()
        self.named = {
            intent: tokenizer.encode(text.partition(SEPARATOR)[0] + mark).ids
            for intent, text in answers.items()
        }

    def varied(self, question: Question, random: Random) -> Sample:
        """For training; a share of the answers goes to the last word, the rest names the intent.

        What follows the intent is always the same, so it takes few looks to learn.
        """
        turns = conversation(question, self.corpus, self.answers, self.recipe, random)
        endings = self.whole if random.random() < self.recipe.whole_answers else self.named
        return self._sample(self.splitting, turns, endings[question.intent])

    def plain(self, question: Question) -> Sample:
        """For validation: the question alone and the words that name its intent."""
        return self._sample(self.tokenizer, [("user", question.text)], self.named[question.intent])

    def _sample(self, tokenizer: Tokenizer, turns: Sequence[Turn], answer: list[int]) -> Sample:
        ids = tokenizer.encode(render(turns)).ids
        return Sample(ids + answer, len(ids))


@dataclass(frozen=True)
class Batch:
    """Token ids and what follows each, [batch, tokens], padded on the right."""

    ids: Tensor
    answers: Tensor  # targets where the assistant's answer follows, IGNORED elsewhere
    prompts: Tensor  # targets where the rest of the conversation follows


def batches(samples: Sequence[Sample], size: int, random: Random) -> Iterator[Batch]:
    """All samples in random order, alike in length within a batch."""
    chosen: list[Sequence[Sample]] = []
    for start in range(0, len(samples), size * CHUNK):
        chunk = sorted(samples[start : start + size * CHUNK], key=lambda s: len(s.ids))
        chosen += [chunk[i : i + size] for i in range(0, len(chunk), size)]
    random.shuffle(chosen)
    for batch in chosen:
        longest = max(len(s.ids) for s in batch) - 1
        length = -(-longest // LENGTH_STEP) * LENGTH_STEP
        ids = torch.full((len(batch), length), PAD_ID)
        answers, prompts = torch.full_like(ids, IGNORED), torch.full_like(ids, IGNORED)
        for row, sample in enumerate(batch):
            ids[row, : len(sample.ids) - 1] = torch.tensor(sample.ids[:-1])
            prompts[row, : sample.answer - 1] = torch.tensor(sample.ids[1 : sample.answer])
            answers[row, sample.answer - 1 : len(sample.ids) - 1] = torch.tensor(
                sample.ids[sample.answer :]
            )
        yield Batch(ids, answers, prompts)


def logits_of(model: Llama, batch: Batch, *, bf16: bool) -> Tensor:
    """Scores over the vocabulary after every token."""
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        logits = model.logits(model(batch.ids))
    return logits.float()


def losses(logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy of the answers' tokens and of the prompts'."""
    flat = logits.flatten(0, 1)
    answer, prompt = (
        functional.cross_entropy(flat, targets.flatten(), ignore_index=IGNORED)
        for targets in (batch.answers, batch.prompts)
    )
    return answer, prompt


@torch.no_grad()
def validate(model: Llama, samples: Sequence[Sample], *, bf16: bool) -> float:
    """Share of questions whose intent is named exactly, as greedy decoding would name it."""
    model.eval()
    right = 0
    for batch in batches(samples, 64, Random(0)):
        named = logits_of(model, batch, bf16=bf16).argmax(-1) == batch.answers
        right += int((named | (batch.answers == IGNORED)).all(dim=1).sum())
    model.train()
    return right / len(samples)


def learn(writer: Writer, start: Path | None, keep: Keep, *, bf16: bool) -> None:
    """Train from `start` or random weights.

    Hands `keep` every epoch that is the best so far on the validation slice.
    """
    recipe = writer.recipe
    torch.manual_seed(SEED)
    random = Random(SEED)
    model = Llama(recipe.shape, recipe.dropout)
    if start is not None:
        model.load_state_dict(load_file(start))
    decayed = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() == 1]
    groups = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=True)
    corpus = writer.corpus
    steps = math.ceil((len(corpus.train) + recipe.others) / recipe.batch) * recipe.epochs
    validation = [writer.plain(q) for q in corpus.validation]
    best, step = -1.0, 0
    history: list[dict[str, float]] = []
    with Progress() as progress:
        bar = progress.add_task("training", total=steps)
        for epoch in range(1, recipe.epochs + 1):
            questions = epoch_questions(corpus, recipe.others, random)
            samples = [writer.varied(q, random) for q in questions]
            total = 0.0
            for batch in batches(samples, recipe.batch, random):
                rate = recipe.learning_rate * schedule(step / steps, recipe.warm_up)
                for group in optimiser.param_groups:
                    group["lr"] = rate
                answer, prompt = losses(logits_of(model, batch, bf16=bf16), batch)
                loss = answer + recipe.prompt_loss * prompt if recipe.prompt_loss else answer
                optimiser.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimiser.step()
                total += float(answer.detach()) * len(batch.ids)
                step += 1
                progress.update(bar, completed=step)
            accuracy = validate(model, validation, bf16=bf16)
            loss_mean = total / len(samples)
            history.append({"epoch": epoch, "loss": loss_mean, "validation": accuracy})
            progress.console.print(
                f"epoch {epoch}: loss {loss_mean:.4f}, validation {accuracy:.1%}"
            )
            if accuracy >= best:
                best = accuracy
                keep(model, {"validation": best, "epochs": history})
    if not history:
        keep(model, {"validation": None, "epochs": history})


def schedule(done: float, warm_up: float) -> float:
    """Share of the peak learning rate after the share `done` of all steps: up, then a cosine."""
    if done < warm_up:
        return done / warm_up + 1e-3
    return 0.5 * (1 + math.cos(math.pi * (done - warm_up) / (1 - warm_up)))


def save(model: Llama, tokenizer: Tokenizer, recipe: Recipe, record: object, folder: Path) -> None:
    """The checkpoint as transformers' `LlamaForCausalLM` would save it."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    ends = {"bos_token_id": BOS_ID, "eos_token_id": EOS_ID, "pad_token_id": PAD_ID}
    for name, content in (
        ("config.json", recipe.shape.hf_config(BOS_ID, EOS_ID, PAD_ID)),
        ("generation_config.json", ends),
        ("training.json", record),
    ):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")
    save_tokenizer(tokenizer, folder, recipe.shape.positions)


def make(tier: str, recipe: Recipe, data: Path, out: Path, *, resume: bool, bf16: bool) -> None:
    """Train one tier and save it under `out`; `resume` starts from what lies there."""
    start = out / tier / "model.safetensors" if resume else None
    before = json.loads((out / tier / "training.json").read_text()) if resume else None
    started = time.monotonic()
    corpus = load_corpus(data, SEED)
    answers = load_answers()
    texts = [q.text for q in (*corpus.train, *corpus.other)]
    # answers weigh as much as in training, so that their words become single tokens
    spoken = [text for text in answers.values() for _ in range(20)]
    tokenizer = train_tokenizer([*texts, *spoken, *SYSTEM_SENTENCES], recipe.shape.vocabulary)

    def keep(model: Llama, record: dict[str, object]) -> None:
        about = {
            "recipe": asdict(recipe),
            "seed": SEED,
            "parameters": recipe.shape.parameters,
            "minutes": round((time.monotonic() - started) / 60, 1),
            "before": before,
        }
        save(model, tokenizer, recipe, record | about, out / tier)

    learn(Writer(tokenizer, answers, corpus, recipe), start, keep, bf16=bf16)
    minutes = (time.monotonic() - started) / 60
    Console().print(f"{tier}: {out / tier}, {minutes:.1f} minutes")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Train the local models.")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--tier", choices=[*RECIPES], action="append", help="default: all")
    parser.add_argument("--out", type=Path, default=Path("engines/checkpoints"))
    parser.add_argument("--epochs", type=int, help="instead of the recipe's; 0: random weights")
    parser.add_argument("--learning-rate", type=float, help="instead of the recipe's")
    parser.add_argument("--resume", action="store_true", help="from the checkpoint under --out")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--bf16", action="store_true", help="pays off on CPUs with AMX")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    try:
        for tier in options.tier or RECIPES:
            recipe = RECIPES[tier]
            if options.epochs is not None:
                recipe = replace(recipe, epochs=options.epochs)
            if options.learning_rate is not None:
                recipe = replace(recipe, learning_rate=options.learning_rate)
            make(tier, recipe, options.data, options.out, resume=options.resume, bf16=options.bf16)
    except FileNotFoundError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
