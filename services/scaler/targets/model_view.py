"""What a replica's server sees of the model repository: one model, with its pool's parameters.

Leaves to the server what a model is; checks what would only show there as a failed start.
"""

from collections.abc import Sequence
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from services.common.descriptors import is_own_want
from services.common.files import resolved
from services.common.plain_files import read_plain
from services.scaler.pools.models import FILE, MAX_BYTES, ModelFolderError, parse_model_config
from services.scaler.targets.tritonserver import ReplicaLaunch


def prepare_view(launch: ReplicaLaunch, directory: Path) -> Path:
    """Write a model repository below `directory` that holds just `launch.model`; return its path.

    Its parameters are overridden by the launch's. Calling it again overwrites. The version
    folders are links into the real model folder, so weights are not copied and a Python model
    still finds its own source tree. Raises `ModelFolderError`.
    """
    source = resolved(launch.repository / launch.model)
    config = model_config_of(launch)
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
    (view / FILE).write_text(text_format.MessageToString(config), encoding="utf-8")
    return directory


def model_config_of(launch: ReplicaLaunch) -> model_config_pb2.ModelConfig:
    """What the model's ``config.pbtxt`` says: the launch's, or else what is in its folder.

    Raises:
        ModelFolderError: it is none.
        OSError: we cannot read it now.
    """
    folder = launch.repository / launch.model
    if launch.config_pbtxt:
        return parse_model_config(launch.config_pbtxt, folder)
    if not folder.is_dir():
        raise ModelFolderError(folder, "is not a folder")
    try:
        text = read_plain(folder / FILE, MAX_BYTES).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        if isinstance(error, OSError) and is_own_want(error):
            raise
        raise ModelFolderError(folder / FILE, f"cannot be read: {error}") from error
    return parse_model_config(text, folder)


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
