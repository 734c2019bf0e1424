"""Requests are made for the model that a tier serves now, by what was made for it before."""

from dataclasses import replace

from services.router.engines import triton
from services.router.engines.tokenizer import ModelText
from services.router.engines.triton import TritonEngine
from tests.making.policies import TOKENIZER, tier


def test_tiers_of_one_model_and_tokenizer_share_an_encoder() -> None:
    small = tier()
    engine = TritonEngine({small.tokenizer: ModelText(TOKENIZER)})
    encoder = engine._encoder(small)
    assert engine._encoder(replace(small, name="again", queue_size=9)) is encoder
    other = engine._encoder(replace(small, model="other"))
    assert other is not encoder
    assert other.stop("r1").model_name == "other"


def test_a_tokenizer_that_comes_later_is_found() -> None:
    texts = {}
    engine = TritonEngine(texts)
    texts["folder"] = ModelText(TOKENIZER)
    assert engine._encoder(tier(tokenizer="folder")) is not None


def test_encoders_of_policies_long_gone_do_not_pile_up() -> None:
    small = tier()
    engine = TritonEngine({small.tokenizer: ModelText(TOKENIZER)})
    for number in range(3 * triton.MAX_ENCODERS):
        engine._encoder(replace(small, model=f"model-{number}"))
        assert len(engine._encoders) <= triton.MAX_ENCODERS
