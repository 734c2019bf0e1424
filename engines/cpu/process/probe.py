"""Guides tried on a pipeline around a model of next to nothing.

Compiling a guide is the costly part of it, and it may fail, crash or never end. `trial.py` tries it
in a process that may die of it; the engine then compiles it for good in a thread (`guides.py`).
"""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import openvino_genai as genai

from engines.cpu.process.guided import structured_output
from engines.cpu.request import Guide, InvalidRequestError
from engines.graph import build
from engines.recipes import Shape

_KV_BLOCKS = 64


class Probe:
    """A pipeline that compiles guides with a tokenizer's vocabulary.

    With the serving pipeline's own tokenizer, what is compiled here is compiled there too.
    """

    def __init__(self, tokenizer: Any, vocabulary: int) -> None:
        self._tokenizer = tokenizer
        self._vocabulary = vocabulary
        self._end = int(tokenizer.get_eos_token_id())
        # Any token but the end.
        self._prompt = ov.Tensor(np.full((1, 1), int(self._end == 0), np.int64))
        self._pipeline = self._made()

    def compile(self, guide: Guide) -> None:
        """Compile a guide; other threads run meanwhile. Raises `InvalidRequestError`."""
        config = genai.GenerationConfig(max_new_tokens=1, ignore_eos=True)
        config.structured_output_config = structured_output(guide)
        try:
            # Unlike a step, this lets go of the interpreter lock.
            self._pipeline.generate([self._prompt], [config])
        except Exception as error:
            self._pipeline = self._made()  # the one that failed would fail again
            raise not_compiled(error) from error

    def steps(
        self,
        guide: Guide,
        tokens: int,
        seed: int,
        *,
        enough: Callable[[Sequence[float]], bool],
        clock: Callable[[], float] = time.process_time,
    ) -> list[float]:
        """How long each step of a random answer takes that the guide allows, in `clock` seconds.

        The first one compiles; the others end after so many tokens, once those so far are
        `enough`, or when the guide allows nothing but the end. Raises `InvalidRequestError`.
        """
        config = genai.GenerationConfig(max_new_tokens=tokens, eos_token_id=self._end)
        config.do_sample = True
        config.rng_seed = seed
        config.structured_output_config = structured_output(guide)
        took: list[float] = []
        handle = None
        try:
            handle = self._pipeline.add_request(0, self._prompt, config)
            while handle.get_status() == genai.GenerationStatus.RUNNING:
                began = clock()
                self._pipeline.step()
                took.append(clock() - began)
                if enough(took):
                    break
        except Exception as error:
            raise not_compiled(error) from error
        finally:
            self._settle(handle)
        return took

    def _settle(self, handle: Any) -> None:
        """Get rid of a request: one that failed fails in every step until it is cancelled."""
        if handle is None or handle.get_status() != genai.GenerationStatus.RUNNING:
            return
        handle.cancel()
        try:
            self._pipeline.step()
        except Exception:  # noqa: BLE001 - whatever it is, a fresh one does not have it
            self._pipeline = self._made()

    def _made(self) -> Any:
        shape = Shape(layers=1, width=64, feed_forward=64, vocabulary=self._vocabulary)
        with tempfile.TemporaryDirectory(prefix="pennyweight-probe-") as scratch:
            folder = Path(scratch)
            model = build(shape, _Weights(shape, self._end), "int8")
            ov.save_model(model, folder / "openvino_model.xml")
            (folder / "config.json").write_text(json.dumps(shape.hf_config(bos=0, eos=0, pad=0)))
            (folder / "generation_config.json").write_text("{}")
            scheduler = genai.SchedulerConfig()
            scheduler.num_kv_blocks = _KV_BLOCKS
            return genai.ContinuousBatchingPipeline(
                str(folder), self._tokenizer, scheduler, "CPU", INFERENCE_NUM_THREADS=1
            )


def not_compiled(error: Exception) -> InvalidRequestError:
    """The compiler's reason, without the time and the place in its source that it begins with."""
    last_line = str(error).strip().rpartition("\n")[2]
    reason = re.sub(r"^\[[\d:]+\] \S+:\d+: ", "", last_line)
    return InvalidRequestError(f"guided_decoding_guide does not compile: {reason}")


class _Weights(dict[str, Any]):
    """Weights to which all tokens are alike but the end, which comes when nothing else may.

    A guide costs most in a long answer, so none may end early by chance. Made as asked for.
    """

    def __init__(self, shape: Shape, end: int) -> None:
        super().__init__()
        self._shape = shape
        self._end = end

    def __missing__(self, name: str) -> Any:
        shape = self._shape
        if name.endswith("norm.weight"):
            return np.ones(shape.width, np.float32)
        out = shape.feed_forward if "gate" in name or "up" in name else shape.width
        inner = shape.feed_forward if "down" in name else shape.width
        if "embed" in name:
            alike = np.ones((shape.vocabulary, inner), np.float32)
            alike[self._end : self._end + 1] = -1.0
            return alike
        return np.zeros((out, inner), np.float32)
