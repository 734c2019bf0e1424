"""The engine's turn around a scripted pipeline."""

import itertools
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from engines.cpu.messages import TOO_SLOW, End, Progress
from engines.cpu.process.admission import Admission
from engines.cpu.process.choosing import Choice
from engines.cpu.process.engine import BrokenError, Engine
from engines.cpu.process.prefix import PrefixEstimate
from engines.cpu.process.unproven import TOO_FULL, TRUST_LOST
from engines.cpu.request import Generation, InvalidRequestError, Sampling, guide_hash

BLOCK = 4
SLOW = 1000
GUIDES = 300
BYTES = 1000
AT_ONCE = 100
CHOOSING = {Choice.WEIGHED: 20, Choice.SORTED: 2000}


@dataclass
class FakeHandle:
    script: list[int]
    unread: list[int] = field(default_factory=list)
    cancelled: bool = False
    ignored: bool = False

    def read(self) -> tuple[list[int], list[float]]:
        tokens, self.unread = self.unread, []
        return tokens, [-float(token) for token in tokens]

    def running(self) -> bool:
        return bool(self.script) and not self.ignored

    def failed(self) -> bool:
        return self.ignored

    def cancel(self) -> None:
        self.cancelled = True


class FakePipeline:
    """Generates each request's script, a token a step; raises what `trouble` holds."""

    def __init__(self, scripts: Mapping[int, list[int] | Exception]) -> None:
        self.scripts = scripts
        self.handles: dict[int, FakeHandle] = {}
        self.trouble: list[Exception] = []
        self.steps = 0
        self.each_step = 0
        self.slept = 0
        self.each_wait = 0  # of that, for the processor
        self.waited = 0

    def add(self, key: int, generation: Generation) -> FakeHandle:
        script = self.scripts[key]
        if isinstance(script, Exception):
            raise script
        self.handles[key] = FakeHandle(list(script))
        return self.handles[key]

    def step(self) -> None:
        if self.trouble:
            raise self.trouble.pop(0)
        self.steps += 1
        self.slept += self.each_step
        self.waited += self.each_wait
        for handle in self.handles.values():
            if handle.script and not handle.cancelled:
                handle.unread.append(handle.script.pop(0))


class FakeGuides:
    """Verdicts as they are set."""

    def __init__(self, **verdicts: str) -> None:
        self.kept_bytes = 0
        self.compiling = False
        self.verdicts = verdicts
        self.asked: list[str] = []
        self.sources: list[str] = []
        self.dropped: list[str] = []
        self.costs: dict[str, int] = {}
        self.refused: dict[bytes, str] = {}
        self.fills: dict[str, int] = {}

    def filled(self) -> dict[str, int]:
        fills, self.fills = self.fills, {}
        return fills

    def refuse(self, guide: bytes, why: str) -> None:
        self.refused[guide] = why

    def known(self, guide: tuple[str, str]) -> bool:
        return guide[1] in self.verdicts

    def verdict(self, guide: tuple[str, str], source: str) -> str | None:
        self.sources.append(source)
        self.asked.append(guide[1])
        return self.verdicts.get(guide[1])

    def token_ns(self, guide: tuple[str, str]) -> int:
        return self.costs.get(guide[1], 0)

    def drop(self, guide: tuple[str, str]) -> None:
        self.dropped.append(guide[1])


class FakeAlarm:
    """Remembers each step that was begun."""

    def __init__(self) -> None:
        self.steps: list[tuple[list[int], int, bool]] = []
        self.on = False

    def set(self, keys: Collection[int], usual_ns: int, *, alone: bool) -> None:
        assert not self.on
        self.on = True
        self.steps.append((list(keys), usual_ns, alone))

    def clear(self) -> None:
        assert self.on
        self.on = False


def engine(
    pipeline: FakePipeline,
    total_blocks: int = 100,
    max_batch: int = 8,
    max_queue_size: int = 0,
    *,
    guides: FakeGuides | None = None,
    alarm: FakeAlarm | None = None,
    slow: int = SLOW,
) -> Engine:
    admission = Admission(total_blocks, max_batch, max_queue_size)
    clock = itertools.count(100)
    return Engine(
        pipeline,
        admission,
        PrefixEstimate(total_blocks, BLOCK),
        BLOCK,
        guides=guides or FakeGuides(),
        alarm=alarm or FakeAlarm(),
        read_at_once=AT_ONCE,
        slow_step_ns=slow,
        guides_ns=GUIDES,
        guides_bytes=BYTES,
        choosing_ns=CHOOSING,
        clock=lambda: next(clock) + pipeline.slept,
        worked=lambda: pipeline.slept - pipeline.waited,
    )


def ask(**options: Any) -> Generation:
    return Generation(**{"prompt": (1, 2, 3), "max_new_tokens": 5, "streaming": True, **options})


def run(subject: Engine) -> dict[int, list[Progress]]:
    news: dict[int, list[Progress]] = {}
    while subject.busy:
        for progress in subject.turn():
            news.setdefault(progress.key, []).append(progress)
    return news


def tokens(news: list[Progress]) -> list[int]:
    return [token for progress in news for token in progress.tokens]


def test_a_request_that_arrives_later_joins_the_running_batch() -> None:
    pipeline = FakePipeline({1: [5, 5, 5, 5], 2: [6, 6]})
    subject = engine(pipeline)
    subject.submit(1, ask())
    subject.turn()
    subject.submit(2, ask())
    news = run(subject)
    assert tokens(news[2]) == [6, 6]
    assert pipeline.steps == 4


def test_the_end_token_is_not_part_of_the_answer() -> None:
    subject = engine(FakePipeline({1: [5, 6, 9]}))
    subject.submit(1, ask(end_id=9, log_probs=True))
    news = run(subject)[1]
    assert tokens(news) == [5, 6]
    assert [value for progress in news for value in progress.log_probs] == [-5.0, -6.0]
    assert news[-1].end is not None
    assert news[-1].end.error is None


def test_a_token_that_means_nothing_here_stays() -> None:
    subject = engine(FakePipeline({1: [5, 6, 9]}))
    subject.submit(1, ask(end_id=7))
    assert tokens(run(subject)[1]) == [5, 6, 9]


def test_a_long_stop_sequence_ends_the_request_and_frees_it_after_the_next_step() -> None:
    pipeline = FakePipeline({1: [5, 7, 8, 5, 5], 2: [6]})
    subject = engine(pipeline, total_blocks=2)
    subject.submit(1, ask(stop_words=((7, 8),), log_probs=True))
    subject.submit(2, ask())
    for _ in range(3):
        last = subject.turn()
    assert last[-1].end is not None
    assert pipeline.handles[1].cancelled
    assert 2 not in pipeline.handles  # its room is still taken
    assert subject.census().used_blocks == 2
    news = run(subject)
    assert tokens(news[2]) == [6]
    assert subject.census().used_blocks == 0


def test_a_whole_answer_comes_once() -> None:
    subject = engine(FakePipeline({1: [5, 6, 7]}))
    subject.submit(1, ask(streaming=False))
    (only,) = run(subject)[1]
    assert only.tokens == [5, 6, 7]


def test_cancelling_a_waiting_request_never_starts_it() -> None:
    pipeline = FakePipeline({1: [5, 5], 2: [6]})
    subject = engine(pipeline, max_batch=1)
    subject.submit(1, ask())
    subject.submit(2, ask())
    subject.cancel(2)
    news = run(subject)
    assert 2 not in pipeline.handles
    assert news[2] == [Progress(2, [], [], news[2][0].end)]
    assert tokens(news[1]) == [5, 5]


def test_cancelling_a_running_request_keeps_what_it_has() -> None:
    subject = engine(FakePipeline({1: [5, 6, 7, 8]}))
    subject.submit(1, ask(streaming=False))
    subject.turn()
    subject.turn()
    subject.cancel(1)
    (only,) = run(subject)[1]
    assert only.tokens == [5, 6]
    assert subject.census().used_blocks == 0


@pytest.mark.parametrize("streaming", [True, False])
def test_cancelling_gives_up_what_was_held_back_for_a_stop_sequence(*, streaming: bool) -> None:
    subject = engine(FakePipeline({1: [5, 7, 8, 9]}))
    subject.submit(1, ask(streaming=streaming, stop_words=((7, 8, 1),), log_probs=True))
    news = [progress for _ in range(3) for progress in subject.turn()]
    subject.cancel(1)
    news += run(subject)[1]
    assert tokens(news) == [5, 7, 8]
    assert [value for progress in news for value in progress.log_probs] == [-5.0, -7.0, -8.0]
    assert news[-1].end == End(None, 0, 2, 100, 102, 106)


def test_cancelling_twice_late_or_what_never_came_says_nothing() -> None:
    subject = engine(FakePipeline({1: [5, 6], 2: [7]}))
    subject.submit(1, ask())
    subject.submit(2, ask())
    subject.cancel(3)
    subject.cancel(1)
    subject.cancel(1)
    news = run(subject)
    subject.cancel(1)
    subject.cancel(2)
    assert not subject.busy
    assert [progress.end is not None for progress in news[1]] == [True]
    assert tokens(news[2]) == [7]
    assert subject.census().used_blocks == 0


def test_a_full_queue_refuses_in_tensorrt_llms_words() -> None:
    subject = engine(FakePipeline({1: [5], 2: [5], 3: [5]}), max_batch=1, max_queue_size=1)
    for key in (1, 2, 3):
        subject.submit(key, ask())
    news = run(subject)
    assert news[3][0].end is not None
    assert news[3][0].end.error == (
        "Maximum queue size of 1 has been reached, please try again later"
    )
    assert tokens(news[2]) == [5]


def test_a_request_the_pipeline_refuses_fails_alone() -> None:
    pipeline = FakePipeline({1: ValueError("somewhere:\nno such thing"), 2: [5]})
    subject = engine(pipeline)
    subject.submit(1, ask())
    subject.submit(2, ask())
    news = run(subject)
    assert news[1][0].end is not None
    assert news[1][0].end.error == (
        "Executor failed process requestId 1 due to the following error: no such thing"
    )
    assert tokens(news[2]) == [5]
    assert subject.census().used_blocks == 0


def test_what_is_the_requests_own_fault_is_said_as_such() -> None:
    subject = engine(FakePipeline({1: InvalidRequestError("bad grammar")}))
    subject.submit(1, ask())
    end = run(subject)[1][0].end
    assert end is not None
    assert end.error == "Invalid request: bad grammar"


def test_a_failing_step_fails_what_ran_and_the_engine_goes_on() -> None:
    pipeline = FakePipeline({1: [5, 5], 2: [6]})
    subject = engine(pipeline)
    pipeline.trouble = [RuntimeError("boom")]
    subject.submit(1, ask())
    news = run(subject)
    assert news[1][0].end is not None
    assert "due to the following error: boom" in str(news[1][0].end.error)
    assert pipeline.handles[1].cancelled
    subject.submit(2, ask())
    assert tokens(run(subject)[2]) == [6]
    assert subject.census().used_blocks == 0


def test_a_failing_step_says_what_a_whole_answer_had_made() -> None:
    pipeline = FakePipeline({1: [5, 6, 7]})
    subject = engine(pipeline)
    subject.submit(1, ask(streaming=False))
    subject.turn()
    pipeline.trouble = [RuntimeError("boom")]
    (last,) = run(subject)[1]
    assert last.tokens == [5]
    assert last.end is not None
    assert last.end.first_scheduled_ns == 100


def test_steps_that_never_stop_failing_end_the_engine() -> None:
    pipeline = FakePipeline({1: [5]})
    subject = engine(pipeline)
    pipeline.trouble = [RuntimeError("boom")] * 10
    subject.submit(1, ask())
    with pytest.raises(BrokenError, match="boom"):
        run(subject)


def test_a_request_given_up_for_want_of_cache_says_so() -> None:
    pipeline = FakePipeline({1: [5, 5, 5]})
    subject = engine(pipeline)
    subject.submit(1, ask())
    subject.turn()
    pipeline.handles[1].ignored = True
    end = run(subject)[1][-1].end
    assert end is not None
    assert "the KV-cache ran full" in str(end.error)


def test_the_census_counts_what_reads_its_prompt_and_what_answers() -> None:
    pipeline = FakePipeline({1: [5, 5, 5], 2: [6]})
    subject = engine(pipeline, max_batch=1)
    subject.submit(1, ask())
    subject.submit(2, ask())
    before = subject.census()
    assert (before.running, before.in_context, before.context_tokens) == (1, 1, 3)
    assert (before.waiting, before.used_blocks) == (1, 2)
    subject.turn()
    assert subject.census().in_context == 0
    run(subject)
    assert subject.census()._replace(iterations=0, reused_blocks=0) == type(before)()


def test_times_and_blocks_of_an_answer() -> None:
    subject = engine(FakePipeline({1: [5, 6], 2: [5, 6]}))
    subject.submit(1, ask(prompt=(1, 2, 3, 4, 5)))
    first = run(subject)[1][-1].end
    subject.submit(2, ask(prompt=(1, 2, 3, 4, 5)))
    second = run(subject)[2][-1].end
    assert first is not None
    assert second is not None
    assert first.first_scheduled_ns < first.first_token_ns < first.last_token_ns
    assert (first.reused_blocks, first.total_blocks) == (0, 2)
    assert second.reused_blocks == 2


# Guides


def guided(text: str, **options: Any) -> Generation:
    return ask(guide=("regex", text), **options)


def test_a_new_guide_waits_for_its_verdict_and_nobody_waits_with_it() -> None:
    guides = FakeGuides()
    pipeline = FakePipeline({1: [5, 5], 2: [6, 6, 6]})
    subject = engine(pipeline, max_batch=1, guides=guides)
    subject.submit(1, guided("a"))
    assert not subject.busy
    subject.submit(2, ask())
    assert tokens(run(subject)[2]) == [6, 6, 6]
    assert subject.census().waiting == 1
    guides.verdicts["a"] = ""
    subject.prove()
    assert tokens(run(subject)[1]) == [5, 5]
    assert subject.census().waiting == 0
    guides.kept_bytes = 7
    assert subject.census().guide_bytes == 7


def test_a_guide_that_may_not_run_ends_its_requests_in_words() -> None:
    guides = FakeGuides(bad="Invalid request: no", broken="cannot be tried")
    subject = engine(FakePipeline({}), guides=guides)
    subject.submit(1, guided("bad"))
    subject.submit(2, guided("broken"))
    news = run(subject)
    errors = [news[key][-1].end for key in (1, 2)]
    assert [end.error for end in errors if end] == [
        "Invalid request: no",
        "Executor failed process requestId 2 due to the following error: cannot be tried",
    ]


def test_whoever_leaves_takes_a_guide_along_that_nobody_else_waits_for() -> None:
    guides = FakeGuides()
    subject = engine(FakePipeline({}), guides=guides)
    for key, guide in ((1, "a"), (2, "a"), (3, "b")):
        subject.submit(key, guided(guide))
    subject.cancel(1)
    assert guides.dropped == []
    subject.cancel(2)
    assert guides.dropped == ["a"]
    news = run(subject)
    assert [news[key][-1].end for key in (1, 2)] == [End(), End()]


def test_not_all_may_wait_for_verdicts() -> None:
    subject = engine(FakePipeline({}), guides=FakeGuides())
    for key in range(17):
        subject.submit(key, guided("a", source="many"))
    (refused,) = run(subject)[16]
    assert refused.end is not None
    assert "wait for their guides" in str(refused.end.error)
    subject.submit(17, guided("a", source="other"))
    assert not subject.busy, "it waits"
    for key in range(18, 1026):
        subject.submit(key, guided("a", source=f"source {key}"))
    assert "Maximum queue size of 1024" in str(run(subject)[1025][0].end)


def test_who_is_not_trusted_has_known_guides_run_alone() -> None:
    guides = FakeGuides(known="")
    guides.costs = {"known": GUIDES}
    subject = engine(FakePipeline({2: [5], 3: [5]}), guides=guides)
    subject.submit(1, guided("new", known_only=True))
    for key in (2, 3):  # which are dear, and run one after another
        subject.submit(key, guided("known", known_only=True))
    news = run(subject)
    assert "no others wait for their guides" in str(errors(news[1])[1])
    assert [errors(news[key]) for key in (2, 3)] == [{2: None}, {3: None}]
    assert "new" not in guides.asked, "its trial might begin before it is dropped"


def test_who_waits_for_room_is_not_passed_by_others_that_take_less() -> None:
    """However many of one source come, the other's turn is next."""
    guides = FakeGuides(less="", more="")
    guides.costs = {"less": GUIDES * 45 // 100, "more": GUIDES * 90 // 100}
    many, one = range(1, 13), 20
    pipeline = FakePipeline({**{key: [5] * 5 for key in many}, one: [5] * 5})
    subject = engine(pipeline, guides=guides)
    waits = list(many)
    for _ in range(2):
        subject.submit(waits.pop(0), guided("less", source="many"))
    subject.turn()
    subject.submit(one, guided("more", source="one"))
    turns = 0
    while one not in pipeline.handles:
        assert turns < 6, "two answers end, and it runs"
        if waits:
            subject.submit(waits.pop(0), guided("less", source="many"))
        subject.turn()
        turns += 1
    assert [key for key in many if key in pipeline.handles] == [1, 2]
    news = run(subject)
    for key in many:
        subject.submit(key + 30, guided("less", source="many"))
    assert all(end is None for key in news for end in errors(news[key]).values())


def test_who_gave_up_waiting_for_room_holds_nobody_back() -> None:
    guides = FakeGuides(less="", more="")
    guides.costs = {"less": GUIDES * 45 // 100, "more": GUIDES * 90 // 100}
    pipeline = FakePipeline({1: [5] * 5, 2: [5] * 5, 3: [5] * 5})
    subject = engine(pipeline, guides=guides)
    subject.submit(1, guided("less", source="many"))
    subject.submit(9, guided("more", source="one"))
    subject.submit(2, guided("less", source="many"))
    assert 2 not in pipeline.handles
    subject.cancel(9)
    subject.submit(3, guided("less", source="many"))
    assert 2 in pipeline.handles
    run(subject)
    assert 3 in pipeline.handles


def test_one_source_has_few_new_guides_tried_at_a_time_and_known_ones_run() -> None:
    guides = FakeGuides(known="")
    subject = engine(FakePipeline({9: [1]}), guides=guides)
    for key, text in enumerate("abcde"):
        subject.submit(key, guided(text, source="many"))
    subject.submit(5, guided("d", source="many"))
    (refused,) = run(subject)[4]
    assert refused.end is not None
    assert "wait for their guides" in str(refused.end.error)
    assert guides.dropped == ["e"], "nobody waits for it"
    assert not subject.busy, "another request for a guide that is tried waits"
    subject.submit(9, guided("known", source="many", max_new_tokens=1))
    assert run(subject)[9][-1].tokens == [1]
    guides.verdicts["a"] = "Invalid request: no"
    subject.prove()
    run(subject)
    subject.submit(10, guided("e", source="many"))
    assert not subject.busy, "there is room again"


def errors(news: list[Progress]) -> dict[int, str | None]:
    return {each.key: each.end.error for each in news if each.end}


def test_a_guide_alone_that_slows_steps_ends_is_refused_and_others_go_on() -> None:
    pipeline = FakePipeline({1: [5] * 8, 2: [6] * 20, 3: [7] * 20, 4: [8] * 3})
    guides = FakeGuides(a="", b="")
    subject = engine(pipeline, max_batch=3, guides=guides)
    subject.submit(1, ask())
    subject.submit(2, guided("a"))
    subject.submit(3, guided("a"))
    subject.submit(4, guided("a"))
    subject.turn()
    subject.turn()
    pipeline.each_step = 2 * SLOW
    assert errors(subject.turn() + subject.turn()) == {}
    ended = errors(subject.turn())
    pipeline.each_step = 0
    assert ended == {2: TOO_SLOW, 3: TOO_SLOW, 4: TOO_SLOW}, "4 waited for a place"
    assert guides.refused == {guide_hash(("regex", "a")): TOO_SLOW}
    assert errors(run(subject)[1]) == {1: None}
    assert subject.census().used_blocks == 0


def test_short_plain_requests_do_not_hide_slow_steps() -> None:
    pipeline = FakePipeline({key: [5] * 20 for key in range(1, 20)})
    subject = engine(pipeline, guides=FakeGuides(a=""), max_batch=20)
    subject.submit(1, guided("a", max_new_tokens=20))
    subject.turn()
    subject.turn()
    pipeline.each_step = 2 * SLOW
    ended: dict[int, str | None] = {}
    for key in range(2, 6):  # a prompt is read in each step
        subject.submit(key, ask(max_new_tokens=1))
        ended |= errors(subject.turn())
    pipeline.each_step = 0
    assert ended[1] == TOO_SLOW


def test_steps_that_read_long_prompts_beside_a_guide_may_take_what_reading_takes() -> None:
    pipeline = FakePipeline({key: [5] * 40 for key in range(1, 20)})
    subject = engine(pipeline, total_blocks=1000, guides=FakeGuides(a=""), max_batch=20)
    prompt = tuple(range(AT_ONCE))
    subject.submit(1, guided("a", max_new_tokens=40))
    subject.turn()
    pipeline.each_step = 2 * SLOW
    ended: dict[int, str | None] = {}
    for key in range(2, 10):
        subject.submit(key, ask(prompt=prompt[key:] + prompt[:key], max_new_tokens=1))
        ended |= errors(subject.turn())
    pipeline.each_step = 0
    assert ended.get(1) is None
    assert subject._conduct.token_ns(guide_hash(("regex", "a"))) == 0


def test_what_reading_takes_is_learnt_from_steps_without_guides() -> None:
    pipeline = FakePipeline({key: [5] for key in range(1, 100)})
    alarm = FakeAlarm()
    subject = engine(pipeline, guides=FakeGuides(a=""), alarm=alarm)
    prompt = tuple(range(AT_ONCE))

    def allowed(key: int) -> int:
        subject.submit(key, guided("a", prompt=(key, *prompt[1:])))
        run(subject)
        return alarm.steps[-1][1]

    first = allowed(1)
    pipeline.each_step = SLOW // 10
    for key in range(2, 80):
        subject.submit(key, ask(prompt=(key, *prompt[1:])))
        run(subject)
    learnt = allowed(80)
    assert SLOW // 10 <= learnt - SLOW < SLOW < first - SLOW
    pipeline.each_step = 20 * SLOW
    subject.submit(81, guided("a", prompt=(81, *prompt[1:])))
    run(subject)
    pipeline.each_step = 0
    assert allowed(82) == learnt, "a guide does not raise it"


def test_steps_that_had_to_wait_for_the_processor_end_nothing() -> None:
    pipeline = FakePipeline({1: [5] * 8})
    subject = engine(pipeline, guides=FakeGuides(a=""))
    subject.submit(1, guided("a"))
    pipeline.each_step = pipeline.each_wait = 9 * SLOW
    assert errors(run(subject)[1]) == {1: None}


def test_the_alarm_is_set_for_steps_that_follow_guides_and_says_who_is_to_blame() -> None:
    pipeline = FakePipeline({1: [5] * 9, 2: [5] * 6, 3: [5] * 9, 4: [6]})
    alarm = FakeAlarm()
    subject = engine(pipeline, guides=FakeGuides(a="", b=""), alarm=alarm)
    subject.submit(3, ask())
    subject.turn()
    assert alarm.steps == []
    subject.submit(1, guided("a", max_new_tokens=9))
    for _ in range(4):
        subject.turn()
    assert [step[::2] for step in alarm.steps] == [([1], True)] * 4
    subject.submit(2, guided("b", max_new_tokens=9))
    subject.turn()
    assert alarm.steps[-1][::2] == ([1, 2], False)
    subject.submit(4, guided("a", max_new_tokens=9))
    subject.turn()
    assert alarm.steps[-1][::2] == ([1, 2, 4], False), "guides are to blame, not answers"
    pipeline.trouble = [RuntimeError("boom")]
    subject.turn()
    assert not alarm.on


def test_an_answer_that_reads_its_prompt_follows_no_guide_yet() -> None:
    pipeline = FakePipeline({1: [5] * 3})
    alarm = FakeAlarm()
    subject = engine(pipeline, guides=FakeGuides(a=""), alarm=alarm)
    subject.submit(1, guided("a", prompt=tuple(range(2 * AT_ONCE + 1))))
    handle = pipeline.handles[1]
    handle.script, script = [], handle.script
    handle.ignored, running = False, handle.running
    handle.running = lambda: True  # type: ignore[method-assign]
    subject.turn()
    subject.turn()
    assert alarm.steps == []
    handle.script, handle.running = script, running  # type: ignore[method-assign]
    subject.turn()
    assert alarm.steps[0][::2] == ([1], True)


def test_of_several_guides_one_ends_to_be_tried_elsewhere() -> None:
    pipeline = FakePipeline({1: [5] * 60, 2: [6] * 60})
    guides = FakeGuides(old="", new="")
    subject = engine(pipeline, guides=guides)
    subject.submit(1, guided("old", max_new_tokens=60))
    subject.turn()
    subject.turn()
    subject.submit(2, guided("new", max_new_tokens=60))
    subject.turn()
    pipeline.each_step = 2 * SLOW
    ended = errors(subject.turn() + subject.turn() + subject.turn())
    pipeline.each_step = 0
    assert "its guide may be why: please try elsewhere" in str(ended.pop(2))
    assert (ended, guides.refused) == ({}, {})
    assert errors(run(subject)[1]) == {1: None}


def test_a_guide_that_seems_to_be_why_twice_is_kept_out_where_its_source_asks() -> None:
    pipeline = FakePipeline({key: [5] * 60 for key in range(1, 99)})
    guides = FakeGuides(slow="", **{f"old {number}": "" for number in range(2)})
    subject = engine(pipeline, guides=guides)
    for number in range(2):
        subject.submit(10 * number + 1, guided(f"old {number}", source="acme"))
        subject.turn()
        subject.turn()
        subject.submit(10 * number + 2, guided("slow", source="acme"))
        subject.turn()
        pipeline.each_step = 2 * SLOW
        ended = errors([progress for _ in range(3) for progress in subject.turn()])
        pipeline.each_step = 0
        assert "its guide may be why" in str(ended[10 * number + 2])
        run(subject)
    subject.submit(30, guided("slow", source="acme"))
    subject.submit(31, guided("slow", source="umbrella"))
    news = run(subject)
    assert "its guide may be why: please try elsewhere" in str(errors(news[30])[30])
    assert errors(news[31]) == {31: None}
    assert guides.refused == {}


def test_one_slow_step_ends_nothing_however_slow() -> None:
    pipeline = FakePipeline({1: [5] * 8})
    subject = engine(pipeline, guides=FakeGuides(a=""))
    subject.submit(1, guided("a"))
    subject.turn()
    pipeline.each_step = 100 * SLOW
    news = subject.turn()
    pipeline.each_step = 0
    assert [each.end for each in news + run(subject)[1] if each.end and each.end.error] == []


def test_guides_that_take_much_together_run_one_after_another_and_sources_take_turns() -> None:
    pipeline = FakePipeline({key: [5] * 3 for key in range(1, 7)})
    guides = FakeGuides(dear="", cheap="")
    guides.costs = {"dear": 200, "cheap": 9}
    subject = engine(pipeline, guides=guides)
    for key in (1, 2, 3):
        subject.submit(key, guided("dear", source="many"))
    subject.submit(4, guided("dear", source="other"))
    subject.submit(5, guided("cheap", source="other"))
    subject.submit(6, ask())
    assert subject.census().running == 3
    assert subject.census().waiting == 3
    subject.cancel(3)
    ends = [each.key for progress in iter(subject.turn, []) for each in progress if each.end]
    assert ends == [3, 1, 5, 6, 4, 2]
    assert subject.census().waiting == 0


def test_a_dear_guide_that_is_cancelled_or_fails_lets_the_next_one_run() -> None:
    pipeline = FakePipeline({1: [5] * 9, 2: [5] * 9, 3: [5] * 3})
    guides = FakeGuides(dear="")
    guides.costs = {"dear": 400}
    subject = engine(pipeline, guides=guides)
    for key in (1, 2, 3):
        subject.submit(key, guided("dear"))
    subject.turn()
    subject.cancel(1)
    subject.turn()
    pipeline.trouble = [RuntimeError("out of luck")]
    subject.turn()
    news = run(subject)[3]
    assert news[-1].end is not None
    assert news[-1].end.error is None


def test_slow_steps_that_read_prompts_or_follow_no_guide_end_nothing() -> None:
    pipeline = FakePipeline({1: [5] * 8})
    subject = engine(pipeline)
    pipeline.each_step = SLOW
    subject.submit(1, ask())
    news = run(subject)[1]
    assert tokens(news) == [5] * 8
    assert news[-1].end is not None
    assert news[-1].end.error is None


# What guides turn out to take


def steps(subject: Engine, pipeline: FakePipeline, ns: int, times: int) -> dict[int, str | None]:
    """So many steps that take so long."""
    pipeline.each_step = ns
    ended = errors([progress for _ in range(times) for progress in subject.turn()])
    pipeline.each_step = 0
    return ended


def test_a_guide_that_turns_out_to_take_more_than_it_may_runs_alone() -> None:
    pipeline = FakePipeline({key: [5] * 90 for key in range(1, 5)})
    guides = FakeGuides(a="", dear="")
    guides.costs = {"dear": 200}
    subject = engine(pipeline, guides=guides)
    subject.submit(1, guided("a", max_new_tokens=90))
    subject.turn()
    subject.turn()
    assert steps(subject, pipeline, SLOW // 2, 40) == {}
    subject.submit(2, guided("dear"))
    subject.submit(3, guided("a", max_new_tokens=90))
    subject.submit(4, ask(max_new_tokens=90))
    assert (subject.census().running, subject.census().waiting) == (2, 2)
    subject.cancel(1)
    subject.turn()
    assert subject.census().waiting == 1, "dear ones one after another"


def test_a_guide_that_takes_many_times_what_it_may_is_refused_though_no_step_is_slow() -> None:
    pipeline = FakePipeline({key: [5] * 90 for key in range(1, 3)})
    guides = FakeGuides(a="")
    subject = engine(pipeline, guides=guides, slow=100 * GUIDES)
    subject.submit(1, guided("a", max_new_tokens=90))
    subject.submit(2, ask(max_new_tokens=90))
    subject.turn()
    subject.turn()
    assert steps(subject, pipeline, 10 * GUIDES, 20) == {1: TOO_SLOW}
    assert guides.refused == {guide_hash(("regex", "a")): TOO_SLOW}
    assert errors(run(subject)[2]) == {2: None}


@pytest.mark.parametrize("compiling", [False, True])
def test_what_compiling_takes_beside_a_step_is_held_against_nobody(*, compiling: bool) -> None:
    pipeline = FakePipeline({1: [5] * 90})
    guides = FakeGuides(a="")
    subject = engine(pipeline, guides=guides)
    subject.submit(1, guided("a", max_new_tokens=90))
    subject.turn()
    subject.turn()
    guides.compiling = compiling
    assert bool(steps(subject, pipeline, SLOW, 40)) is False
    assert (subject._conduct.token_ns(guide_hash(("regex", "a"))) > 0) is not compiling


def test_answers_that_take_long_without_a_guide_are_held_against_none() -> None:
    pipeline = FakePipeline({key: [5] * 200 for key in range(1, 4)})
    guides = FakeGuides(a="")
    subject = engine(pipeline, guides=guides, total_blocks=200)
    subject.submit(1, ask(max_new_tokens=200))
    subject.submit(2, ask(max_new_tokens=200))
    steps(subject, pipeline, SLOW, 40)
    subject.cancel(1)
    subject.submit(3, guided("a", max_new_tokens=200))
    assert steps(subject, pipeline, 10, 2) == {1: None}
    assert steps(subject, pipeline, SLOW, 100) == {}
    assert subject._conduct.token_ns(guide_hash(("regex", "a"))) == 0


SORTED = Sampling(greedy=False, temperature=2.0, top_p=0.999)


def beside_sampled(sampled: int, **options: Any) -> tuple[Engine, FakePipeline]:
    """Plain answers have taught what they take; now a known guide runs beside `sampled` others."""
    pipeline = FakePipeline({key: [5] * 500 for key in range(1, 40)})
    subject = engine(pipeline, guides=FakeGuides(a="", new=""), total_blocks=9000, max_batch=20)
    for key in range(1, 12):
        subject.submit(key, ask(max_new_tokens=500))
    steps(subject, pipeline, GUIDES // 10, 60)
    for key in range(1, 12):
        subject.cancel(key)
    subject.turn()
    subject.submit(20, guided("a", source="alice", max_new_tokens=500, **options))
    for key in range(21, 21 + sampled):
        subject.submit(key, ask(source="mallory", sampling=SORTED, max_new_tokens=500))
    steps(subject, pipeline, GUIDES // 10, 60)
    return subject, pipeline


def test_what_others_sample_is_not_held_against_a_guide() -> None:
    subject, pipeline = beside_sampled(10)
    assert steps(subject, pipeline, 10 * CHOOSING[Choice.SORTED], 300) == {}
    assert subject._conduct.token_ns(guide_hash(("regex", "a"))) == 0
    assert not subject._conduct.no_new("alice")
    subject.submit(39, guided("new", source="alice"))
    subject.turn()
    assert subject.census().running == 12


def test_what_a_guides_own_answers_sample_is_not_held_against_it() -> None:
    subject, pipeline = beside_sampled(0, sampling=SORTED)
    assert steps(subject, pipeline, CHOOSING[Choice.SORTED], 300) == {}
    assert subject._conduct.token_ns(guide_hash(("regex", "a"))) == 0


def test_a_dear_guide_is_found_beside_sampled_answers() -> None:
    subject, pipeline = beside_sampled(1)
    took = 2 * CHOOSING[Choice.SORTED] + 10 * GUIDES
    assert steps(subject, pipeline, took, 20) == {20: TOO_SLOW}


def test_sampled_answers_leave_no_room_for_a_dear_guide_once_they_have_ended() -> None:
    pipeline = FakePipeline({key: [5] * 300 for key in range(1, 4)})
    subject = engine(pipeline, guides=FakeGuides(a=""), total_blocks=200)
    for key, sampling, ns in ((1, Sampling(), 10), (2, SORTED, CHOOSING[Choice.SORTED])):
        subject.submit(key, ask(sampling=sampling, max_new_tokens=300))
        steps(subject, pipeline, ns, 290)
        subject.cancel(key)
        subject.turn()
    subject.submit(3, guided("a", max_new_tokens=300))
    assert steps(subject, pipeline, 10, 140) == {}
    assert steps(subject, pipeline, 10 * GUIDES, 20) == {3: TOO_SLOW}


def test_steps_slow_by_plain_answers_alone_end_no_guide() -> None:
    pipeline = FakePipeline({key: [5] * 200 for key in range(1, 4)})
    subject = engine(pipeline, guides=FakeGuides(a=""), total_blocks=200)
    subject.submit(1, ask(max_new_tokens=200))
    subject.submit(2, ask(max_new_tokens=200))
    steps(subject, pipeline, 2 * SLOW, 40)
    subject.cancel(1)
    subject.submit(3, guided("a", max_new_tokens=200))
    assert steps(subject, pipeline, 10, 2) == {1: None}
    assert steps(subject, pipeline, 2 * SLOW, 100) == {}


def test_a_step_of_many_sampled_answers_may_take_longer_before_the_alarm() -> None:
    pipeline = FakePipeline({key: [5] * 9 for key in range(1, 4)})
    alarm = FakeAlarm()
    subject = engine(pipeline, guides=FakeGuides(a=""), alarm=alarm)
    subject.submit(1, guided("a", max_new_tokens=9))
    subject.turn()
    subject.turn()
    before = alarm.steps[-1][1]
    subject.submit(2, ask(sampling=SORTED, max_new_tokens=9))
    subject.turn()
    subject.turn()
    assert alarm.steps[-1][1] - before == pytest.approx(1.5 * CHOOSING[Choice.SORTED], rel=0.1)


def test_of_a_source_that_took_too_much_no_new_guides_are_tried_and_no_dear_ones_run() -> None:
    pipeline = FakePipeline({key: [5] * 90 for key in range(1, 3000)})
    slow = {f"slow {number}": "" for number in range(200)}
    guides = FakeGuides(cheap="", untried="", **slow)
    subject = engine(pipeline, guides=guides, slow=100 * GUIDES)
    subject.submit(2999, guided("cheap", max_new_tokens=90))
    steps(subject, pipeline, 10, 100)
    for key in range(1, 200):  # given up each time before anything is ended over it
        subject.submit(key, guided(f"slow {key % 20}", source="acme", max_new_tokens=90))
        subject.turn()
        subject.turn()
        steps(subject, pipeline, 40 * GUIDES, 2)
        subject.cancel(key)
        subject.turn()
        if key == 9:
            subject.submit(2000, guided("new", source="acme"))
            assert "wait for their guides" in str(errors(subject.turn())[2000])
            assert key in pipeline.handles
    assert 9 < len(pipeline.handles) < 30
    for key, (guide, source) in enumerate(
        [("slow 1", "acme"), ("cheap", "acme"), ("slow 1", "other"), ("untried", "acme")],
        start=2001,
    ):
        subject.submit(key, guided(guide, source=source))
    news = run(subject)
    assert errors(news[2001]) == {2001: TRUST_LOST}
    assert [errors(news[key]) for key in (2002, 2003)] == [{2002: None}, {2003: None}]
    assert errors(news[2004]) == {2004: TRUST_LOST}, "a trial's word is not enough any more"


def filled_by_acme(pipeline: FakePipeline) -> tuple[Engine, FakeGuides]:
    """An engine whose memory for guides that source has filled to more than a half."""
    guides = FakeGuides(own="")
    subject = engine(pipeline, guides=guides)
    guides.fills = {"acme": BYTES // 2, "other": BYTES // 2, "": BYTES}
    subject.prove()
    subject.submit(1, guided("new", source="acme"))
    assert subject.turn() == []  # half of it is its part
    guides.fills = {"acme": 1}
    subject.prove()
    return subject, guides


def test_of_a_source_that_filled_most_of_the_memory_no_new_guides_are_tried() -> None:
    pipeline = FakePipeline({key: [5] for key in range(1, 10)})
    subject, guides = filled_by_acme(pipeline)
    subject.submit(2, guided("newer", source="acme"))
    subject.submit(3, guided("own", source="acme"))
    subject.submit(4, guided("newer", source="other"))
    subject.submit(5, guided("newest"))
    guides.verdicts |= {"newer": "", "newest": ""}
    subject.prove()
    news = run(subject)
    assert ("acme", "newer") not in zip(guides.sources, guides.asked, strict=True)
    assert {key: errors(found)[key] for key, found in news.items()} == {
        2: TOO_FULL,
        3: None,
        4: None,
        5: None,
    }


def test_what_a_source_filled_counts_in_the_next_engine_and_is_forgotten() -> None:
    first, _ = filled_by_acme(FakePipeline({}))
    standings = first.standings()
    assert standings is not None
    assert first.standings() is None
    pipeline = FakePipeline({})
    second = engine(pipeline)
    second.inherit(standings)
    second.submit(1, guided("again", source="acme"))
    assert errors(second.turn()) == {1: TOO_FULL}
    pipeline.slept += 60 * 10**9  # a minute
    second.submit(2, guided("again", source="acme"))
    assert second.turn() == []


def test_what_guides_of_a_source_took_counts_in_the_next_engine() -> None:
    pipeline = FakePipeline({key: [5] * 90 for key in range(1, 100)})
    guides = FakeGuides(cheap="", **{f"slow {number}": "" for number in range(100)})
    first = engine(pipeline, guides=guides, slow=100 * GUIDES)
    first.submit(99, guided("cheap", max_new_tokens=90))
    steps(first, pipeline, 10, 100)
    for key in range(1, 60):
        first.submit(key, guided(f"slow {key}", source="acme", max_new_tokens=90))
        first.turn()
        steps(first, pipeline, 40 * GUIDES, 3)
        first.cancel(key)
        first.turn()
    standings = first.standings()
    assert standings is not None
    second = engine(FakePipeline({}))
    second.submit(1, guided("before", source="acme"))
    assert second.turn() == []
    second.inherit(standings)
    second.submit(2, guided("new", source="acme"))
    assert errors(second.turn()) == {2: TRUST_LOST}
    second.submit(3, guided("new", source="other"))
    assert second.turn() == []


def test_steps_that_take_all_as_long_are_held_against_no_guide() -> None:
    subject = engine(pipeline := FakePipeline({1: [5] * 90}), guides=FakeGuides(a=""))
    subject.submit(1, guided("a", max_new_tokens=90))
    assert steps(subject, pipeline, SLOW, 80) == {}
    assert subject._conduct.token_ns(guide_hash(("regex", "a"))) == 0


def test_a_guide_that_ended_twice_beside_others_is_kept_out_where_its_source_asks() -> None:
    pipeline = FakePipeline({key: [5] * 90 for key in range(1, 99)})
    guides = FakeGuides(bad="", **{f"old {number}": "" for number in range(2)})
    subject = engine(pipeline, guides=guides, slow=100 * GUIDES)
    for number in range(2):
        for key, guide in ((1, f"old {number}"), (2, f"old {number}"), (3, "bad")):
            subject.submit(10 * number + key, guided(guide, source="acme", max_new_tokens=90))
            subject.turn()
            subject.turn()
            if key == 1:
                steps(subject, pipeline, 0, 80)
                subject.cancel(10 * number + key)
        steps(subject, pipeline, 0, 20)
        ended = steps(subject, pipeline, 20 * GUIDES, 20)
        assert "its guide may be why" in str(ended[10 * number + 3])
        subject.cancel(10 * number + 2)
        run(subject)
    for key, source in ((30, "acme"), (31, "umbrella")):
        subject.submit(key, guided("bad", source=source))
    news = run(subject)
    assert "its guide may be why: please try elsewhere" in str(errors(news[30])[30])
    assert errors(news[31]) == {31: None}
