"""The Python backend's model: checks requests and hands them to the engine process.

`execute` runs on the stub's own thread and must be quick; whatever it refuses, it answers
itself. Everything it accepts belongs to the dispatcher's thread from then on.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils

from engines.cpu.request import Generation, InvalidRequestError, Stop, parse
from engines.cpu.settings import SettingsError, from_parameters
from engines.cpu.stub.answer import Payload
from engines.cpu.stub.dispatcher import Dispatcher, NotReadyError
from engines.cpu.stub.gauges import Gauges
from engines.cpu.stub.link import Link

SOURCE = "pennyweight_source"
_SOURCE_LENGTH = 64


class TritonSender:
    """One request's way back to its caller."""

    # The backend fills `pb_utils` only after it has imported this module: nothing of it may be
    # looked up before the first call.

    def __init__(self, request: Any) -> None:
        self._sender = request.get_response_sender()

    def send(self, payload: Payload, *, final: bool) -> None:
        """Send tensors."""
        tensors = [pb_utils.Tensor(name, value) for name, value in payload.items()]
        response = pb_utils.InferenceResponse(output_tensors=tensors)
        if final:
            self._sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        else:
            self._sender.send(response)

    def fail(self, text: str, code: str = "INTERNAL") -> None:
        """Send an error, the last response; `code` names a constant of `pb_utils.TritonError`."""
        error = pb_utils.TritonError(text, getattr(pb_utils.TritonError, code))
        response = pb_utils.InferenceResponse(error=error)
        self._sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def end(self) -> None:
        """Send nothing but the end."""
        self._sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def is_cancelled(self) -> bool:
        """Whether the caller left. Never after the last response: the server would crash."""
        return bool(self._sender.is_cancelled())


class TritonPythonModel:
    """What Triton's Python backend calls."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the model. Raises `TritonModelException`, whose text ends in the server's log."""
        version = args["model_version"]
        # Through the link of a repository view to the real model folder, where weights are.
        served = Path(args["model_repository"]) / version / "model.py"
        folder = served.resolve().parents[1]
        config = json.loads(args["model_config"])
        parameters = {
            key: value["string_value"] for key, value in config.get("parameters", {}).items()
        }
        try:
            self._settings = from_parameters(parameters)
        except SettingsError as error:
            raise pb_utils.TritonModelException(f"{folder / 'config.pbtxt'}: {error}") from error
        shared_memory = _shared_memory_names()
        self._dispatcher = Dispatcher(
            self._settings,
            lambda: Link(self._settings, folder, shared_memory),
            pb_utils.Logger.log_warn,
        )
        try:
            self._limits = self._dispatcher.start()
        except NotReadyError as error:
            raise pb_utils.TritonModelException(str(error)) from error
        self._dispatcher.serve(
            Gauges(pb_utils, args["model_name"], version, self._settings, self._limits.block_size)
        )

    def execute(self, requests: list[Any]) -> None:
        """Take requests; their answers come later, by their response senders."""
        arrival_ns = time.monotonic_ns()
        for request in requests:
            sender = TritonSender(request)
            try:
                self._take(request, sender, arrival_ns)
            except InvalidRequestError as error:
                sender.fail(str(error), "INVALID_ARG")
            except NotReadyError as error:
                sender.fail(str(error), "UNAVAILABLE")
            except Exception as error:  # noqa: BLE001 - an unanswered request would hang
                sender.fail(f"the request could not be read: {error!r}")

    def _take(self, request: Any, sender: TritonSender, arrival_ns: int) -> None:
        work = parse(
            {tensor.name(): tensor.as_numpy() for tensor in request.inputs()},
            request.requested_output_names(),
            self._limits,
            exclude_input_by_default=self._settings.exclude_input_in_output,
        )
        if isinstance(work, Generation):
            if work.guide:
                work = replace(work, source=_source(request.parameters()))
            self._dispatcher.submit(request.request_id(), work, sender, arrival_ns)
        elif isinstance(work, Stop):
            _stop(self._dispatcher, request.request_id(), sender)

    def finalize(self) -> None:
        """End the engine process."""
        self._dispatcher.close()


def _stop(dispatcher: Dispatcher, request_id: str, sender: TritonSender) -> None:
    """Stop what runs under that id; the reply comes at once, in TensorRT-LLM's words and form."""
    if not request_id:
        sender.fail("Trying to stop a request but request ID is not provided")
        return
    # Who wants to know how the engine is stops what does not exist.
    if not dispatcher.stop(request_id) and not dispatcher.well():
        raise NotReadyError("the engine is not at ready state: nothing is heard of it")
    # A response without tensors, not just the end: callers who did not ask for empty last
    # responses get it too.
    sender.send({}, final=True)


def _source(parameters: str) -> str:
    """Who asks, by the request's parameters (JSON); empty where they do not say."""
    found = json.loads(parameters or "{}").get(SOURCE, "")
    return found[:_SOURCE_LENGTH] if isinstance(found, str) else ""


def _shared_memory_names() -> list[str]:
    """Return the names under /dev/shm that this stub shares with its server."""
    # The server tells the stub on its command line: program, model.py, region, sizes, ...
    arguments = Path("/proc/self/cmdline").read_bytes().decode().split("\0")
    return [name.lstrip("/") for name in arguments[2:3] if name]
