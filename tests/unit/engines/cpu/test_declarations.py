"""config.pbtxt says what the engine does."""

from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from engines.cpu.settings import SettingsError, from_parameters
from engines.cpu.tensors import INPUTS, OUTPUTS, REFUSED_INPUTS

REPOSITORY = Path(__file__).resolve().parents[4] / "model_repository" / "cpu"


@pytest.fixture(params=["small", "large"])
def config(request: pytest.FixtureRequest) -> model_config_pb2.ModelConfig:
    text = (REPOSITORY / request.param / "config.pbtxt").read_text()
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def test_every_tensor_of_the_contract_is_declared_and_no_other(
    config: model_config_pb2.ModelConfig,
) -> None:
    declared = {
        tensor.name: (
            model_config_pb2.DataType.Name(tensor.data_type),
            None if tensor.HasField("reshape") else tuple(tensor.dims),
        )
        for tensor in config.input
    }
    assert declared == {**INPUTS, **REFUSED_INPUTS}
    outputs = {
        tensor.name: (model_config_pb2.DataType.Name(tensor.data_type), tuple(tensor.dims))
        for tensor in config.output
    }
    assert outputs == OUTPUTS
    assert not INPUTS.keys() & REFUSED_INPUTS.keys()


def test_only_the_contracts_required_inputs_are_required(
    config: model_config_pb2.ModelConfig,
) -> None:
    assert {t.name for t in config.input if not t.optional} == {
        "input_lengths",
        "request_output_len",
    }


def test_a_batch_dimension_and_streaming(config: model_config_pb2.ModelConfig) -> None:
    assert config.max_batch_size > 0
    assert config.model_transaction_policy.decoupled
    assert not config.HasField("dynamic_batching")  # requests arrive singly and at once


def test_the_parameters_are_the_engines(config: model_config_pb2.ModelConfig) -> None:
    parameters = {key: value.string_value for key, value in config.parameters.items()}
    settings = from_parameters(parameters)
    assert settings.model == "weights/int8"
    assert settings.num_threads == 1


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({}, r"parameters\['model'\] must name a folder"),
        ({"model": "m", "typo": "1"}, r"parameters\['typo'\] is not a parameter"),
        ({"model": "m", "num_threads": "two"}, "must be a whole number, not 'two'"),
        ({"model": "m", "num_threads": "0"}, "must be at least 1, not 0"),
        ({"model": "m", "inference_precision": "f8"}, "must be one of .* not 'f8'"),
        ({"model": "m", "enable_kv_cache_reuse": "maybe"}, "must be true or false, not 'maybe'"),
        ({"model": "m", "normalize_log_probs": "true"}, "must be false"),
    ],
)
def test_a_parameter_that_means_nothing_stops_the_load(
    parameters: dict[str, str], text: str
) -> None:
    with pytest.raises(SettingsError, match=text):
        from_parameters(parameters)
