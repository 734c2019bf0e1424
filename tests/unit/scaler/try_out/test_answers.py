"""What the process that tries files refuses before it computes."""

import pytest

from services.scaler.try_out import __main__ as process


@pytest.mark.parametrize(
    "question",
    [{"kind": "plan", "page": True}, {"kind": "simulate", "scene": {"page": True}}],
    ids=["plan", "simulate"],
)
def test_a_page_without_what_draws_it_is_refused(question, monkeypatch):
    monkeypatch.setattr(process, "NEEDED_BY_PAGES", ("no_such_module",))
    with pytest.raises(process.Refused, match="pages need no_such_module: install the extra `sim"):
        process._answered(question, lambda _: None)


def test_without_a_page_nothing_that_draws_is_asked_for(monkeypatch):
    monkeypatch.setattr(process, "NEEDED_BY_PAGES", ("no_such_module",))
    with pytest.raises(KeyError, match="live"):  # it is tried
        process._answered({"kind": "plan", "page": False}, lambda _: None)
