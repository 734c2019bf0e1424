"""Which Triton server runs replicas on this host: a real installation, or the one in the wheel.

Leaves to `tritonserver` how it is started.
"""

import importlib.metadata
import importlib.util
import os
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from services.common.files import whole_folder

STUB_NAME = "triton_python_backend_stub"
"""The program that the Python backend runs a model in."""


class RuntimeNotFoundError(RuntimeError):
    """There is no Triton server to start: the message names what was looked for and where."""


@dataclass(frozen=True)
class TritonRuntime:
    """Where a Triton server lives on this machine.

    `backend_directory` holds one folder per backend, `library_path` is the value the server's
    LD_LIBRARY_PATH starts with, `python_bin` the `bin` folder of the environment whose packages
    the Python backend imports (it finds them through PATH and ignores PYTHONPATH).
    """

    server: Path
    backend_directory: Path
    library_path: str
    python_bin: Path


def find_runtime(cache_dir: Path, server: Path | None = None) -> TritonRuntime:
    """Find the Triton to run. Raises `RuntimeNotFoundError`.

    That is `server` if given (the binary of a real installation, such as
    /opt/tritonserver/bin/tritonserver), else the one inside the nvidia-pytriton wheel. The
    wheel's Python backend is spread over several folders; it is copied into one below
    `cache_dir`, once per version, safely when several processes do so at the same time.
    """
    python_bin = Path(sys.executable).parent
    if server is not None:
        return _installed_runtime(server, python_bin)

    package = importlib.util.find_spec("pytriton")
    if package is None or package.origin is None:
        raise RuntimeNotFoundError(
            "no Triton server: the nvidia-pytriton package is not installed in "
            f"{sys.prefix}; install the [local] extra or name a tritonserver binary"
        )
    wheel = Path(package.origin).parent
    binary = wheel / "tritonserver" / "bin" / "tritonserver"
    if not os.access(binary, os.X_OK):
        raise RuntimeNotFoundError(f"no Triton server: {binary} is missing or not executable")
    libraries = (
        wheel.parent / "nvidia_pytriton.libs",
        # The stub embeds this interpreter: its libpython is found here when it is not the
        # system's own.
        Path(str(sysconfig.get_config_var("LIBDIR") or Path(sys.base_prefix) / "lib")),
    )
    return TritonRuntime(
        server=binary,
        backend_directory=_assemble_backends(wheel / "tritonserver", cache_dir),
        library_path=":".join(str(folder) for folder in libraries),
        python_bin=python_bin,
    )


def _installed_runtime(server: Path, python_bin: Path) -> TritonRuntime:
    if not os.access(server, os.X_OK):
        raise RuntimeNotFoundError(f"no Triton server: {server} is missing or not executable")
    root = server.resolve().parent.parent
    backends = root / "backends"
    if not backends.is_dir():
        raise RuntimeNotFoundError(f"{server} has no backends: {backends} is not a folder")
    return TritonRuntime(server, backends, str(root / "lib"), python_bin)


def _assemble_backends(wheel_server: Path, cache_dir: Path) -> Path:
    """Copy the Python backend and this interpreter's stub into one folder."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    sources = [
        wheel_server / "backends" / "python",
        wheel_server / "python_backend_stubs" / python / STUB_NAME,
    ]
    for source in sources:
        if not source.exists():
            raise RuntimeNotFoundError(
                f"the nvidia-pytriton package has no Python backend for Python {python}: "
                f"{source} is missing"
            )
    version = importlib.metadata.version("nvidia-pytriton")
    target = cache_dir / f"triton-backends-{version}-python{python}"
    if target.is_dir():
        return target

    with whole_folder(target) as unfinished:
        shutil.copytree(sources[0], unfinished / "python")
        stub = Path(shutil.copy2(sources[1], unfinished / "python"))
        stub.chmod(0o755)
    return target
