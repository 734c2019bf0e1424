"""What is known of a lever as plain values for a store, and read from them, every rule checked."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from services.router.policy.guardrail import GuardState
from services.router.policy.lever_record import LeverRecord, Setting, Watch

LATEST_TIME = 253402300799.0
"""The last second of the year 9999, in seconds since 1970: contracts have no later one."""


def values_of(record: LeverRecord) -> dict[str, Any]:
    """Plain values for a store."""
    values = asdict(record)
    del values["damaged"]
    return values


def lever_record_of(values: object) -> LeverRecord:
    """The record that `values_of` wrote.

    Raises:
        ValueError: it is damaged.
    """
    try:
        return _record(values)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no record of a lever: {error!r}") from error


def _record(record: Any) -> LeverRecord:
    said, watches = record["setting"], tuple(map(_watch, record["watches"]))
    if len({watch.calibration for watch in watches}) != len(watches):
        raise ValueError("no record of a lever: two watches of one calibration")
    return LeverRecord(
        setting=None if said is None else _setting(said),
        released=_time(record["released"]),
        watches=watches,
    )


def _setting(setting: Mapping[str, Any]) -> Setting:
    halted, expires = setting["halted"], setting["expires"]
    if not isinstance(halted, bool):
        raise TypeError("halted")
    return Setting(
        halted=halted,
        author=_text(setting["author"]),
        reason=_text(setting["reason"]),
        since=_time(setting["since"]),
        expires=None if expires is None else _time(expires),
    )


def _watch(watch: Mapping[str, Any]) -> Watch:
    state, halted = GuardState.from_json(watch["state"]), watch["halted"]
    if state.halted is not (halted is not None):
        raise ValueError("no record of a lever: halted, and not halted")
    return Watch(
        calibration=_text(watch["calibration"]),
        began=_time(watch["began"]),
        state=state,
        halted=None if halted is None else _time(halted),
        reason=_text(watch["reason"]),
        blamed=_text(watch.get("blamed", "")),  # routers of before write neither
        levers=_time(watch.get("levers", 0.0)),
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"not a text: {value!r}")
    return value


def _time(value: object) -> float:
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not -LATEST_TIME <= value <= LATEST_TIME
    ):
        raise TypeError(f"not a time: {value!r}")
    return float(value)
