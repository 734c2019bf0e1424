"""Lines that wait take no more memory than they are long."""

import subprocess
import sys

import pytest

from services.common.json_lines import json_line

KEPT = """
from services.common.json_lines import json_line

def megabytes():
    with open("/proc/self/status") as status:
        (line,) = [line for line in status if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1024

before = megabytes()
kept = [json_line({"text": "x" * 860}) for _ in range(20_000)]
print(megabytes() - before)
"""


def test_a_line_is_the_value_and_takes_its_length() -> None:
    assert json_line({"a": "é"}) == '{"a":"é"}\n'.encode()
    with pytest.raises(TypeError):
        json_line(object())


def test_lines_that_are_kept_keep_no_room_to_spare() -> None:
    command = [sys.executable, "-c", KEPT]
    taken = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert taken < 40  # their length is 17 MB, and what orjson gives for them takes 79
