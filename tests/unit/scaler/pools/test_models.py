"""Models' configurations that Triton would not take are refused before a replica starts."""

import os

import pytest

from services.common.config import ConfigError, load_document
from services.scaler import check
from services.scaler.config import Scaling
from tests.making.scaling_files import GOOD


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ('backend: "python', "must have a config.pbtxt that Triton takes, and it is not a model"),
        ("no_such_key: 1", "no field named"),
        ("parameters {" * 500, "must have a config.pbtxt that Triton takes, and it is not a model"),
        ('name: "other"', "names the model 'other', not 'm', got"),
        (b"\xff", "must have a config.pbtxt that can be read"),
    ],
)
def test_a_model_configuration_that_is_none_is_refused_with_its_line(
    write, written: str | bytes, said: str
):
    path = write(GOOD)
    file = path.parents[1] / "models/m/config.pbtxt"
    file.write_bytes(written if isinstance(written, bytes) else written.encode())
    with pytest.raises(
        ConfigError, match=r"line 4: pools\.a\.model: must have a config\.pbtxt"
    ) as told:
        Scaling.load(path)
    assert said in str(told.value)
    assert Scaling.of(load_document(path, Scaling), path, models=False).pools["a"].size == 1
    assert check.main([str(path)]) == 1
    assert check.main([str(path), "--no-models"]) == 0


def test_a_pipe_in_its_place_is_refused_too(write):
    path = write(GOOD)
    file = path.parents[1] / "models/m/config.pbtxt"
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(ConfigError, match="is no plain file"):
        Scaling.load(path)


def test_what_it_says_is_no_key_of_the_file(write):
    path = write(GOOD + "    config_pbtxt: ''\n")
    with pytest.raises(ConfigError, match=r"no such key; .* start_seconds, drain_seconds$"):
        Scaling.load(path)
