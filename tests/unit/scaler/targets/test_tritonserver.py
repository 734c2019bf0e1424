"""How a replica's server is found, shown its model and started."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from services.scaler.targets import tritonserver
from services.scaler.targets.tritonserver import (
    ModelFolderError,
    ReplicaLaunch,
    RuntimeNotFoundError,
    TritonRuntime,
    command,
    find_runtime,
    prepare_view,
    remove_shared_memory,
    shared_memory_prefix,
    stub_pids,
)

CONFIG = 'backend: "python" parameters { key: "model" value { string_value: "weights/int8" } }'
RUNTIME = TritonRuntime(Path("/t/tritonserver"), Path("/t/backends"), "/t/lib", Path("/v/bin"))


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


def test_the_command_closes_what_nobody_needs(repository):
    argv, environment = command(RUNTIME, launch(repository), Path("/view"))
    assert argv[0] == "/t/tritonserver"
    flags = dict(flag.removeprefix("--").partition("=")[::2] for flag in argv[1:])
    assert flags["model-repository"] == "/view"
    assert flags["model-control-mode"] == "none"
    assert flags["allow-http"] == "false"
    assert flags["grpc-address"] == flags["metrics-address"] == "127.0.0.1"
    assert flags["grpc-restricted-protocol"].startswith(
        "model-repository,shared-memory,trace,logging:"
    )
    assert flags["backend-config"] == "python,shm-region-prefix-name=pennyweight_small-1_"
    assert environment == {
        "PATH": "/v/bin:/usr/bin:/bin",
        "LD_LIBRARY_PATH": "/t/lib",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def test_the_closed_protocols_have_a_key_of_their_own_each_time(repository):
    (first, _), (second, _) = (
        command(RUNTIME, launch(repository), Path("/view")) for _ in range(2)
    )
    assert first != second


def test_a_pinned_replica_keeps_its_process_id(repository):
    argv, _ = command(RUNTIME, launch(repository, cpus=(0, 3)), Path("/view"))
    assert argv[:4] == ["taskset", "-c", "0,3", "/t/tritonserver"]


def test_the_base_environment_is_inherited(repository):
    base = {"PATH": "/bin", "LD_LIBRARY_PATH": "/l", "HF_HOME": "/hf"}
    _, environment = command(RUNTIME, launch(repository), Path("/view"), base)
    assert environment["PATH"] == "/v/bin:/bin"
    assert environment["LD_LIBRARY_PATH"] == "/t/lib:/l"
    assert environment["HF_HOME"] == "/hf"


@pytest.mark.parametrize("replica_id", ["", "a_b", "../a", "a b", "-a", "a" * 65])
def test_a_replica_id_fits_into_a_shared_memory_name(repository, replica_id):
    with pytest.raises(ValueError, match="replica_id must be"):
        launch(repository, replica_id=replica_id)


def test_the_runtime_is_assembled_once_also_by_several_at_once(tmp_path):
    pytest.importorskip("pytriton")
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(find_runtime, [tmp_path / "cache"] * 8))
    (runtime,) = found
    assert os.access(runtime.server, os.X_OK)
    stub = runtime.backend_directory / "python" / "triton_python_backend_stub"
    assert os.access(stub, os.X_OK)
    assert [entry.name for entry in (tmp_path / "cache").iterdir()] == [
        runtime.backend_directory.name
    ]


def test_a_real_installation_brings_its_own_backends(tmp_path):
    server = tmp_path / "tritonserver" / "bin" / "tritonserver"
    server.parent.mkdir(parents=True)
    with pytest.raises(RuntimeNotFoundError, match="is missing or not executable"):
        find_runtime(tmp_path / "cache", server)
    server.write_text("")
    server.chmod(0o755)
    with pytest.raises(RuntimeNotFoundError, match="has no backends"):
        find_runtime(tmp_path / "cache", server)
    (tmp_path / "tritonserver" / "backends").mkdir()
    runtime = find_runtime(tmp_path / "cache", server)
    assert runtime.backend_directory == tmp_path / "tritonserver" / "backends"
    assert runtime.library_path == str(tmp_path / "tritonserver" / "lib")


def test_without_the_wheel_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(RuntimeNotFoundError, match=r"install the \[local\] extra"):
        find_runtime(tmp_path)


def test_only_a_replicas_own_shared_memory_goes(tmp_path, monkeypatch):
    monkeypatch.setattr(tritonserver, "_SHARED_MEMORY", tmp_path)
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
