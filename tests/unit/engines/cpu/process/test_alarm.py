"""The timer that ends the engine process, in a process of its own."""

import os
import signal
import subprocess
import sys

from engines.cpu.messages import Step, unpack_step

BUSY = """
import sys
import time
from engines.cpu.process.alarm import StepAlarm
alarm = StepAlarm(int(sys.argv[1]), 0.3, 2)
for _ in range(3):
    alarm.set([1, 2], 0, alone=False)
    alarm.clear()
alarm.set([7], 0, alone=True)
{work}
alarm.clear()
"""


def ended(work: str) -> tuple[int, Step]:
    """How a process ended that was at work in a step, and what stood in its note."""
    note = os.memfd_create("note")
    try:
        process = subprocess.run(
            [sys.executable, "-c", BUSY.format(work=work), str(note)],
            pass_fds=[note],
            check=False,
            timeout=30,
        )
        return process.returncode, unpack_step(os.pread(note, 4096, 0))
    finally:
        os.close(note)


def test_a_step_that_takes_too_much_processor_time_ends_the_process_and_says_over_whom() -> None:
    # One call that holds the interpreter's lock, as a step of the pipeline does.
    assert ended("sum(range(10**12))") == (-signal.SIGPROF, Step((7,), alone=True))


def test_a_process_that_has_to_wait_lives_and_blames_nobody() -> None:
    assert ended("time.sleep(0.6)") == (0, Step((), alone=False))


def test_between_steps_a_process_may_work_as_long_as_it_likes() -> None:
    assert ended("alarm.clear(); sum(range(3 * 10**7))") == (0, Step((), alone=False))
