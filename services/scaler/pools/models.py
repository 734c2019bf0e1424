"""What Triton is told of a pool's model, its ``config.pbtxt``: where it is, read and checked."""

from collections.abc import Callable, Iterator
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from services.scaler.pools.places import Problem
from services.scaler.pools.pool import Pool

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


def take_models(pools: dict[str, Pool], read: Callable[[Path], bytes]) -> Iterator[Problem]:
    """Notes what the models' folders say; what is wrong with them."""
    for name, pool in list(pools.items()):
        if pool.repository is None:
            continue
        folder = pool.repository / pool.model
        try:
            if not pool.repository.is_dir():
                yield ("pools", name, "repository"), f"must be a folder, got {pool.repository}"
                continue
            text = read(folder / FILE).decode("utf-8")
            parse_model_config(text, folder)
        except (FileNotFoundError, NotADirectoryError):
            yield ("pools", name, "model"), f"must be a model folder with {FILE}, got {folder}"
        except (OSError, UnicodeDecodeError) as error:
            yield ("pools", name, "model"), f"must have a {FILE} that can be read: {error}"
        except ModelFolderError as error:
            rule = f"must have a {FILE} that Triton takes, and it {error.reason}"
            yield ("pools", name, "model"), f"{rule}, got {error.path}"
        else:
            pools[name] = pool.having(text)
