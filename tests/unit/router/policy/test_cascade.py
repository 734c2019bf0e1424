"""The way up a ladder, whatever the thresholds, the halts and the answers are."""

from hypothesis import given
from hypothesis import strategies as st

from services.router.policy.calibration import Rung
from services.router.policy.cascade import Cascade, first_look
from services.router.policy.certainty import Certainty
from services.router.policy.decision import Reason, Verdict
from services.router.policy.levers import lever_of_tier, levers_of
from services.router.policy.routes import CachePolicy, Route, Trimming
from tests.making.policies import calibrated, ladder, quality, route, tier

UNCACHED = CachePolicy(use=False, ttl_seconds=1, wait_seconds=0)

rung = st.builds(
    Rung, st.sampled_from([-1.0, 1.0]), st.one_of(st.none(), st.floats(-5, 0, allow_nan=False))
)
sure = st.one_of(st.none(), st.floats(-6, 0).map(lambda value: Certainty(value, value, value)))


@st.composite
def ways(draw: st.DrawFn) -> tuple[Route, set[str]]:
    rungs = draw(st.lists(rung, min_size=1, max_size=4))
    names = [f"t{at}" for at in range(len(rungs) + 1)]
    asked = route("chat", *ladder(*names), quality=quality(*rungs))
    levers = levers_of(asked)
    return asked, draw(st.sets(st.sampled_from(levers)))


@given(ways(), st.lists(st.tuples(sure, st.booleans()), min_size=5, max_size=5))
def test_every_cascade_ends_and_its_answer_was_allowed(
    way: tuple[Route, set[str]], answers: list[tuple[Certainty | None, bool]]
) -> None:
    asked, halted = way
    look = first_look(asked, halted)
    cascade = Cascade(look)
    calibration = asked.quality.calibration if asked.quality else None
    assert calibration is not None
    rungs = calibration.judgement.thresholds.rungs
    seen = []
    for certainty, valid in answers:
        step = cascade.step()
        seen.append(step.rung)
        if not step.checked:
            break
        at = rungs[step.rung]
        assert at.skip_above_gain == 1.0
        assert lever_of_tier(asked, step.rung) not in halted
        asks = at.accept_at_certainty
        assert step.needs_certainty == (asks is not None)
        if cascade.stands(certainty, valid=valid):
            assert valid
            assert asks is None or (certainty is not None and certainty.mean >= asks)
            break
    assert seen == sorted(set(seen))  # upwards, never twice
    last = cascade.step()
    assert last.rung == seen[-1]
    chosen = [one.tier for one in cascade.candidates() if one.verdict is Verdict.CHOSEN]
    assert chosen == [last.tier.name]
    assert last.tier in look.writers
    assert cascade.explanation().endswith(".")
    if last.rung == len(asked.ladder) - 1:
        assert not last.checked
        assert cascade.reason() is not Reason.CALIBRATED


@given(ways())
def test_halting_every_lever_leaves_the_top_tier(way: tuple[Route, set[str]]) -> None:
    asked, _ = way
    look = first_look(asked, set(levers_of(asked)))
    cascade = Cascade(look)
    assert cascade.step().tier is asked.top_tier
    assert look.writers == (asked.top_tier,)


def test_another_precision_of_the_same_model_is_a_lever_of_its_own() -> None:
    small, int4, int8 = tier("small"), tier("int4", model="big"), tier("int8", model="big")
    asked = route(
        "chat",
        small, int4, int8,
        quality=quality(calibration=calibrated(Rung(1.0, None), Rung(1.0, None))),
        trimming=Trimming(white_space=True),
    )  # fmt: skip
    assert levers_of(asked) == ("tier:small", "precision:int4", "trimming", "cache")
    fixed = route("chat", small, int4, int8, fixed_tier=int4, cache=UNCACHED)
    assert levers_of(fixed) == ("precision:int4",)
    assert levers_of(route("chat", small, cache=UNCACHED)) == ()


def test_a_fixed_tier_answers_unchecked_and_lower_ones_are_never_used() -> None:
    tiers = ladder("a", "b", "c")
    asked = route("chat", *tiers, fixed_tier=tiers[1])
    look = first_look(asked, ())
    cascade = Cascade(look)
    assert (cascade.step().tier, cascade.step().checked) == (tiers[1], False)
    assert cascade.reason() is Reason.FIXED_TIER
    assert cascade.explanation() == "The policy of chat sends every request to b."
    assert look.writers == tiers[1:]


def test_candidates_are_as_they_stand_whenever_they_are_asked_for() -> None:
    asked = route("chat", *ladder("a", "b", "c"), quality=quality(Rung(1.0, -0.5), Rung(1.0, None)))
    cascade = Cascade(first_look(asked, ()))
    turned = [Verdict.CHOSEN, Verdict.NOT_REACHED, Verdict.NOT_REACHED]
    assert [one.verdict for one in cascade.candidates()] == turned
    assert not cascade.stands(Certainty(-1, -1, -1), valid=True)
    assert cascade.candidates()[0].certainty == -1
    assert cascade.step().rung == 1
    assert cascade.candidates()[0].verdict is Verdict.UNSURE
    cascade.pass_over(Verdict.UNAVAILABLE)
    assert cascade.step().rung == 2
    assert [one.verdict for one in cascade.candidates()] == [
        Verdict.UNSURE,
        Verdict.UNAVAILABLE,
        Verdict.CHOSEN,
    ]
    assert cascade.candidates() is cascade.candidates()
