"""Replicas that a starter of its own process starts, and what becomes of them."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from services.scaler.targets import processes
from services.scaler.targets.distant import DistantStarter
from services.scaler.targets.slots import StartHindered
from services.scaler.targets.starting import MAX_BYTES
from tests.integration.scaler.harness import ROOT, Home, until

SLEEP = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"]


class Process:
    """A starter as a process."""

    def __init__(self, address: Path) -> None:
        self.address = address
        self.process = subprocess.Popen(
            [sys.executable, "-m", "services.scaler.starter", str(address)],
            cwd=ROOT,
            stderr=subprocess.PIPE,
        )
        until_there(address.exists)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        self.process.communicate(timeout=30)
        return self.process.returncode


def until_there(there: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not there():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture
def starter(tmp_path: Path) -> Iterator[Process]:
    started = Process(tmp_path / "starter.sock")
    yield started
    if started.process.poll() is None:
        started.end(signal.SIGKILL)


def start(starter: Process, tmp_path: Path, argv: list[str] | None = None) -> int:
    environment = {"WHOSE": "ours", "PATH": os.environ["PATH"]}
    return DistantStarter(starter.address).start(
        argv or SLEEP, environment, tmp_path, tmp_path / "said.log"
    )


def alive(pid: int) -> bool:
    return processes.started_ticks(pid) is not None


def test_a_process_is_started_as_it_was_asked_for(starter: Process, tmp_path: Path) -> None:
    pid = start(starter, tmp_path)
    until_there(lambda: (tmp_path / "said.log").read_text() == "up\n")
    assert list(processes.family("WHOSE", "ours")) == [pid]
    assert os.getsid(pid) == pid
    assert processes.command_line(pid) == tuple(SLEEP)
    assert starter.end() == 0
    assert not alive(pid)


def test_a_process_that_ends_is_collected(starter: Process, tmp_path: Path) -> None:
    pid = start(starter, tmp_path, [sys.executable, "-c", ""])
    until_there(lambda: not Path(f"/proc/{pid}").exists())


def test_what_cannot_be_started_is_said(starter: Process, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        start(starter, tmp_path, ["/nowhere/server"])
    assert alive(start(starter, tmp_path))  # it goes on


ELSE = b'"environment": {}, "folder": "/", "output": "/dev/null"}\n'
NONSENSE = [
    b"",
    b"no json\n",
    b"[]\n",
    b'{"argv": 5}\n',
    b"{}\n",
    b"x" * (MAX_BYTES + 1),
    b'{"argv": [], ' + ELSE,
    b'{"argv": ["\\u0000"], ' + ELSE,
    b'{"a":' * 100_000 + b"\n",
]


def test_nonsense_ends_nobody(starter: Process, tmp_path: Path) -> None:
    for said in NONSENSE:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(starter.address))
            connection.sendall(said)
            connection.shutdown(socket.SHUT_WR)
            answer = json.loads(connection.recv(1 << 16))
        assert "not to be understood" in answer["error"]
    assert alive(start(starter, tmp_path))


def test_a_starter_that_is_not_there_hinders_and_is_no_fault_of_the_settings(
    tmp_path: Path,
) -> None:
    with pytest.raises(StartHindered, match="does not answer"):
        DistantStarter(tmp_path / "none.sock").start([], {}, tmp_path, tmp_path / "log")


def test_two_starters_do_not_share_a_socket(starter: Process) -> None:
    second = subprocess.run(
        [sys.executable, "-m", "services.scaler.starter", str(starter.address)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert second.returncode == 2
    assert "another starter serves" in second.stderr


def test_the_socket_of_a_killed_starter_is_taken(starter: Process, tmp_path: Path) -> None:
    starter.end(signal.SIGKILL)
    again = Process(starter.address)
    until_there(lambda: _answers(starter.address))
    assert alive(start(again, tmp_path))
    again.end()


def _answers(address: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as connection:
        return connection.connect_ex(str(address)) == 0


async def test_replicas_live_with_the_starter_and_their_end_is_noticed(
    starter: Process, tmp_path: Path
) -> None:
    (tmp_path / "home").mkdir()
    home = Home(tmp_path / "home")
    home.starter = starter.address
    try:
        scaler = await home.start()
        (replica,) = await scaler.ready()
        (server,) = [record["server"]["pid"] for record in home.replicas().values()]
        assert parent(server) == starter.process.pid
        os.kill(server, signal.SIGKILL)
        await until(lambda: replica.id not in home.replicas())
        (second,) = await scaler.ready()
        assert second.id != replica.id
    finally:
        await home.clean_up()


def parent(pid: int) -> int:
    stat = Path(f"/proc/{pid}/stat").read_text()
    return int(stat.rpartition(")")[2].split()[1])
