"""How a Triton server is found on this host."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from services.scaler.targets.runtime import RuntimeNotFoundError, find_runtime


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
