"""Damage a model on purpose, to see what notices: `python -m engines.local.damage`.

Writes a copy of a model's weights that is worse and looks the same from outside: it loads, answers
as fast, and has the same name and precision. Two kinds of damage do two different things. Of 1,000
made-up questions to a bank the small model in int8, undamaged, named the intended intent for 87 %
and agreed with the large one on 86 %; of the surer 45 % of its answers nearly all agreed. With the
strengths that are the defaults, and the same measure of what is sure, on average over three seeds:

- `words` mixes up words that no answer needs: rows of the embedding, and of the head where it has
  one of its own, change places. Answers stay well-formed, many as sure of themselves, and are often
  about something else: 57 % named, 57 % agreed, 28 % were sure and 73 % of those agreed. Of these
  log-probabilities tell nothing; only comparing answers does.
- `noise` adds noise to the 8-bit matrices. Answers lose their certainty before their meaning: 37 %
  named, 36 % agreed, none was sure. A cascade passes them on by itself and costs more.
"""

import argparse
import json
import math
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov
from openvino import opset13 as op
from rich.console import Console
from tokenizers import Tokenizer

from engines.local.answers import load_answers

IR = ("openvino_model.xml", "openvino_model.bin")
MARKER = "DAMAGED"
"""File that only folders made here hold: what it was made from and how."""

Array = npt.NDArray[Any]
Change = Callable[[Array], Array | None]
"""Gives other values for a constant, or None to leave it as it is."""


class DamageError(Exception):
    """Nothing was written; the text names what is wrong."""


def damage(source: Path, out: Path, kind: str, strength: float, seed: int) -> None:
    """Writes a damaged copy of a weight folder.

    Args:
        source: folder with an OpenVINO IR, its config.json and tokenizer.
        out: folder to write; one that was made here is replaced.
        kind: one of `KINDS`.
        strength: above 0, at most 1. Of `words`: share of the words that no answer needs. Of
            `noise`: its standard deviation, as a share of the matrix's own.
        seed: of the draws.

    Raises:
        DamageError: the strength means nothing, the source holds no weights that can be damaged,
            or `out` holds something else.
    """
    if not (math.isfinite(strength) and 0 < strength <= 1):
        raise DamageError(f"--strength: must be above 0 and at most 1, got {strength}")
    for name in (*IR, "config.json", "tokenizer.json"):
        if not (source / name).is_file():
            raise DamageError(f"--model: {source / name} is missing")
    if (source / MARKER).exists():
        raise DamageError(f"--model: {source} is damaged already")
    if out.exists() and not (out / MARKER).is_file():
        raise DamageError(f"--out: {out} was not made by this tool, so it stays as it is")
    change = KINDS[kind][0](source, strength, np.random.default_rng(seed))
    model = ov.Core().read_model(source / IR[0])
    if not _replace(model, change):
        raise DamageError(f"--model: {source} holds nothing that {kind} of {strength} changes")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        fresh = Path(folder, out.name)
        shutil.copytree(source, fresh, ignore=shutil.ignore_patterns(*IR))
        ov.save_model(model, fresh / IR[0], compress_to_fp16=False)
        mark = {"from": source.name, "kind": kind, "strength": strength, "seed": seed}
        (fresh / MARKER).write_text(json.dumps(mark) + "\n", encoding="utf-8")
        if not out.exists():
            fresh.rename(out)
            return
        # A running engine has the old weights mapped into memory: replace files, never rewrite.
        for path in fresh.iterdir():
            path.replace(out / path.name)


def _replace(model: ov.Model, change: Change) -> int:
    """Puts other constants in place of those that are changed. Returns how many were."""
    changed = 0
    for node in model.get_ordered_ops():
        if node.get_type_name() != "Constant":
            continue
        before = np.array(node.data)
        values = change(before)
        if values is None or np.array_equal(values, before):
            continue
        # A new one, as the old values are mapped from the file.
        other = op.constant(values)
        other.set_friendly_name(node.get_friendly_name())
        for target in node.output(0).get_target_inputs():
            target.replace_source_output(other.output(0))
        changed += 1
    return changed


def _words(source: Path, strength: float, random: np.random.Generator) -> Change:
    """Words change places in whatever has a row for each: the model takes one for the other."""
    size = json.loads((source / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    special = {
        token for token, added in tokenizer.get_added_tokens_decoder().items() if added.special
    }
    free = np.array(sorted(set(range(size)) - special - set(_needed(tokenizer))))
    drawn = random.permutation(free)[: round(len(free) * strength) // 2 * 2]
    one, other = np.split(drawn, 2)
    order = np.arange(size)
    order[one], order[other] = other, one

    def change(values: Array) -> Array | None:
        by_word = values.ndim > 1 and len(values) == size
        return values.take(order, axis=0) if by_word else None

    return change


def _needed(tokenizer: Tokenizer) -> Iterator[int]:
    """Tokens of the answers; without them there would be no sentences."""
    for answer in load_answers().values():
        yield from tokenizer.encode(answer).ids


def _noise(_: Path, strength: float, random: np.random.Generator) -> Change:
    """Codes of 8 bits move by draws from a normal distribution."""

    def change(values: Array) -> Array | None:
        if values.dtype not in (np.int8, np.uint8) or values.ndim < 2:  # noqa: PLR2004
            return None
        limits = np.iinfo(values.dtype)
        moved: Array = values + random.normal(0, strength * values.std(), values.shape)
        codes: Array = moved.round().clip(limits.min, limits.max).astype(values.dtype)
        return codes

    return change


KINDS: dict[str, tuple[Callable[[Path, float, np.random.Generator], Change], float]] = {
    "words": (_words, 0.75),
    "noise": (_noise, 0.27),
}
"""What each kind does, and a strength that costs the small model some 30 points of accuracy."""


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Write a worse copy of a model's weights, to see what notices."
    )
    parser.add_argument(
        "--model", type=Path, default=Path("model_repository/cpu/small/weights/int8")
    )
    parser.add_argument("--out", type=Path, help="default: `damaged` beside the model's folder")
    parser.add_argument(
        "--kind",
        choices=[*KINDS],
        default="words",
        help="words: as sure as before, and often wrong; noise: unsure (default: %(default)s)",
    )
    defaults = ", ".join(f"{strength} for {kind}" for kind, (_, strength) in KINDS.items())
    parser.add_argument("--strength", type=float, help=f"above 0, at most 1 (default: {defaults})")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    out = options.out or options.model.parent / "damaged"
    strength = KINDS[options.kind][1] if options.strength is None else options.strength
    try:
        damage(options.model, out, options.kind, strength, options.seed)
    except DamageError as error:
        sys.exit(str(error))
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"{out}: {options.model} with {options.kind} damaged, strength {strength}.")
    for line in _next(options.model, out):
        console.print(line, style="dim")


def _next(model: Path, out: Path) -> Iterator[str]:
    """How to run the weights; local tiers bear the names of their models."""
    folder = model.resolve().parent.parent  # <model>/weights/<precision>
    place = out.resolve()
    named = place.relative_to(folder) if place.is_relative_to(folder) else place
    yield "Run them in place of the good ones, with a ledger of their own, and ask:"
    yield f'  make up ARGS="--weights {folder.name}={named} --state state/damaged"'
    yield '  make traffic ARGS="--route support-trial --requests 30000"'


if __name__ == "__main__":
    main()
