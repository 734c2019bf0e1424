"""How a replica's server is started, and what it leaves."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from services.scaler.targets import tritonserver
from services.scaler.targets.runtime import TritonRuntime
from services.scaler.targets.tritonserver import (
    ReplicaLaunch,
    command,
    protect_shared_memory,
    remove_shared_memory,
    shared_memory_prefix,
    stub_pids,
)

RUNTIME = TritonRuntime(Path("/t/tritonserver"), Path("/t/backends"), "/t/lib", Path("/v/bin"))


def launch(**changes):
    return ReplicaLaunch(
        **{
            "replica_id": "small-1",
            "model": "small",
            "repository": Path("/repository"),
            "grpc_port": 9001,
            "metrics_port": 9002,
            **changes,
        }
    )


def test_the_command_closes_what_nobody_needs():
    argv, environment = command(RUNTIME, launch(), Path("/view"))
    assert argv[0] == "/t/tritonserver"
    flags = dict(flag.removeprefix("--").partition("=")[::2] for flag in argv[1:])
    assert flags["model-repository"] == "/view"
    assert flags["model-control-mode"] == "none"
    assert flags["allow-http"] == "false"
    assert flags["grpc-address"] == flags["metrics-address"] == "127.0.0.1"
    closed, _, key = flags["grpc-restricted-protocol"].partition(":")
    assert closed == "model-repository,shared-memory,trace,logging"
    # Everybody may read it: no request can have a header of such a name.
    name = key.partition("=")[0]
    assert name != name.lower()
    assert flags["backend-config"] == "python,shm-region-prefix-name=pennyweight_small-1_"
    assert environment == {
        "PATH": "/v/bin:/usr/bin:/bin",
        "LD_LIBRARY_PATH": "/t/lib",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def test_a_pinned_replica_keeps_its_process_id():
    argv, _ = command(RUNTIME, launch(cpus=(0, 3)), Path("/view"))
    assert argv[:4] == ["taskset", "-c", "0,3", "/t/tritonserver"]


def test_a_replica_sees_the_gpus_of_its_slot_alone():
    base = {"CUDA_VISIBLE_DEVICES": "5,6"}
    _, environment = command(RUNTIME, launch(gpus=(0, 3)), Path("/view"), base)
    assert environment["CUDA_VISIBLE_DEVICES"] == "0,3"
    assert environment["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    _, environment = command(RUNTIME, launch(), Path("/view"), base)
    assert environment["CUDA_VISIBLE_DEVICES"] == "5,6"


def test_the_base_environment_is_inherited():
    base = {"PATH": "/bin", "LD_LIBRARY_PATH": "/l", "HF_HOME": "/hf"}
    _, environment = command(RUNTIME, launch(), Path("/view"), base)
    assert environment["PATH"] == "/v/bin:/bin"
    assert environment["LD_LIBRARY_PATH"] == "/t/lib:/l"
    assert environment["HF_HOME"] == "/hf"


@pytest.mark.parametrize("replica_id", ["", "a_b", "../a", "a b", "-a", "a" * 65])
def test_a_replica_id_fits_into_a_shared_memory_name(replica_id):
    with pytest.raises(ValueError, match="replica_id must be"):
        launch(replica_id=replica_id)


def test_a_replicas_shared_memory_is_for_its_user_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(tritonserver, "SHARED_MEMORY", tmp_path)
    for name in ("pennyweight_a_1", "pennyweight_a-b_1"):
        (tmp_path / name).touch(0o644)
    protect_shared_memory("a")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"pennyweight_a_1": 0o600, "pennyweight_a-b_1": 0o644}


def test_only_a_replicas_own_shared_memory_goes(tmp_path, monkeypatch):
    monkeypatch.setattr(tritonserver, "SHARED_MEMORY", tmp_path)
    mine = tmp_path / f"{shared_memory_prefix('a')}1"
    others = [tmp_path / f"{shared_memory_prefix(name)}1" for name in ("a1", "a.b", "b")]
    for region in (mine, *others):
        region.write_text("")
    assert remove_shared_memory("a") == [mine.name]
    assert remove_shared_memory("a") == []
    assert all(region.exists() for region in others)


def test_stubs_are_children_of_the_server(tmp_path):
    stub = tmp_path / "triton_python_backend_stub"
    stub.symlink_to(Path("/bin/sleep").resolve())
    copied = tmp_path / "bin" / "triton_python_backend_stub"
    copied.parent.mkdir()
    copied.write_bytes(stub.read_bytes())
    copied.chmod(0o755)
    with subprocess.Popen([str(copied), "30"]) as child:
        try:
            assert stub_pids(os.getpid()) == (child.pid,)
            assert stub_pids(child.pid) == ()
        finally:
            child.kill()


def test_the_module_is_plain():
    """Nothing of any service, only what all share: a supervisor of any kind can use it."""
    script = (
        "import sys, services.scaler.targets.tritonserver; "
        "print(*sorted({m.split('.')[1] for m in sys.modules if m.startswith('services.')}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["common", "scaler"]
