"""What engines' pages say, and what of it is believed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.scaler.load import engines
from services.scaler.load.engines import EngineReading, Engines, reading_of
from services.scaler.load.pages import Unanswered

PAGE = """\
# TYPE nv_trt_llm_request_metrics gauge
nv_trt_llm_request_metrics{model="m",version="1",request_type="active"} 9
nv_trt_llm_request_metrics{model="m",version="1",request_type="waiting"} 4
# TYPE nv_trt_llm_kv_cache_block_metrics gauge
nv_trt_llm_kv_cache_block_metrics{model="m",version="1",kv_cache_block_type="max"} 200
nv_trt_llm_kv_cache_block_metrics{model="m",version="1",kv_cache_block_type="used"} 50
nv_trt_llm_kv_cache_block_metrics{model="m",version="1",kv_cache_block_type="fraction"} 0.25
# TYPE nv_trt_llm_general_metrics gauge
nv_trt_llm_general_metrics{model="m",version="1",general_type="iteration_counter"} 77
# TYPE nv_inference_count counter
nv_inference_count{model="m",version="1"} 12
"""


def test_a_page_tells_what_waits_and_how_full_the_cache_is():
    assert reading_of(PAGE, None, 3.0) == EngineReading(3.0, waiting=4.0, kv=0.25, iterations=77.0)


def test_an_engine_that_makes_no_steps_is_idle_whatever_its_gauges_say():
    before = reading_of(PAGE, None, 3.0)
    assert reading_of(PAGE, before, 8.0) == EngineReading(8.0, waiting=0.0, kv=0.0, iterations=77.0)
    moved = PAGE.replace("} 77", "} 78")
    assert reading_of(moved, before, 8.0).waiting == 4.0
    again = PAGE.replace("} 77", "} 2")  # it started anew
    assert reading_of(again, before, 8.0).kv == 0.25


def test_a_server_without_these_families_says_nothing():
    assert not reading_of(
        "# TYPE nv_inference_count counter\nnv_inference_count 3\n", None, 0.0
    ).known


@pytest.mark.parametrize("value", ["NaN", "-1", "+Inf"])
def test_what_is_no_count_is_left_out(value: str):
    page = PAGE.replace('"waiting"} 4', f'"waiting"}} {value}').replace(
        '"used"} 50', f'"used"}} {value}'
    )
    reading = reading_of(page, None, 0.0)
    assert reading.waiting is None
    assert reading.kv == 0.25  # by the engine's own fraction


def test_two_models_of_a_server_are_one_reading():
    other = "".join(
        line.replace('model="m"', 'model="n"') + "\n"
        for line in PAGE.splitlines()
        if "block" in line and not line.startswith("#")
    ).replace("} 50", "} 150")
    page = PAGE.replace("# TYPE nv_trt_llm_general", f"{other}# TYPE nv_trt_llm_general")
    assert reading_of(page, None, 0.0).kv == 0.5


def test_no_cache_is_more_than_full_and_one_without_blocks_goes_by_its_own_fraction():
    assert reading_of(PAGE.replace('"used"} 50', '"used"} 300'), None, 0.0).kv == 1.0
    without = PAGE.replace('"max"} 200', '"max"} 0')
    assert reading_of(without, None, 0.0).kv == 0.25
    assert reading_of(without.replace("} 0.25", "} 1.75"), None, 0.0).kv == 1.0


@given(st.text(max_size=200))
def test_no_page_raises_anything_else(text: str):
    try:
        reading = reading_of(text, None, 0.0)
    except ValueError:
        return
    assert reading.kv is None or 0 <= reading.kv <= 1


class Pages:
    """Pages that are there, by URL."""

    def __init__(self, **pages: str) -> None:
        self.pages = pages

    async def get(self, url: str, *_: object, **__: object) -> tuple[int, bytes]:
        name = url.removeprefix("http://").partition(":")[0]
        if name not in self.pages:
            raise Unanswered("it does not answer within 2 s")
        return 200, self.pages[name].encode()


async def test_each_engine_keeps_its_last_reading_until_its_replica_is_gone():
    addresses = {"a-0": "one:1", "a-1": "two:1"}
    now = [1.0]
    known = Engines(addresses.items, clock=lambda: now[0])
    await known.look(Pages(one=PAGE, two=PAGE))  # type: ignore[arg-type]
    now[0] = 6.0
    await known.look(Pages(one=PAGE, two="{ not metrics"))  # type: ignore[arg-type]
    first, second = known.reading("a-0"), known.reading("a-1")
    assert first is not None
    assert second is not None
    assert (first.at, second.at) == (6.0, 1.0)
    del addresses["a-1"]
    await known.look(Pages())  # type: ignore[arg-type]
    assert known.reading("a-1") is None
    assert known.reading("a-0") == first


async def test_so_many_engines_are_asked_at_most(monkeypatch):
    monkeypatch.setattr(engines, "MAX_ENGINES", 1)
    asked = Engines({"a-0": "one:1", "a-1": "two:1"}.items)
    await asked.look(Pages(one=PAGE, two=PAGE))  # type: ignore[arg-type]
    assert [asked.reading(name) is None for name in ("a-0", "a-1")] == [False, True]
