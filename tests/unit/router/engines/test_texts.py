"""Texts of models are loaded once, and live while somebody holds them."""

import gc
from pathlib import Path
from typing import Any
from weakref import ref

import pytest

from services.common.config import ConfigError
from services.router.engines.texts import FILES, TEMPLATE, Texts
from services.router.engines.tokenizer import ModelText

MODELS = Path(__file__).parents[4] / "model_repository/cpu"


class Text:
    def __init__(self, folder: Path) -> None:
        self.folder = folder


class Loading:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.loaded: list[str] = []
        self.texts = Texts(self.load)

    def load(self, folder: Path) -> Any:
        if not (folder / "tokenizer.json").exists():
            raise ConfigError(str(folder), ["cannot load the tokenizer"])
        self.loaded.append(folder.name)
        return Text(folder)

    def make(self, folder: str, **files: str) -> str:
        """A tokenizer's folder; files by their names without dots."""
        path = self.root / folder
        path.mkdir()
        for name in FILES[:2]:
            (path / name).write_text(files.pop(name.partition(".")[0], "{}"))
        for text in files.values():
            (path / TEMPLATE).write_text(text)
        return str(path)

    def of(self, *folders: str) -> dict[str, Any]:
        return self.texts.of(str(self.root / folder) for folder in folders)


@pytest.fixture
def loading(tmp_path: Path) -> Loading:
    return Loading(tmp_path)


def test_a_folder_is_loaded_once_while_its_text_is_held(loading: Loading) -> None:
    for folder in "abc":
        loading.make(folder, tokenizer=folder)
    held = loading.of("a", "b", "a")
    more = loading.of("b", "c")
    assert loading.loaded == ["a", "b", "c"]
    b = str(loading.root / "b")
    assert held[b] is more[b]


def test_equal_folders_have_one_text(loading: Loading) -> None:
    same = [loading.make(name, tokenizer="{1}", chat_template="hi") for name in ("a", "b")]
    held = loading.of("a", "b")
    assert loading.loaded == ["a"]
    assert held[same[0]] is held[same[1]]


@pytest.mark.parametrize("name", ["tokenizer", "tokenizer_config", "chat_template"])
def test_folders_that_differ_in_any_file_have_texts_of_their_own(
    loading: Loading, name: str
) -> None:
    loading.make("a")
    loading.make("b", **{name: "[]"})
    held = loading.of("a", "b")
    assert loading.loaded == ["a", "b"]
    assert len(set(map(id, held.values()))) == 2


def test_a_text_goes_when_nobody_holds_it(loading: Loading) -> None:
    path = loading.make("a")
    held = loading.of("a")
    text = ref(held[path])
    held.clear()
    gc.collect()
    assert text() is None
    loading.of("a")
    assert loading.loaded == ["a", "a"]


def test_a_folder_is_not_read_again_while_its_text_is_held(loading: Loading) -> None:
    path = loading.make("a")
    held = loading.of("a")
    (Path(path) / "tokenizer.json").write_text("[]")
    assert loading.of("a") == held
    assert loading.loaded == ["a"]


def test_the_two_models_of_the_tree_have_one_text() -> None:
    folders = [str(MODELS / name / "weights/int8") for name in ("small", "large")]
    small, large = Texts(ModelText).of(folders).values()
    assert small is large


def test_folders_without_a_tokenizer_are_refused_each_by_itself(loading: Loading) -> None:
    for name in ("a", "b"):
        (loading.root / name).mkdir()
        with pytest.raises(ConfigError, match=f"{name}: cannot load"):
            loading.of(name)
