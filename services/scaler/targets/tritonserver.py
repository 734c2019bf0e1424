"""How a Triton server is started on this host: what to run, on what, with which flags.

Responsible for finding a `tritonserver`, laying out a repository that shows it one model, and
spelling its command line. Leaves starting, watching and ending the process to
`replica_processes`: nothing here starts or ends anything but files.

Errors: `RuntimeNotFoundError` when no server can be found, `ModelFolderError` when a model
folder cannot be served; both say which path and why.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import secrets
import shutil
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from services.common.files import whole_folder

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where POSIX shared memory lives
_STUB_NAME = "triton_python_backend_stub"
_REPLICA_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,63}")


class RuntimeNotFoundError(RuntimeError):
    """There is no Triton server to start: the message names what was looked for and where."""


class ModelFolderError(RuntimeError):
    """A model folder cannot be served. `path` is the offending file or folder."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


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


@dataclass(frozen=True)
class ReplicaLaunch:
    """One replica to start: one model, at one address.

    `model` is both the folder below `repository` and the name Triton serves it under.
    `parameters` override the `parameters` of its config.pbtxt. `cpus` are the cores it may use,
    none means all. `exit_timeout_seconds` is how long the server waits for running requests
    after SIGTERM; drain first, it does not count streams that are still being written.
    """

    replica_id: str
    model: str
    repository: Path
    grpc_port: int
    metrics_port: int
    host: str = "127.0.0.1"
    parameters: Mapping[str, str] = field(default_factory=dict)
    cpus: tuple[int, ...] = ()
    exit_timeout_seconds: int = 5

    def __post_init__(self) -> None:
        # The id becomes part of shared memory names, which are later removed by that prefix.
        if not _REPLICA_ID.fullmatch(self.replica_id):
            raise ValueError(
                f"replica_id must be 1-64 letters, digits, dots or dashes: {self.replica_id!r}"
            )


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
        wheel_server / "python_backend_stubs" / python / _STUB_NAME,
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


def command(
    runtime: TritonRuntime,
    launch: ReplicaLaunch,
    view: Path,
    base_environment: Mapping[str, str] | None = None,
) -> tuple[list[str], dict[str, str]]:
    """The command line and the whole environment of a replica's server process.

    `view` is what `prepare_view` returned. `base_environment` is inherited (proxies, HF_HOME);
    without it the server sees only what it needs. With `cpus` the line starts with `taskset`,
    which replaces itself by the server: the process id stays the server's own.
    """
    flags = {
        "model-repository": view,
        "backend-directory": runtime.backend_directory,
        # One model, loaded at the start, for good: the repository API would run anyone's
        # model.py. A model that fails to load ends the server with its reason in the log.
        "model-control-mode": "none",
        "strict-readiness": "true",
        "disable-auto-complete-config": None,
        "exit-timeout-secs": launch.exit_timeout_seconds,
        "allow-http": "false",
        "grpc-address": launch.host,
        "grpc-port": launch.grpc_port,
        # The key is drawn here and kept by nobody: these protocols are closed.
        "grpc-restricted-protocol": (
            "model-repository,shared-memory,trace,logging:"
            f"pennyweight-closed={secrets.token_urlsafe(24)}"
        ),
        # Idle pooled channels may ping; the defaults answer that with GOAWAY.
        "grpc-keepalive-time": 60_000,
        "grpc-keepalive-permit-without-calls": "true",
        "grpc-http2-min-recv-ping-interval-without-data": 10_000,
        "grpc-http2-max-ping-strikes": 10,
        "metrics-address": launch.host,
        "metrics-port": launch.metrics_port,
        "metrics-interval-ms": 500,
        "metrics-config": "histogram_latencies=true",
        "backend-config": (
            f"python,shm-region-prefix-name={shared_memory_prefix(launch.replica_id)}"
        ),
    }
    argv = ["taskset", "-c", ",".join(map(str, launch.cpus))] if launch.cpus else []
    argv.append(str(runtime.server))
    argv += [f"--{name}" if value is None else f"--{name}={value}" for name, value in flags.items()]

    environment = dict(base_environment or {})
    environment["PATH"] = _joined(runtime.python_bin, environment.get("PATH", "/usr/bin:/bin"))
    environment["LD_LIBRARY_PATH"] = _joined(
        runtime.library_path, environment.get("LD_LIBRARY_PATH", "")
    )
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    return argv, environment


def _joined(first: object, rest: str) -> str:
    return f"{first}:{rest}" if rest else str(first)


def shared_memory_prefix(replica_id: str) -> str:
    """What the names of a replica's shared memory start with.

    `_` cannot occur in an id, so no prefix is the beginning of another's.
    """
    return f"pennyweight_{replica_id}_"


def remove_shared_memory(replica_id: str) -> list[str]:
    """Unlink the shared memory a dead replica left behind; return the names, if any.

    Call it only once the server and its stubs are gone.
    """
    removed = []
    for region in _SHARED_MEMORY.glob(f"{shared_memory_prefix(replica_id)}*"):
        try:
            region.unlink()
        except FileNotFoundError:
            continue
        removed.append(region.name)
    return removed


def stub_pids(server_pid: int) -> tuple[int, ...]:
    """The process ids of the Python backend stubs that `server_pid` started, now.

    A stub outlives a server that was killed: read them while the server lives.
    """
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            stat = (entry / "stat").read_text()
            executable = (entry / "exe").readlink()
        except OSError:
            continue  # gone between the listing and the reading
        # "pid (name) state ppid ...": the name may hold spaces and brackets.
        parent = int(stat.rpartition(")")[2].split()[1])
        if parent == server_pid and executable.name.startswith(_STUB_NAME):
            found.append(int(entry.name))
    return tuple(sorted(found))
