"""Cores that replicas may be given are the machine's, whatever this process is pinned to."""

import os

import pytest

from services.scaler.targets import cores
from services.scaler.targets.cores import available_cores, available_gpus


def test_this_machine_has_cores_and_asking_pins_nobody():
    before = os.sched_getaffinity(0)
    assert before <= available_cores() <= set(range(os.cpu_count() or 1))
    assert os.sched_getaffinity(0) == before


def test_what_this_process_is_pinned_to_does_not_count():
    before = os.sched_getaffinity(0)
    everything = available_cores()
    os.sched_setaffinity(0, {min(before)})
    try:
        assert available_cores() == everything
    finally:
        os.sched_setaffinity(0, before)


def test_where_nobody_may_ask_it_is_our_own(monkeypatch: pytest.MonkeyPatch):
    def forbidden(*_):
        raise PermissionError

    monkeypatch.setattr(cores.os, "sched_setaffinity", forbidden)
    assert available_cores() == os.sched_getaffinity(0)


def test_gpus_are_those_with_a_device_file(tmp_path):
    assert available_gpus(tmp_path) == set()
    for name in ("nvidia0", "nvidia11", "nvidiactl", "nvidia-uvm", "nvidia-caps"):
        (tmp_path / name).touch()
    assert available_gpus(tmp_path) == {0, 11}
