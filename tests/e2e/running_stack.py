"""The whole stack as separate processes, so that each can be killed and started again."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

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
            pool.pop("scale", None)
            pool["slots"] = [{"grpc_port": 0, "metrics_port": 0} for _ in range(sizes[name] + 1)]
        scaling = folder / "scaling.yaml"
        scaling.write_text(yaml.safe_dump(declared))
        wanted = {
            **os.environ,
            "PENNYWEIGHT_SCALER_SCALING_FILE": str(scaling),
            **environment,
        }
        self.plan = plan(wanted, folder, any_port=True)
        self.plan.put_scaling()
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
        for one, process in _replica_processes():
            if one != replica:
                continue
            if process.name() == "tritonserver":
                found["server"] = process
            elif "triton_python_backend_stub" in " ".join(process.cmdline()):
                found["stub"] = process
            elif "engines.cpu.process.main" in process.cmdline():
                found["engine"] = process
        return found

    def replica_ids(self) -> set[str]:
        """Replicas of this stack that live: those whose processes name its state folder."""
        return {
            replica
            for replica, process in _replica_processes()
            if str(self.plan.scaler_state) in " ".join(process.cmdline())
        }

    @staticmethod
    def left_of(replicas: set[str]) -> list[str]:
        """Processes and shared memory that these replicas have left."""
        processes = [str(process) for one, process in _replica_processes() if one in replicas]
        regions = [
            region.name
            for region in Path("/dev/shm").iterdir()
            if any(replica in region.name for replica in replicas)
        ]
        return processes + regions

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


def _replica_processes() -> Iterator[tuple[str, psutil.Process]]:
    for process in psutil.process_iter():
        try:
            replica = process.environ().get("PENNYWEIGHT_REPLICA_ID")
        except psutil.Error:
            continue  # gone, or somebody else's
        if replica:
            yield replica, process
