"""Where the weights are looked for."""

import os
import stat
import sys
from pathlib import Path

import pytest
from huggingface_hub import constants

from engines.cpu.process.weights import IR, WeightsError, resolve

REVISION = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """A hub cache as a download leaves it."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache

    def fill(self, *files: str) -> Path:
        """The snapshot of org/model, with these files."""
        model = self.cache / "models--org--model"
        snapshot = model / "snapshots" / REVISION
        snapshot.mkdir(parents=True)
        (model / "refs").mkdir()
        (model / "refs" / "main").write_text(REVISION)
        for name in files:
            (snapshot / name).write_text("")
        return snapshot


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """No network, and nothing downloaded yet."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return Hub(tmp_path / "hub")


def test_a_folder_beside_the_model(tmp_path: Path) -> None:
    folder = tmp_path / "weights" / "int8"
    folder.mkdir(parents=True)
    for name in IR:
        (folder / name).write_text("")
    assert resolve("weights/int8", tmp_path) == folder
    assert resolve(str(folder), tmp_path / "elsewhere") == folder


def test_missing_weights_are_not_looked_for_on_the_hub(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"weights/int8: there is no such folder"):
        resolve("weights/int8", tmp_path)


def test_a_folder_without_a_graph_says_which_file_is_missing(tmp_path: Path) -> None:
    (tmp_path / "weights" / "int8").mkdir(parents=True)
    with pytest.raises(WeightsError, match=r"weights/int8/openvino_model.xml: is missing"):
        resolve("weights/int8", tmp_path)


def test_a_hub_model_in_openvinos_form(hub: Hub, tmp_path: Path) -> None:
    snapshot = hub.fill(*IR, "config.json")
    assert resolve("org/model", tmp_path, hub.cache) == snapshot


def test_a_hub_model_that_is_not_there(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="org/model: cannot be had from the Hugging Face hub"):
        resolve("org/model", tmp_path, hub.cache)


def test_another_form_needs_the_exporter(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.fill("config.json", "model.safetensors")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(WeightsError, match="optimum-cli is not installed"):
        resolve("org/model", tmp_path, hub.cache)


def exporter(folder: Path, body: str) -> None:
    program = folder / "optimum-cli"
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)


def test_another_form_is_exported_once(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.fill("config.json", "model.safetensors")
    # The last argument is the folder to write; the arguments are kept to be looked at.
    files = " ".join(f'"$out/{name}"' for name in IR)
    exporter(tmp_path, f'echo "$@" >> {tmp_path}/calls; for out; do :; done; touch {files}')
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    first = resolve("org/model", tmp_path, hub.cache)
    assert all((first / name).is_file() for name in IR)
    assert resolve("org/model", tmp_path, hub.cache) == first
    (call,) = (tmp_path / "calls").read_text().splitlines()
    assert call.startswith("export openvino --model")
    assert "--weight-format int8" in call


def test_a_failed_export_leaves_nothing_behind(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = hub.fill("config.json")
    exporter(tmp_path, "echo 'unknown architecture' >&2; exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(WeightsError, match="could not export it: unknown architecture"):
        resolve("org/model", tmp_path, hub.cache)
    assert list((snapshot.parent.parent / "openvino-int8").iterdir()) == []
