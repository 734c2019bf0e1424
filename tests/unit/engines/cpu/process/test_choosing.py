"""What choosing tokens takes, by how they are chosen."""

from dataclasses import replace

import pytest

from engines.cpu.process.choosing import Choice, Choosing, choice_of, measured
from engines.cpu.request import Generation, Sampling

GREEDY = Generation(prompt=(1,), max_new_tokens=9)
DRAWN = Sampling(greedy=False, temperature=2.0)


def test_the_likeliest_alone_is_best_however_the_request_spells_it() -> None:
    assert choice_of(GREEDY) is Choice.BEST
    for sampling in (Sampling(seed=7), Sampling(top_k=1), Sampling(top_p=0.5)):
        assert choice_of(replace(GREEDY, sampling=sampling)) is Choice.BEST


@pytest.mark.parametrize(
    "options",
    [
        {"log_probs": True},
        {"sampling": DRAWN},
        {"sampling": replace(DRAWN, top_k=5)},
        {"sampling": replace(DRAWN, top_k=5, top_p=0.5)},
        {"sampling": Sampling(repetition_penalty=1.1)},
        {"sampling": Sampling(presence_penalty=0.1)},
        {"sampling": Sampling(frequency_penalty=0.1)},
        {"sampling": Sampling(min_tokens=1)},
    ],
)
def test_what_goes_through_all_tokens_is_weighed(options: dict[str, object]) -> None:
    assert choice_of(replace(GREEDY, **options)) is Choice.WEIGHED  # type: ignore[arg-type]


@pytest.mark.parametrize("narrowed", [{"top_p": 0.999}, {"top_k": 1024}])
def test_what_puts_many_in_order_is_sorted(narrowed: dict[str, float]) -> None:
    sampling = replace(DRAWN, **narrowed)  # type: ignore[arg-type]
    assert choice_of(replace(GREEDY, sampling=sampling)) is Choice.SORTED


class FakeHandle:
    def __init__(self, generation: Generation) -> None:
        self.choice = choice_of(generation)
        self.left = generation.max_new_tokens
        self.unread = True

    def read(self) -> None:
        return None

    def running(self) -> bool:
        return self.left > 0


class FakePipeline:
    """A step takes 100 and what each choice takes; the first one more, as it reads prompts."""

    def __init__(self, takes: dict[Choice, int]) -> None:
        self.takes = takes
        self.handles: list[FakeHandle] = []
        self.most = self.worked = 0

    def add(self, key: int, generation: Generation) -> FakeHandle:
        assert key == sum(handle.running() for handle in self.handles)
        self.handles.append(FakeHandle(generation))
        return self.handles[-1]

    def step(self) -> None:
        running = [handle for handle in self.handles if handle.running()]
        self.most = max(self.most, len(running))
        self.worked += 100 + sum(self.takes[handle.choice] for handle in running)
        for handle in running:
            self.worked += 10_000 * handle.unread
            handle.unread = False
            handle.left -= 1


@pytest.mark.parametrize("answers", [1, 64])
def test_what_a_choice_takes_is_measured_beyond_what_the_likeliest_takes(answers: int) -> None:
    pipeline = FakePipeline({Choice.BEST: 10, Choice.WEIGHED: 30, Choice.SORTED: 500})
    found = measured(pipeline, answers, lambda: pipeline.worked)
    assert found == {Choice.WEIGHED: 20, Choice.SORTED: 490}
    assert pipeline.most <= answers


def test_what_was_measured_as_less_than_nothing_is_nothing() -> None:
    pipeline = FakePipeline({Choice.BEST: 10, Choice.WEIGHED: 9, Choice.SORTED: 500})
    assert measured(pipeline, 64, lambda: pipeline.worked)[Choice.WEIGHED] == 0


def test_half_as_much_again_is_allowed_for_each_answer() -> None:
    choosing = Choosing({Choice.WEIGHED: 20, Choice.SORTED: 490})
    assert choosing.allowed([Choice.BEST, Choice.WEIGHED, Choice.SORTED, Choice.SORTED]) == 1500
    assert choosing.allowed([]) == 0
