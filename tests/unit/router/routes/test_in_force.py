"""Texts of models stay while a request may need them, and no longer."""

from typing import Any

import pytest

from services.router.policy.routes import Policies
from services.router.routes.in_force import VERSIONS_KEPT, Texts
from tests.making.policies import policies, route, tier


class Loading:
    def __init__(self) -> None:
        self.loaded: list[str] = []
        self.texts = Texts(self.load)

    def load(self, folder: str) -> Any:
        self.loaded.append(folder)
        return f"text of {folder}"

    def adopt(self, *folders: str) -> Policies:
        ladder = [tier(f"tier{at}", tokenizer=one) for at, one in enumerate(folders)]
        made = policies(route("chat", *ladder))
        self.texts.adopt(made, self.texts.load(made))
        return made


def test_a_folder_is_loaded_once_for_all_tiers_and_versions() -> None:
    loading = Loading()
    loading.adopt("a", "b", "a")
    loading.adopt("b", "c")
    assert loading.loaded == ["a", "b", "c"]
    assert dict(loading.texts) == {one: f"text of {one}" for one in "abc"}


def test_texts_of_the_last_versions_stay() -> None:
    loading = Loading()
    for folder in "abcd":
        loading.adopt(folder)
    assert set(loading.texts) == set("abcd"[-VERSIONS_KEPT:])
    with pytest.raises(KeyError):
        loading.texts["a"]


def test_texts_stay_while_a_request_travels_by_their_version() -> None:
    loading = Loading()
    under_way = loading.adopt("a")
    for folder in "bcdefgh":
        loading.adopt(folder)
    assert set(loading.texts) == {"a", "f", "g", "h"}
    del under_way
    loading.adopt("h")
    assert set(loading.texts) == {"g", "h"}


def test_what_was_loaded_for_policies_that_were_refused_is_not_kept() -> None:
    loading = Loading()
    loading.adopt("a")
    loading.texts.load(policies(route("chat", tier(tokenizer="never in force"))))
    assert set(loading.texts) == {"a"}
