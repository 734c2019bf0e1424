"""How a replica's Triton server is started: its command line, its environment, what it leaves.

Leaves to `runtime` which server that is, to `model_view` what it serves, and starting, watching
and ending the process to `replica_processes`: nothing here starts or ends a process.
"""

import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from services.scaler.targets import processes
from services.scaler.targets.runtime import STUB_NAME, TritonRuntime

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where POSIX shared memory lives
REPLICA_VARIABLE = "PENNYWEIGHT_REPLICA_ID"
"""In the environment of everything a replica starts: how its family is found."""

_REPLICA_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,63}")


@dataclass(frozen=True)
class ReplicaLaunch:
    """One replica to start: one model, at one address.

    `model` is both the folder below `repository` and the name Triton serves it under.
    `config_pbtxt` is the text of its config.pbtxt; empty: as it is. `parameters` override the
    `parameters` there. `cpus` are the cores it may use, `gpus` the GPUs that it sees,
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
    config_pbtxt: str = ""
    cpus: tuple[int, ...] = ()
    gpus: tuple[int, ...] = ()
    exit_timeout_seconds: int = 5

    def __post_init__(self) -> None:
        # The id becomes part of shared memory names, which are later removed by that prefix.
        if not _REPLICA_ID.fullmatch(self.replica_id):
            raise ValueError(
                f"replica_id must be 1-64 letters, digits, dots or dashes: {self.replica_id!r}"
            )


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
        # Closed to everybody. Whoever sends the header that is named here may use them, and every
        # user of this machine can read a command line: so it is one that no request can have.
        # HTTP/2 knows no capital letters in names, and gRPC ends the connection over one.
        "grpc-restricted-protocol": "model-repository,shared-memory,trace,logging:Closed=closed",
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
    if launch.gpus:
        # By place on the bus, as device files and nvidia-smi number them; CUDA's own order is by
        # speed.
        environment["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, launch.gpus))
    return argv, environment


def _joined(first: object, rest: str) -> str:
    return f"{first}:{rest}" if rest else str(first)


def shared_memory_prefix(replica_id: str) -> str:
    """What the names of a replica's shared memory start with.

    `_` cannot occur in an id, so no prefix is the beginning of another's.
    """
    return f"pennyweight_{replica_id}_"


def protect_shared_memory(replica_id: str) -> None:
    """Make the shared memory of a replica its user's alone: prompts pass through it.

    The server gives it the rights 0644, whatever its umask says.
    """
    for region in SHARED_MEMORY.glob(f"{shared_memory_prefix(replica_id)}*"):
        with contextlib.suppress(FileNotFoundError):
            region.chmod(0o600)


def remove_shared_memory(replica_id: str) -> list[str]:
    """Unlink the shared memory a dead replica left behind; return the names, if any.

    Call it only once the server and its stubs are gone.
    """
    removed = []
    for region in SHARED_MEMORY.glob(f"{shared_memory_prefix(replica_id)}*"):
        try:
            region.unlink()
        except FileNotFoundError:
            continue
        removed.append(region.name)
    return removed


def stub_pids(server_pid: int) -> tuple[int, ...]:
    """The process ids of the Python backend stubs that `server_pid` started, now.

    A stub outlives a server that was killed: read them while the server lives.

    Raises:
        OSError: they cannot be found out.
    """
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            stat = (entry / "stat").read_text()
            executable = (entry / "exe").readlink()
        except OSError as error:
            processes.heed(error)
            continue  # gone between the listing and the reading
        # "pid (name) state ppid ...": the name may hold spaces and brackets.
        parent = int(stat.rpartition(")")[2].split()[1])
        if parent == server_pid and executable.name.startswith(STUB_NAME):
            found.append(int(entry.name))
    return tuple(sorted(found))
