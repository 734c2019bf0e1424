"""What a replica's server is shown of the model repository, and what is wrong with it."""

import errno

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from services.scaler.pools.models import ModelFolderError
from services.scaler.targets import model_view
from services.scaler.targets.model_view import prepare_view
from services.scaler.targets.tritonserver import ReplicaLaunch

CONFIG = 'backend: "python" parameters { key: "model" value { string_value: "weights/int8" } }'


@pytest.fixture
def repository(tmp_path):
    folder = tmp_path / "repository" / "small"
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "model.py").write_text("")
    (folder / "config.pbtxt").write_text(CONFIG)
    return folder.parent


def launch(repository, **changes):
    return ReplicaLaunch(
        **{
            "replica_id": "small-1",
            "model": "small",
            "repository": repository,
            "grpc_port": 9001,
            "metrics_port": 9002,
            **changes,
        }
    )


def test_the_view_holds_one_model_with_its_parameters_overridden(repository, tmp_path):
    view = prepare_view(
        launch(repository, parameters={"model": "weights/int4", "num_threads": "2"}),
        tmp_path / "view",
    )
    (model,) = view.iterdir()
    text = (model / "config.pbtxt").read_text()
    config = text_format.Parse(text, model_config_pb2.ModelConfig())
    assert config.name == "small"
    values = {key: value.string_value for key, value in config.parameters.items()}
    assert values == {"model": "weights/int4", "num_threads": "2"}
    assert (model / "1" / "model.py").resolve() == repository / "small" / "1" / "model.py"


def test_the_view_says_what_was_checked_whatever_is_there_now(repository, tmp_path):
    (repository / "small" / "config.pbtxt").write_text("broken {")
    view = prepare_view(launch(repository, config_pbtxt=CONFIG), tmp_path / "view")
    assert "weights/int8" in (view / "small" / "config.pbtxt").read_text()


def test_want_of_descriptors_is_no_fault_of_the_folder(repository, tmp_path, monkeypatch):
    def refuse(*_args: object) -> bytes:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(model_view, "read_plain", refuse)
    with pytest.raises(OSError, match="Too many open files"):
        prepare_view(launch(repository), tmp_path / "view")


def test_a_view_can_be_prepared_again(repository, tmp_path):
    prepare_view(launch(repository, parameters={"model": "a"}), tmp_path / "view")
    view = prepare_view(launch(repository), tmp_path / "view")
    assert "weights/int8" in (view / "small" / "config.pbtxt").read_text()


@pytest.mark.parametrize(
    ("damage", "path", "reason"),
    [
        (lambda folder: (folder / "config.pbtxt").unlink(), "config.pbtxt", "cannot be read"),
        (
            lambda folder: (folder / "config.pbtxt").write_text("backend: {"),
            "config.pbtxt",
            "is not a model configuration",
        ),
        (
            lambda folder: (folder / "config.pbtxt").write_text('name: "other"'),
            "config.pbtxt",
            "names the model 'other', not 'small'",
        ),
        (lambda folder: (folder / "1" / "model.py").unlink(), "1/model.py", "is missing"),
        (lambda folder: (folder / "1").rename(folder / "one"), "", "has no version folder"),
    ],
)
def test_a_broken_model_folder_says_what_is_wrong_where(repository, tmp_path, damage, path, reason):
    damage(repository / "small")
    with pytest.raises(ModelFolderError, match=reason) as caught:
        prepare_view(launch(repository), tmp_path / "view")
    assert caught.value.path == repository / "small" / path


def test_a_model_that_is_not_there(repository, tmp_path):
    with pytest.raises(ModelFolderError, match="is not a folder"):
        prepare_view(launch(repository, model="huge"), tmp_path / "view")
