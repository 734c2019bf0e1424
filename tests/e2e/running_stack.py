"""The whole stack as separate processes, so that each can be killed and started again."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import yaml

from pennyweight import Client
from services.local.plan import ROOT, Service, plan


class RunningStack:
    """Cache, scaler with its replicas, and router, on free ports, with state below `folder`."""

    def __init__(self, folder: Path, *, sizes: dict[str, int], environment: dict[str, str]) -> None:
        declared = yaml.safe_load((ROOT / "policies" / "scaling.yaml").read_text())
        for name, pool in declared["pools"].items():
            pool["repository"] = str(ROOT / pool["repository"])
            pool["size"] = sizes[name]
            pool["slots"] = [{"grpc_port": 0, "metrics_port": 0} for _ in range(sizes[name] + 1)]
        scaling = folder / "scaling.yaml"
        scaling.write_text(yaml.safe_dump(declared))
        wanted = {
            **os.environ,
            "PENNYWEIGHT_SCALER_SCALING_FILE": str(scaling),
            **environment,
        }
        self.plan = plan(wanted, folder, any_port=True)
        self._folder = folder
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def address(self) -> str:
        return self.plan["router"].address

    def client(self) -> Client:
        """A client that shows every failure: it never tries again."""
        return Client(self.address, max_attempts=1, timeout_seconds=30)

    def start(self, name: str) -> None:
        service: Service = self.plan[name]
        with (self._folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [sys.executable, "-m", service.module],
                env=dict(service.environment), cwd=ROOT, stdout=log, stderr=log,
            )  # fmt: skip

    def signal(self, name: str, number: signal.Signals) -> None:
        self._processes[name].send_signal(number)

    def wait(self, name: str, seconds: float = 30) -> int:
        return self._processes[name].wait(seconds)

    def log(self, name: str) -> str:
        return (self._folder / f"{name}.log").read_text(errors="replace")

    def replica_processes(self, replica: str) -> dict[str, psutil.Process]:
        """A replica's processes by role: "server", "stub" and "engine"."""
        found: dict[str, psutil.Process] = {}
        for process in psutil.process_iter():
            try:
                if process.environ().get("PENNYWEIGHT_REPLICA_ID") != replica:
                    continue
                name = process.name()
                line = " ".join(process.cmdline())
            except psutil.Error:
                continue
            if name == "tritonserver":
                found["server"] = process
            elif "triton_python_backend_stub" in line:
                found["stub"] = process
            else:
                found["engine"] = process
        return found

    def replicas_left(self) -> list[str]:
        """Command lines of replica processes that still live, and their shared memory."""
        records = self.plan.scaler_state
        left = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("PENNYWEIGHT_SCALER_STATE_FOLDER") == str(records):
                    left.append(" ".join(process.cmdline()))
            except psutil.Error:
                continue
        return left

    def close(self) -> None:
        for name in ("router", "scaler", "cache"):
            process = self._processes.get(name)
            if process is not None and process.poll() is None:
                process.terminate()
        for process in self._processes.values():
            try:
                process.wait(45)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def until(condition: Callable[[], Any], what: str, seconds: float = 30) -> Any:
    """Waits for a condition to hold and returns its value."""
    give_up = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > give_up:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.02)
    return value
