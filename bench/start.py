"""From nothing to the first answer, and the memory of each process then.

Starts the whole local stack as `make up` does, on free ports, and asks one question until it is
answered. The files are in the page cache after the first start, so the first one is told apart.
"""

import contextlib
import sys
import time
from collections.abc import Iterator, Sequence

import grpc
import psutil

from bench import report
from bench.stack import EAGER, METADATA, BenchError, Stack, free_port
from pennyweight.router.v1 import router_pb2 as pb
from pennyweight.router.v1 import router_pb2_grpc

STARTS, QUICK_STARTS = 5, 1
MAX_SECONDS = 120.0
Memory = tuple[str, int, int]
"""A process, its resident bytes, and its share of them where several processes have the same."""


def run(*, quick: bool) -> None:
    """Starts it some times."""
    seconds: list[float] = []
    memory: list[Memory] = []
    for number in range(QUICK_STARTS if quick else STARTS):
        took, memory = _start()
        seconds.append(took)
        report.say(f"start {number + 1}: first answer after {took:.2f} s")
    rows = [(name, f"{rss / 2**20:,.0f}", f"{pss / 2**20:,.0f}") for name, rss, pss in memory]
    total = [sum(one[column] for one in memory) / 2**20 for column in (1, 2)]  # type: ignore[misc]
    report.table(
        "Memory after the first answer, MiB",
        ("process", "resident", "own share"),
        [*rows, ("together", f"{total[0]:,.0f}", f"{total[1]:,.0f}")],
        note="own share: pages that several processes have are divided among them (PSS).",
    )
    report.table(
        "From the command to the first answer",
        ("starts", "first", "fastest", "median", "slowest"),
        [
            (
                str(len(seconds)),
                f"{seconds[0]:.2f} s",
                f"{min(seconds):.2f} s",
                f"{report.median(seconds):.2f} s",
                f"{max(seconds):.2f} s",
            )
        ],
    )
    report.figure("start.first_answer", report.median(seconds), "s")
    report.figure("start.memory", total[1], "MiB")


def _start() -> tuple[float, list[Memory]]:
    """One start. Returns the seconds to the first answer, and what each process takes then."""
    with Stack() as stack:
        address = f"127.0.0.1:{free_port()}"
        command = [sys.executable, "-m", "services.local", "up", "--any-port"]
        started = time.perf_counter()
        process = stack.start(
            "stack",
            [*command, "--state", str(stack.folder / "state")],
            {"PENNYWEIGHT_ROUTER_LISTEN": address},
        )
        with grpc.insecure_channel(address, options=EAGER) as channel:
            stub = router_pb2_grpc.RouterServiceStub(channel)
            request = pb.CompleteRequest(route="support-chat")
            request.prompt.messages.add(role=pb.ROLE_USER, content="Why was my card declined?")
            while True:
                process.check()
                try:
                    stub.Complete(request, metadata=METADATA, timeout=30)
                    break
                except grpc.RpcError as error:
                    if time.perf_counter() - started > MAX_SECONDS:
                        raise BenchError(f"no answer after {MAX_SECONDS:.0f} s") from error
                time.sleep(0.02)
        return time.perf_counter() - started, list(_memory(process.pid))


def _memory(pid: int) -> Iterator[Memory]:
    for one in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            info = one.memory_full_info()
            yield _name(one.cmdline()), info.rss, info.pss


def _name(words: Sequence[str]) -> str:
    for word in words:
        if word.startswith("services."):
            return word.removeprefix("services.")
    line = " ".join(words)
    for part, name in (
        ("triton_python_backend_stub", "replica: Python backend"),
        ("tritonserver", "replica: server"),
        ("engines", "replica: engine"),
    ):
        if part in line:
            return name
    return words[0] if words else "gone"
