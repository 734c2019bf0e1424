"""Sizes that somebody else sets: respected or undone, never fought."""

from services.scaler.policy.by_hand import UNDO_SECONDS, UNDO_TIMES, Hands


def found(hands: Hands, replicas: int, now: float, *, undo: bool = False) -> Hands:
    return hands.found(replicas, now, undo=undo, respect_seconds=100.0)


def test_what_is_found_first_is_nobodys_by_hand():
    assert found(Hands(), 3, 0.0) == Hands(ours=3)


def test_what_we_set_is_ours():
    hands = Hands(ours=3).set(5)
    assert found(hands, 5, 1.0) == hands


def test_anothers_number_is_respected_for_a_while():
    hands = found(Hands(ours=3), 7, 10.0)
    assert (hands.theirs, hands.until) == (7, 110.0)
    assert found(hands, 7, 109.0).theirs == 7
    assert hands.said(50.0) == "somebody else set 7 replicas and has 60 s more of it"
    after = found(hands, 7, 110.0)
    assert (after.ours, after.theirs, after.said(110.0)) == (7, None, "")


def test_another_number_begins_anew_and_ours_ends_it():
    hands = found(found(Hands(ours=3), 7, 0.0), 8, 50.0)
    assert (hands.theirs, hands.until) == (8, 150.0)
    assert found(hands, 3, 60.0).theirs is None


def test_anothers_number_is_undone():
    hands = found(Hands(ours=3), 7, 10.0, undo=True)
    assert (hands.ours, hands.theirs, hands.undone) == (7, None, (10.0,))


def test_who_sets_it_again_and_again_is_not_fought():
    hands = Hands(ours=3)
    for turn in range(UNDO_TIMES):
        hands = found(hands, 7, float(turn), undo=True).set(3)
    hands = found(hands, 7, 10.0, undo=True)
    assert (hands.theirs, hands.fought) == (7, True)
    assert "again and again" in hands.said(10.0)
    assert found(hands, 7, 20.0, undo=True) == hands


def test_undoing_now_and_then_is_no_fight():
    hands = Hands(ours=3)
    for turn in range(2 * UNDO_TIMES):
        hands = found(hands, 7, turn * UNDO_SECONDS, undo=True)
        assert hands.theirs is None
        hands = hands.set(3)
