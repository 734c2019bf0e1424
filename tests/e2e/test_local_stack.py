"""``python -m services.local``: it works, says what is wrong, and leaves nothing behind."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from pennyweight import Client, Finished, PennyweightError
from services.local.plan import ROOT
from services.local.restarts import MOST

pytestmark = pytest.mark.timeout(240)

Start = Callable[..., "Local"]

ANEW = "the cache ended by itself, by SIGKILL, and is started anew"
NOTHING = "http://127.0.0.1:9"


class Local:
    """A running ``services.local``, and everything it ever started."""

    def __init__(self, folder: Path, *arguments: str, **environment: str) -> None:
        self.folder = folder
        self._seen: set[psutil.Process] = set()
        self._output = folder / "output"
        self._output.touch()
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "services.local", *arguments, "--state", str(folder)],
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "COLUMNS": "100", **environment},
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        return self._output.read_text()

    def up(self) -> str:
        """Waits until it is up. Returns the router's address."""
        found = self.until(lambda: re.search(r"is up at (\S+);", self.output), "up")
        self.look()
        return str(found[1])

    def look(self) -> None:
        """Notes the processes there are; replicas are found by the id they inherit."""
        ids = {path.name for path in self.folder.glob("**/scaler/replicas/*")}
        for process in psutil.process_iter():
            try:
                replica = process.environ().get("PENNYWEIGHT_REPLICA_ID", "")
                state = process.environ().get("PENNYWEIGHT_SCALER_STATE_FOLDER", "")
            except psutil.Error:
                continue
            if replica in ids or state.startswith(str(self.folder)):
                self._seen.add(process)

    def of(self, module: str) -> psutil.Process:
        return next(one for one in self._seen if _lives(one) and module in one.cmdline())

    def wait(self, seconds: float = 90) -> int:
        return self.process.wait(seconds)

    def until(self, condition: Callable[[], Any], what: str, seconds: float = 120) -> Any:
        give_up = time.monotonic() + seconds
        while not (value := condition()):
            if time.monotonic() > give_up or self.process.poll() not in (None, 0, -9):
                raise AssertionError(f"not {what}:\n{self.output}")
            time.sleep(0.05)
        return value

    def left(self) -> list[str]:
        """What is still there of it: processes, and shared memory of its replicas."""
        alive = [one for one in self._seen if _lives(one)]
        known = [path.stem for path in self.folder.glob("**/scaler/logs/*")]
        known += [path.name for path in self.folder.glob("**/scaler/replicas/*")]
        memory = [str(path) for one in known for path in Path("/dev/shm").glob(f"*{one}*")]
        return [str(one) for one in alive] + memory


def _lives(process: psutil.Process) -> bool:
    """Whether it runs; an orphan that ended may wait for init to notice."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[Local] = []

    def one(*arguments: str, **environment: str) -> Local:
        local = Local(tmp_path, *arguments, **environment)
        started.append(local)
        return local

    yield one
    for local in started:
        if local.process.poll() is None:
            local.process.terminate()
            local.wait()


def test_the_demo(start: Start) -> None:
    local = start("demo")
    local.until(lambda: "question" in local.output, "asking")
    local.look()
    assert local.wait() == 0, local.output
    for word in ("small", "large", "fixed tier", "exact", "What is the"):
        assert word in local.output
    found = re.search(
        r"Paid ([\d,]+) µ\$(?:, ([\d,]+) µ\$ of it for evidence)?; always the top tier, without a "
        r"cache: ([\d,]+) µ\$. Saved (-?\d+)%",
        " ".join(local.output.split()),
    )
    assert found is not None
    spent, evidence, baseline, saved = [
        int((one or "0").replace(",", "")) for one in found.groups()
    ]
    part = 1 - spent / baseline
    assert part < 1
    assert saved == round(part * 100)
    assert local.left() == []
    # Its ledger stays, apart from that of a stack that is up, and says the same as the screen.
    assert not (local.folder / "ledger").exists()
    table = subprocess.run(
        [sys.executable, "-m", "pennyweight.command", "ledger"],
        env={**os.environ, "PENNYWEIGHT_ROUTER_LEDGER_FOLDER": str(local.folder / "demo-ledger")},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    cells = (
        f"{spent - evidence:,} µ$",
        f"{evidence:,} µ$",
        f"{baseline - spent:,} µ$",
        f"{saved}%",
    )
    assert re.search(r" +│ +".join(map(re.escape, cells)), table), table
    assert re.search(r"all +│ +20 ", table)


async def test_up_answers_and_ctrl_c_ends_everything(start: Start) -> None:
    local = start(
        "up",
        "--any-port",
        http_proxy=NOTHING,  # for the outside: no matter of the stack's
        https_proxy=NOTHING,
        PENNYWEIGHT_CACHE_LISTEN="[::1]:0",
        PENNYWEIGHT_CACHE_METRICS_LISTEN="[::1]:0",
    )
    async with Client(local.up()) as client:
        answers = [await client.complete("support-chat", "I lost my card") for _ in range(2)]
        assert answers[0].text == answers[1].text
        assert answers[1].summary.decision.cache == "exact"
        assert answers[1].summary.cost.micro_usd == 0
        events = [event async for event in client.generate("support-expert", "I lost my card")]
        assert isinstance(events[-1], Finished)
        assert events[-1].decision.tier == "large"
    local.until(lambda: "3 requests" in local.output, "counting")
    assert re.search(r"3 requests · \d+ tokens · 1 from the cache · saved \d+ µ\$", local.output)
    local.look()
    local.process.send_signal(signal.SIGINT)
    assert local.wait() == 0
    order = [local.output.index(f"stopping the {name}") for name in ("router", "scaler", "cache")]
    assert order == sorted(order)
    assert local.left() == []


def test_ctrl_c_during_the_start(start: Start) -> None:
    local = start("up", "--any-port")
    local.until(lambda: list(local.folder.glob("scaler/replicas/*")), "starting replicas")
    local.look()
    local.process.send_signal(signal.SIGTERM)
    assert local.wait() == 0
    assert local.left() == []


def test_a_second_ctrl_c_kills(start: Start) -> None:
    local = start("up", "--any-port")
    local.up()
    scaler = local.of("services.scaler")
    scaler.suspend()  # it will not end by itself
    local.process.send_signal(signal.SIGINT)
    local.until(lambda: "stopping the scaler" in local.output, "stopping")
    began = time.monotonic()
    local.process.send_signal(signal.SIGINT)
    assert local.wait() == 0
    assert time.monotonic() - began < 10
    assert "which the scaler left" in local.output
    assert local.left() == []


def test_children_end_when_it_is_killed(start: Start) -> None:
    local = start("up", "--any-port")
    local.up()
    local.process.kill()
    local.wait()
    local.until(lambda: local.left() == [], "gone", seconds=60)


def test_replicas_that_a_crash_of_everything_left_are_taken_over(start: Start) -> None:
    first = start("up", "--any-port")
    first.up()
    (small,) = (path.name for path in first.folder.glob("scaler/replicas/small-*"))
    scaler = first.of("services.scaler")
    scaler.suspend()  # so that it cannot end its replicas when its starter is gone
    first.process.kill()
    scaler.kill()
    first.until(lambda: not _lives(scaler), "gone")
    second = start("up", "--any-port")
    second.up()
    assert "an earlier run left replicas, which are taken over" in second.output
    assert [path.name for path in second.folder.glob("scaler/replicas/small-*")] == [small]
    second.process.send_signal(signal.SIGINT)
    assert second.wait() == 0
    assert first.left() == []
    assert second.left() == []


async def test_a_crashed_service_is_started_anew_and_found_by_the_others(start: Start) -> None:
    local = start("up", "--any-port")
    address = local.up()
    replicas = {path.name for path in local.folder.glob("scaler/replicas/*")}
    async with Client(address, timeout_seconds=60) as client:
        for name in ("cache", "scaler", "router"):
            crashed = local.of(f"services.{name}")
            crashed.kill()
            said = f"the {name} ended by itself, by SIGKILL, and is started anew"
            local.until(lambda said=said: said in local.output, f"starting the {name}")
            local.until(lambda one=crashed: not _lives(one), "gone")
        await _answered_and_cached(client)
    assert {path.name for path in local.folder.glob("scaler/replicas/*")} == replicas
    local.look()
    local.process.send_signal(signal.SIGINT)
    assert local.wait() == 0
    assert local.left() == []


async def _answered_and_cached(client: Client) -> None:
    """Asks until the whole stack is there again: an answer, and the same from the cache."""
    async with asyncio.timeout(60):
        while True:
            with suppress(PennyweightError):
                answer = await client.complete("support-chat", "I lost my card")
                if answer.summary.decision.cache == "exact":
                    return
            await asyncio.sleep(0.1)


def test_a_service_that_crashes_again_and_again_ends_the_stack_with_its_last_words(
    start: Start,
) -> None:
    local = start("up", "--any-port")
    local.up()
    for count in range(MOST + 1):
        crashing = local.until(lambda: _running(local, "services.cache"), "running")
        crashing.kill()
        local.until(lambda n=count: local.output.count(ANEW) > min(n, MOST - 1), "seen")
    assert local.wait() == 1
    assert f"The cache ended by itself {MOST + 1} times, at last, by SIGKILL." in local.output
    assert "The end of " in local.output
    assert local.left() == []


def _running(local: "Local", module: str) -> psutil.Process | None:
    local.look()
    try:
        return local.of(module)
    except StopIteration:
        return None


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own, with 200 megabytes."""
    made = ["mount", "-t", "tmpfs", "-o", "size=200m", "none", str(tmp_path)]
    if subprocess.run(made, check=False).returncode:
        pytest.skip("this user cannot make a disk")
    yield tmp_path
    subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


async def test_a_full_disk_ends_neither_the_stack_nor_a_service(disk: Path, start: Start) -> None:
    local = start("up", "--any-port")
    async with Client(local.up(), timeout_seconds=60) as client:
        before = {name: local.of(f"services.{name}") for name in ("cache", "scaler", "router")}
        with (disk / "filling").open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(2**20))
        for number in range(30):
            assert (await client.complete("support-chat", f"I lost {number} cards")).text
        assert all(_lives(one) for one in before.values())
        before["cache"].kill()
        await _answered_and_cached(client)
        (disk / "filling").unlink()
        assert _lives(before["router"])
    local.look()
    local.process.send_signal(signal.SIGINT)
    assert local.wait() == 0
    assert local.left() == []


def test_a_service_that_cannot_start(start: Start) -> None:
    local = start("up", "--any-port", PENNYWEIGHT_ROUTER_ROUTES_FILE="nowhere/routes.yaml")
    assert local.wait() == 1
    assert "The router ended by itself, with code 2." in local.output
    assert "nowhere/routes.yaml" in local.output
    assert local.left() == []


def test_a_port_in_use_is_said_before_anything_starts(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        local = start("up", "--any-port", PENNYWEIGHT_CACHE_LISTEN=listen)
        assert local.wait() == 1
    assert f"The cache cannot listen on {listen}: the port is in use." in local.output
    assert "PENNYWEIGHT_CACHE_LISTEN" in local.output
    assert not (local.folder / "logs").exists()


def test_a_second_stack_on_the_same_state_leaves_the_first_alone(start: Start) -> None:
    first = start("up", "--any-port")
    first.up()
    second = subprocess.run(
        [sys.executable, "-m", "services.local", "up", "--any-port", "--state", str(first.folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert second.returncode == 1
    assert f"Another stack uses the folder {first.folder}." in second.stdout
    first.process.send_signal(signal.SIGINT)
    assert first.wait() == 0
    assert first.left() == []
