"""Where the weights are: a folder on this machine, or a model of the Hugging Face hub."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

IR = ("openvino_model.xml", "openvino_model.bin")
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
# Files of other frameworks, each as large as the model.
_NOT_NEEDED = ["*.gguf", "*.h5", "*.msgpack", "*.onnx", "*.pt", "*.pth", "original/*"]


class WeightsError(Exception):
    """There are no weights to load; the text names the place and the reason."""


def resolve(model: str, folder: Path, hub_cache: Path | None = None) -> Path:
    """Find the folder with the OpenVINO IR of `model`. Raises `WeightsError`.

    A path is absolute, or relative to the model's `folder`. A name such as `org/name` that is
    no folder there is fetched from the Hugging Face hub (into `hub_cache`, else the user's
    cache), and exported to OpenVINO with `optimum-cli` if it comes in another form. `weights/`
    and `./` always begin a path, so that missing weights are not looked for on the hub.
    """
    path = folder / model
    is_path = model.startswith(("/", ".", "weights/")) or path.is_dir()
    if not is_path and _HUB_NAME.fullmatch(model):
        return _from_hub(model, hub_cache)
    if not path.is_dir():
        raise WeightsError(f"{path}: there is no such folder")
    for name in IR:
        if not (path / name).is_file():
            raise WeightsError(f"{path / name}: is missing")
    return path


def _from_hub(name: str, cache: Path | None) -> Path:
    # Here, because it takes longer to import than a small model to load.
    from huggingface_hub import snapshot_download  # noqa: PLC0415

    try:
        snapshot = Path(snapshot_download(name, cache_dir=cache, ignore_patterns=_NOT_NEEDED))
    except Exception as error:
        raise WeightsError(f"{name}: cannot be had from the Hugging Face hub: {error}") from error
    if all((snapshot / part).is_file() for part in IR):
        return snapshot
    return _export(name, snapshot)


def _export(name: str, snapshot: Path) -> Path:
    """Convert a snapshot to an OpenVINO IR with 8-bit weights, once for each revision."""
    target = snapshot.parent.parent / "openvino-int8" / snapshot.name
    if all((target / part).is_file() for part in IR):
        return target
    program = shutil.which("optimum-cli", path=str(Path(sys.executable).parent)) or shutil.which(
        "optimum-cli"
    )
    if program is None:
        raise WeightsError(
            f"{name}: has no OpenVINO IR ({IR[0]}), and optimum-cli is not installed to make "
            "one; install optimum-intel or name a model that has one"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=target.parent))
    try:
        order = [program, "export", "openvino", "--model", str(snapshot)]
        order += ["--task", "text-generation-with-past", "--weight-format", "int8", str(scratch)]
        done = subprocess.run(order, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode != 0:
            tail = done.stderr.strip().rpartition("\n")[2]
            raise WeightsError(f"{name}: optimum-cli could not export it: {tail}")
        try:
            scratch.rename(target)
        except OSError:
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target
