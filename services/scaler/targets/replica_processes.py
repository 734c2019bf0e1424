"""Runs replicas as `tritonserver` processes of this host.

Each replica is a session of its own, so it outlives a scaler that crashes; its record lets the
next one adopt it. Leaves to `tritonserver` what is run, to `running` how it is watched, to `local`
when and on which slot.
"""

import asyncio
import contextlib
import errno
import os
import shutil
import socket
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import structlog

from services.common.descriptors import is_own_want
from services.common.durations import wall_clock
from services.common.files import resolved
from services.scaler.pools.models import ModelFolderError
from services.scaler.pools.pool import Pool
from services.scaler.targets import leftovers, processes, tritonserver
from services.scaler.targets.model_view import model_config_of, prepare_view
from services.scaler.targets.records import Known, Record, Records, SlotReplica
from services.scaler.targets.running import RunningReplica
from services.scaler.targets.runtime import RuntimeNotFoundError, find_runtime
from services.scaler.targets.slots import (
    Adopted,
    EndFailed,
    OnDeath,
    StartFailed,
    StartHindered,
    fingerprint,
)
from services.scaler.targets.starting import OwnStarter, Starter
from services.scaler.targets.triton_client import TritonClient
from services.scaler.targets.tritonserver import REPLICA_VARIABLE

log = structlog.get_logger()

EXIT_SECONDS = 5


class ReplicaProcesses:
    """See `services.scaler.targets.slots.SlotHost`.

    `host` is what replicas listen on, `advertise_host` where routers reach them; `environment` is
    inherited by them without our own settings. `server` names an installed tritonserver;
    `starter` starts them, without one this process.
    """

    def __init__(
        self,
        state_folder: Path,
        environment: Mapping[str, str],
        *,
        host: str = "127.0.0.1",
        advertise_host: str = "",
        server: Path | None = None,
        starter: Starter | None = None,
    ) -> None:
        self._starter = starter or OwnStarter()
        self._records = Records(state_folder)
        self._cache = resolved(state_folder) / "runtime"
        self._environment = {
            name: value
            for name, value in environment.items()
            if not name.startswith("PENNYWEIGHT_")
        }
        self._host = host
        self._local_host = "127.0.0.1" if host == "0.0.0.0" else host
        self._advertise_host = advertise_host or host
        self._server = server
        self._running: dict[str, RunningReplica] = {}
        self._unprotected: set[str] = set()
        self._on_death: OnDeath = lambda _id, _what: None

    async def adopt(self, on_death: OnDeath) -> list[Adopted]:
        """Takes over what an earlier scaler left; ends what it has no usable record of.

        Raises:
            ConfigError: another scaler has the state folder.
        """
        self._on_death = on_death
        self._records.lock()
        await asyncio.to_thread(self._sweep)
        found = list(self._records.read_all())
        for replica_id, record in found:
            if record is None:
                try:
                    await self._clear(replica_id)
                except (EndFailed, OSError) as error:  # the next scaler tries again
                    log.error("a replica without a record lives on", error=str(error))  # noqa: TRY400
        # Without a pause from the first to the return: no death goes unheard.
        return [self._adopt(record) for _, record in found if record is not None]

    async def start(self, replica_id: str, name: str, pool: Pool, slot: int) -> SlotReplica:
        """Starts a replica.

        Raises:
            StartFailed: the port is taken, the model folder or the server is not usable.
            OSError, EndFailed: we lack descriptors or memory; something of it may be left.
        """
        try:
            record = await asyncio.to_thread(self._spawn, replica_id, name, pool, slot)
        except (
            StartFailed,
            ModelFolderError,
            RuntimeNotFoundError,
            OSError,
        ) as error:
            await self._clear(replica_id)
            if isinstance(error, StartFailed):
                raise
            if isinstance(error, OSError) and is_own_want(error):
                raise
            raise StartFailed(str(error)) from error
        self._watch(record)
        return record.replica

    async def is_ready(self, replica_id: str) -> bool:
        """Whether it says that it takes requests. False also when it does not answer in time."""
        running = self._running.get(replica_id)
        if running is None:
            return False
        ready = await running.client.is_ready()
        with contextlib.suppress(OSError):  # the next look tries again
            self._records.keep(running.record)
        try:
            tritonserver.protect_shared_memory(replica_id)
        except OSError as error:
            if replica_id not in self._unprotected:
                log.warning(
                    "its shared memory is not protected", replica=replica_id, error=str(error)
                )
            self._unprotected.add(replica_id)
        else:
            self._unprotected.discard(replica_id)
        return ready

    def exits(self, replica_id: str) -> bool:
        """See `SlotHost.exits`."""
        running = self._running.get(replica_id)
        return running is not None and running.client.exits

    def note_ready(self, replica_id: str) -> bool:
        """Finds its stubs, which are there once it is ready; records and watches them.

        False: one of them is gone already, and its death has been reported.

        Raises:
            OSError: they cannot be found or watched now.
        """
        running = self._running.get(replica_id)
        if running is None or running.record.server is None:
            return False
        if running.record.stubs is not None:
            return True
        found = tritonserver.stub_pids(running.record.server.pid)
        ticks = [(pid, processes.started_ticks(pid)) for pid in found]
        stubs = tuple(Known(pid, tick) for pid, tick in ticks if tick is not None)
        before = running.record
        running.record = replace(before, stubs=stubs)
        try:
            whole = running.watch_stubs()
        except OSError:
            running.record = before
            raise
        try:
            self._records.write(running.record)
        except OSError as error:  # the next scaler will look for the stubs again
            log.warning("record not written", replica=replica_id, error=str(error))
        return whole

    def note_draining(self, replica_id: str) -> None:
        """See `SlotHost.note_draining`."""
        running = self._running.get(replica_id)
        if running is not None and not running.record.draining:
            running.record = replace(running.record, draining=True)
            self._records.write(running.record)

    async def too_long(self, replica_id: str, tokens: int) -> str | None:
        """See `SlotHost.too_long`."""
        running = self._running.get(replica_id)
        return None if running is None else await running.client.too_long(tokens)

    async def running_requests(self, replica_id: str) -> int | None:
        """Requests it runs by its engine's count; None: it does not say."""
        running = self._running.get(replica_id)
        return None if running is None else await running.client.running_requests()

    async def end(self, replica_id: str, *, gently: bool) -> None:
        """Ends it and removes its processes, shared memory and record.

        Raises:
            EndFailed, OSError: see `SlotHost.end`; it is still known and on record.
        """
        running = self._running.get(replica_id)
        if running is not None:
            await running.end(gently=gently, within_seconds=EXIT_SECONDS + 2)
        await self._clear(replica_id)
        if running is not None:
            running.bury()
            del self._running[replica_id]

    async def close(self) -> None:
        """Lets go of all replicas without ending any."""
        for running in self._running.values():
            await running.let_go()
        self._running.clear()
        self._records.unlock()

    def _spawn(self, replica_id: str, name: str, pool: Pool, slot: int) -> Record:
        """Starts the server process; runs in a thread."""
        assert pool.repository is not None  # noqa: S101 - as of every pool on slots
        place = pool.slots[slot]
        grpc_port = _free_port(self._host, place.grpc_port)
        metrics_port = _free_port(self._host, place.metrics_port)
        launch = tritonserver.ReplicaLaunch(
            replica_id=replica_id,
            model=pool.model,
            repository=pool.repository,
            grpc_port=grpc_port,
            metrics_port=metrics_port,
            host=self._host,
            parameters=pool.parameters,
            config_pbtxt=pool.config_pbtxt,
            cpus=place.cpus,
            gpus=place.gpus,
            exit_timeout_seconds=EXIT_SECONDS,
        )
        replica = SlotReplica(
            id=replica_id,
            pool=name,
            slot=slot,
            tier=pool.tier,
            model=pool.model,
            precision=pool.precision,
            capacity=pool.capacity,
            max_in_flight=pool.max_in_flight,
            address=f"{self._advertise_host}:{grpc_port}",
            started_at=wall_clock(),
            fingerprint=fingerprint(pool, place),
            metrics_address=f"{self._local_host}:{metrics_port}",
        )
        config = model_config_of(launch)
        record = Record(replica, grpc_port, metrics_port, python=config.backend == "python")
        # Written before the process is there: if we die in between, its family is still found.
        self._records.write(record)
        view = prepare_view(launch, self._records.view(replica_id))
        runtime = find_runtime(self._cache, self._server)
        environment = {**self._environment, REPLICA_VARIABLE: replica_id}
        # What is left of it there goes with its folder.
        environment["TMPDIR"] = str(self._records.temporary(replica_id))
        argv, environment = tritonserver.command(runtime, launch, view, environment)
        output = self._records.log_file(replica_id)
        pid = self._starter.start(argv, environment, view, output)
        ticks = processes.started_ticks(pid)
        if ticks is None:
            processes.reap(pid)
            raise StartFailed(self._records.last_error(replica_id) or "it ended at once")
        record = replace(record, server=Known(pid, ticks))
        self._records.write(record)
        return record

    def _adopt(self, record: Record) -> Adopted:
        """Watches what the record names, if it is still there."""
        replica_id = record.replica.id
        flag = f"--model-repository={self._records.view(replica_id)}"
        if record.server is None:
            for pid in processes.family(REPLICA_VARIABLE, replica_id):
                ticks = processes.started_ticks(pid)
                if ticks is not None and flag in processes.command_line(pid):
                    record = replace(record, server=Known(pid, ticks))
                    self._records.write(record)
        address = f"{self._advertise_host}:{record.grpc_port}"
        metrics_address = f"{self._local_host}:{record.metrics_port}"
        replica = replace(record.replica, address=address, metrics_address=metrics_address)
        record = replace(record, replica=replica)
        server = record.server
        whole = server is not None and flag in processes.command_line(server.pid)
        return Adopted(
            record.replica,
            ready=record.stubs is not None,
            fault="" if whole and self._watch(record, report=False) else "it died unobserved",
            draining=record.draining,
        )

    def _watch(self, record: Record, *, report: bool = True) -> bool:
        """Watches its processes; False, or a death reported, if one is gone already."""
        client = TritonClient(
            self._local_host, record.grpc_port, record.metrics_port, record.replica.model
        )
        running = RunningReplica(record, client, self._on_death, self._records.last_error)
        self._running[record.replica.id] = running
        return running.watch(report=report)

    def _sweep(self) -> None:
        """Removes what dead replicas and scalers left outside of the replicas' folders."""
        for path in leftovers.unfinished(self._cache):
            shutil.rmtree(path, ignore_errors=True)
        removed = [
            *leftovers.remove_regions(self._records.ids()),
            *map(str, leftovers.remove_temporary_folders()),
        ]
        if removed:
            log.info("removed what dead replicas left", what=removed)

    async def _clear(self, replica_id: str) -> None:
        """Kills what is left of a replica and removes its shared memory and record.

        Raises:
            EndFailed: somebody of it lives on.
            OSError: it cannot be found out, or not be removed.
        """
        if not await processes.kill_family(REPLICA_VARIABLE, replica_id):
            raise EndFailed(f"processes of {replica_id} cannot be killed")
        self._unprotected.discard(replica_id)
        tritonserver.remove_shared_memory(replica_id)
        await asyncio.to_thread(self._records.remove, replica_id)
        await asyncio.to_thread(leftovers.remove_temporary_folders)


def _free_port(host: str, wanted: int) -> int:
    """`wanted`, or a free port for 0.

    Raises:
        StartHindered: somebody else has it.
        StartFailed: nobody can have it.
    """
    with closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, wanted))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise StartHindered(f"port {wanted} on {host} is taken by somebody else") from error
            why = f"port {wanted} on {host} cannot be used: {os.strerror(error.errno or 0)}"
            raise StartFailed(why) from error
        port: int = probe.getsockname()[1]
        return port
