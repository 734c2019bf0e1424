"""Every format of traces is read; what is none of them is named with its line."""

import pytest

from services.common.config import ConfigError
from services.scaler.simulator import traces
from services.scaler.simulator.traces import Rates, Requests, parse_trace, read_trace

AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.1805900,396,0
"""
MOONCAKE = (
    '{"timestamp": 3000, "input_length": 20, "output_length": 2, "hash_ids": [1]}\n'
    '{"timestamp": 1000, "input_length": 10, "output_length": 5}\n'
)
RATES = "t_start_s,req_per_s\n"
SERVEGEN = f"{RATES}0,2.5\n600,0\n1200,7\n"


def one_more(at):
    return f'{{"timestamp": {at}, "input_length": 1, "output_length": 1}}\n'


def test_azure():
    found = parse_trace(AZURE, "a.csv")
    assert isinstance(found, Requests)
    assert found.timestamp.tolist() == pytest.approx([0.0, 3500.0])
    assert found.input_length.tolist() == [374, 396]
    assert found.output_length.tolist() == [44, 1]  # an end is a token


def test_mooncake_is_put_in_order():
    found = parse_trace(MOONCAKE, "m.jsonl")
    assert isinstance(found, Requests)
    assert found.timestamp.tolist() == [0.0, 2000.0]
    assert found.input_length.tolist() == [10, 20]
    assert found.seconds == 2.0


def test_servegen():
    found = parse_trace(SERVEGEN, "s.csv")
    assert isinstance(found, Rates)
    assert (found.window_seconds, found.per_second.tolist()) == (600.0, [2.5, 0.0, 7.0])
    assert found.seconds == 1800.0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "line 1: must begin with"),
        ("a,b\n1,2\n", "line 1: must begin with"),
        (AZURE + "yesterday,1,2\n", "line 4"),
        (AZURE + "2023-11-16 18:15:51,-1,2\n", "line 4: tokens must be"),
        (MOONCAKE + "[]\n", "line 3: must be an object"),
        (MOONCAKE + '{"timestamp": NaN, "input_length": 1, "output_length": 1}\n', "line 3"),
        (MOONCAKE.splitlines()[0] + "\n", "fewer than two requests"),
        (SERVEGEN + "1800,-1\n", "line 5: the rate must be"),
        (SERVEGEN + "1800,nan\n", "line 5: the rate must be"),
        (SERVEGEN + "1801,1\n", "line 5: windows must follow each other"),
        (RATES + "600,1\n0,1\n", "line 3: windows must follow each other"),
        (RATES + "0,1\n1e-300,1\n", "line 3: windows must follow each other, of 1 s or more"),
        (RATES + "0,1\n", "fewer than two windows"),
        (RATES + "0,1\ninf,1\n", "line 3: a window must begin"),
        (RATES + "-1e308,1\n1e308,1\n", "line 2: a window must begin"),
        (RATES + "0,1\n1e300,1\n", "line 3: a window must begin"),
        (RATES + f"0,{'1' * 130_000}\n60,1\n", "line 2: the rate must be"),
        (RATES + f"0,{'1' * 140_000}\n60,1\n", "line 2: must be a line of plain CSV"),
        (RATES + "0,1\r60,1\r", "line 2: must be a line of plain CSV"),
        (AZURE + f'"{"a" * 140_000}",1,2\n', "line 4: must be a line of plain CSV"),
        (one_more("-1e308") + one_more("1e308"), "line 1: tokens must be"),
        (MOONCAKE + one_more("1" + "0" * 400), "line 3: must be an object"),
        (MOONCAKE + one_more("1" + "0" * 5000), "line 3: must be an object"),
        (MOONCAKE + one_more("1e400"), "line 3: tokens must be"),
    ],
)
def test_what_is_no_trace_is_named_with_its_line(text, says):
    with pytest.raises(ConfigError, match=says):
        parse_trace(text, "file")


def test_no_more_requests_are_read_than_the_limit(monkeypatch):
    monkeypatch.setattr(traces, "MAX_REQUESTS", 1)
    with pytest.raises(ConfigError, match="more than 1 requests"):
        parse_trace(MOONCAKE, "m.jsonl")


def test_a_file_that_is_too_large_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(traces, "MAX_BYTES", 10)
    path = tmp_path / "s.csv"
    path.write_text(SERVEGEN)
    with pytest.raises(ConfigError, match="larger than 10 bytes"):
        read_trace(path)
