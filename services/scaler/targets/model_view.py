"""What a replica's server sees of the model repository: one model, with its pool's parameters.

Leaves to the server what a model is; checks what would only show there as a failed start.
"""

from collections.abc import Sequence
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from services.scaler.targets.tritonserver import ReplicaLaunch


class ModelFolderError(RuntimeError):
    """A model folder cannot be served. `path` is the offending file or folder."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


def prepare_view(launch: ReplicaLaunch, directory: Path) -> Path:
    """Write a model repository below `directory` that holds just `launch.model`; return its path.

    Its parameters are overridden by the launch's. Calling it again overwrites. The version
    folders are links into the real model folder, so weights are not copied and a Python model
    still finds its own source tree. Raises `ModelFolderError`.
    """
    source = (launch.repository / launch.model).resolve()
    config = read_model_config(source)
    if config.name not in ("", launch.model):
        raise ModelFolderError(
            source / "config.pbtxt", f"names the model {config.name!r}, not {launch.model!r}"
        )
    for key, value in launch.parameters.items():
        config.parameters[key].string_value = value
    config.name = launch.model

    view = directory / launch.model
    view.mkdir(parents=True, exist_ok=True)
    for version in _version_folders(source, config.backend):
        link = view / version.name
        if link.is_symlink():
            link.unlink()
        link.symlink_to(version, target_is_directory=True)
    (view / "config.pbtxt").write_text(text_format.MessageToString(config), encoding="utf-8")
    return directory


def read_model_config(model_folder: Path) -> model_config_pb2.ModelConfig:
    """The parsed config.pbtxt of a model folder. Raises `ModelFolderError`."""
    path = model_folder / "config.pbtxt"
    if not model_folder.is_dir():
        raise ModelFolderError(model_folder, "is not a folder")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelFolderError(path, f"cannot be read: {error}") from error
    try:
        return text_format.Parse(text, model_config_pb2.ModelConfig())
    except text_format.ParseError as error:
        raise ModelFolderError(path, f"is not a model configuration: {error}") from error


def _version_folders(source: Path, backend: str) -> Sequence[Path]:
    versions = sorted(
        entry for entry in source.iterdir() if entry.name.isdecimal() and entry.is_dir()
    )
    if not versions:
        raise ModelFolderError(source, "has no version folder (a folder named by a number)")
    if backend == "python":
        for version in versions:
            if not (version / "model.py").is_file():
                raise ModelFolderError(version / "model.py", "is missing")
    return versions
