"""Constants of a replica are found again in rows that were made with them."""

import numpy as np
import pytest

from services.common.config import ConfigError
from services.scaler.policy.sizing.settings import Capacity
from services.scaler.simulator.silicon import Row, Serving, chosen, fit, read_rows, scaled

TRUE = Capacity(a=0.0064, b=1e-5, c=5e-8, p=2e-5)
HEADER = (
    "engine,engine_version,model,gpu,precision,input_tokens,output_tokens,gemm,batch,"
    "tensor_parallel,ttft_ms,tpot_ms\n"
)


def rows(noise: float = 0.0) -> list[Row]:
    draw = np.random.default_rng(3)
    found = []
    for prompt in (500, 1000, 2000):
        for output in (100, 500):
            for batch in (1, 8, 64, 128):
                step = Serving(TRUE, prompt, output, batch)
                tpot = TRUE.a + step.slope * batch
                tpot *= 1.0 + noise * draw.normal()
                found.append(Row(("e", "m", "g", "", "", "1"), prompt, output, batch, 0.1, tpot))
    return found


def test_constants_are_found_again():
    found = fit(rows())
    assert found.capacity.a == pytest.approx(TRUE.a, rel=1e-4)
    assert found.capacity.b == pytest.approx(TRUE.b, rel=1e-3)
    assert found.capacity.c == pytest.approx(TRUE.c, rel=1e-3)
    assert found.capacity.p == pytest.approx(TRUE.p, rel=1e-3)
    assert found.error < 1e-6


def test_noise_shows_as_error_of_its_size_and_more_where_rows_were_left_out():
    found = fit(rows(noise=0.05))
    assert 0.02 < found.error < 0.06
    assert found.held_out > found.error


def test_too_few_rows_are_no_model():
    with pytest.raises(ValueError, match="too few"):
        fit(rows()[:7])


def test_throughput_is_requests_by_the_time_of_a_full_replica():
    serving = Serving(TRUE, prompt=1000.0, output=200.0, places=100)
    step = TRUE.a + 100 * (TRUE.b + TRUE.c * 1100.0 + TRUE.p * 5.0)
    assert serving.throughput == pytest.approx(100 / (200 * step))
    assert serving.rate(1) < serving.rate(50) < serving.throughput


def test_work_of_the_mean_request_is_one_and_a_longer_answer_is_more():
    serving = Serving(TRUE, prompt=1000.0, output=200.0)
    same, longer = serving.work(np.array([1000.0, 1000.0]), np.array([200.0, 400.0]))
    assert same == pytest.approx(1.0)
    assert longer > 1.5


def test_a_replica_twice_as_fast_serves_twice_as_much():
    fast = Serving(scaled(TRUE, 2.0), 1000.0, 200.0)
    assert fast.throughput == pytest.approx(2 * Serving(TRUE, 1000.0, 200.0).throughput)


def test_rows_are_read_and_chosen_by_label(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text(
        HEADER
        + "trtllm,1,m,h100,,1000,200,,8,1,50,10\n"
        + "vllm,1,m,h100,,1000,200,,8,1,50,12\n"
        + "vllm,1,m,h100,,1000,200,,8,1,50,0\n"
    )
    found = read_rows(path)
    assert [row.tpot for row in found] == [0.01, 0.012]
    assert [row.tpot for row in chosen(found, engine="vllm")] == [0.012]


def test_a_row_that_is_no_row_is_named(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text(HEADER + "trtllm,1,m,h100,,many,200,,8,1,50,10\n")
    with pytest.raises(ConfigError, match=r"line 2.*columns of measured rows"):
        read_rows(path)


def test_rows_that_are_not_there_are_named(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        read_rows(tmp_path / "none.csv")
