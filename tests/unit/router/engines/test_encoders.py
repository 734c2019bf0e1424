"""Requests are made for the model that a tier serves now, by what was made for it before."""

import gc
from dataclasses import replace

from services.router.engines.tokenizer import ModelText
from services.router.engines.triton import TritonEngine
from tests.making.policies import TOKENIZER, tier


def test_tiers_of_one_model_and_tokenizer_share_an_encoder() -> None:
    small, text, engine = tier(), ModelText(TOKENIZER), TritonEngine()
    encoder = engine._encoder(small, text)
    assert engine._encoder(replace(small, name="again", queue_size=9), text) is encoder
    other = engine._encoder(replace(small, model="other"), text)
    assert other is not encoder
    assert other.stop("r1").model_name == "other"


def test_encoders_go_with_the_last_version_that_has_their_text() -> None:
    engine, text = TritonEngine(), ModelText(TOKENIZER)
    engine._encoder(tier(), text)
    assert len(engine._encoders) == 1
    del text
    gc.collect()
    assert len(engine._encoders) == 0
