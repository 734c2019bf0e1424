"""What Triton is told of a model, its ``config.pbtxt``: where it is, read and checked."""

from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

FILE = "config.pbtxt"

MAX_BYTES = 2**20


class ModelFolderError(RuntimeError):
    """A model folder cannot be served. `path` is the offending file or folder."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


def parse_model_config(text: str, model_folder: Path) -> model_config_pb2.ModelConfig:
    """What the ``config.pbtxt`` of a model folder says.

    Raises:
        ModelFolderError: it is none, or another model's.
    """
    path, model = model_folder / FILE, model_folder.name
    try:
        config = text_format.Parse(text, model_config_pb2.ModelConfig())
    except (text_format.ParseError, RecursionError) as error:
        raise ModelFolderError(path, f"is not a model configuration: {error}") from error
    if config.name not in ("", model):
        raise ModelFolderError(path, f"names the model {config.name!r}, not {model!r}")
    return config
