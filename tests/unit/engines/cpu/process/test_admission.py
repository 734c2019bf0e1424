"""First come, first served, within the blocks and places there are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from engines.cpu.process.admission import Admission, QueueFullError, blocks_needed


def test_a_large_request_at_the_head_holds_back_small_ones() -> None:
    admission = Admission(total_blocks=10, max_batch=8, max_queue_size=0)
    admission.offer(1, 6)
    assert admission.admit() == [1]
    admission.offer(2, 6)
    admission.offer(3, 1)
    assert admission.admit() == []
    admission.release(1)
    assert admission.admit() == [2, 3]


def test_the_queue_bound_speaks_as_tensorrt_llm_does() -> None:
    admission = Admission(total_blocks=10, max_batch=1, max_queue_size=1)
    admission.offer(1, 1)
    admission.admit()
    admission.offer(2, 1)
    with pytest.raises(
        QueueFullError,
        match=r"^Maximum queue size of 1 has been reached, please try again later$",
    ):
        admission.offer(3, 1)


def test_what_could_never_fit_is_not_lined_up() -> None:
    admission = Admission(total_blocks=10, max_batch=1, max_queue_size=0)
    with pytest.raises(ValueError, match="needs 11 KV-cache blocks, the engine has 10"):
        admission.offer(1, 11)


@given(st.integers(1, 5000), st.integers(0, 5000), st.integers(1, 64))
def test_blocks_needed_is_the_least_that_holds_all_tokens(prompt: int, new: int, size: int) -> None:
    blocks = blocks_needed(prompt, new, size)
    assert (blocks - 1) * size < prompt + new <= blocks * size


class AdmissionMachine(RuleBasedStateMachine):
    """Any order of offers, admissions, withdrawals and releases keeps the promises."""

    offered = Bundle("offered")
    total, places, queue = 12, 3, 4

    def __init__(self) -> None:
        super().__init__()
        self.admission = Admission(self.total, self.places, self.queue)
        self.next_key = 0
        self.line: list[tuple[int, int]] = []
        self.running: dict[int, int] = {}

    @rule(target=offered, blocks=st.integers(1, 12))
    def offer(self, blocks: int) -> int:
        key = self.next_key
        self.next_key += 1
        try:
            self.admission.offer(key, blocks)
        except QueueFullError:
            assert len(self.line) >= self.queue
        else:
            self.line.append((key, blocks))
        return key

    @rule()
    def admit(self) -> None:
        admitted = self.admission.admit()
        assert admitted == [key for key, _ in self.line[: len(admitted)]]
        for key, blocks in self.line[: len(admitted)]:
            self.running[key] = blocks
        del self.line[: len(admitted)]
        if self.line:  # the head does not fit, or it would have been let in
            full = len(self.running) == self.places
            assert full or sum(self.running.values()) + self.line[0][1] > self.total

    @rule(key=consumes(offered))
    def leave(self, key: int) -> None:
        waited = any(key == waiting for waiting, _ in self.line)
        assert self.admission.withdraw(key) is waited
        self.line = [entry for entry in self.line if entry[0] != key]
        if key in self.running:
            self.admission.release(key)
            del self.running[key]

    @invariant()
    def nothing_is_lost_or_given_twice(self) -> None:
        assert self.admission.used_blocks == sum(self.running.values()) <= self.total
        assert self.admission.running == len(self.running) <= self.places
        assert self.admission.waiting == len(self.line)


TestAdmission = AdmissionMachine.TestCase
