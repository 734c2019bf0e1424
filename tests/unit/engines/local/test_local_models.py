"""The committed weights of the local models: complete folders that agree with the recipes."""

import json
from itertools import pairwise
from pathlib import Path

import jinja2
import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from engines.local.answers import load_answers
from engines.local.tokens import (
    BOS_ID,
    CHAT_TEMPLATE,
    EOS,
    EOS_ID,
    PAD_ID,
    SPECIAL_TOKENS,
    Turn,
    render,
)
from engines.recipes import RECIPES

REPOSITORY = Path(__file__).parents[4] / "model_repository" / "cpu"
FOLDERS = [
    REPOSITORY / tier / "weights" / precision
    for tier, recipe in RECIPES.items()
    for precision in recipe.precisions
]
CONVERSATIONS: list[list[Turn]] = [
    [("user", "Where is my card?")],
    [("system", "Be brief."), ("user", " Where is my card? ")],
    [("user", "Hello"), ("assistant", "Hi."), ("user", "Where is my card?")],
]


def rendered(template: str, turns: list[Turn]) -> str:
    def raise_exception(message: str) -> None:
        raise ValueError(message)

    environment = ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined)
    messages = [{"role": role, "content": content} for role, content in turns]
    return environment.from_string(template).render(
        messages=messages,
        add_generation_prompt=True,
        bos_token="<s>",
        eos_token="</s>",
        raise_exception=raise_exception,
    )


@pytest.mark.parametrize("turns", CONVERSATIONS)
def test_the_chat_template_writes_what_training_wrote(turns: list[Turn]) -> None:
    assert rendered(CHAT_TEMPLATE, turns) == render(turns)


def test_the_chat_template_refuses_other_roles() -> None:
    with pytest.raises(ValueError, match="role must be system, user or assistant, not tool"):
        rendered(CHAT_TEMPLATE, [("tool", "42")])


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda f: f"{f.parents[1].name}-{f.name}")
class TestFolder:
    def test_stands_alone(self, folder: Path) -> None:
        names = {path.name for path in folder.iterdir()}
        assert names == {
            "config.json",
            "generation_config.json",
            "openvino_model.bin",
            "openvino_model.xml",
            "tokenizer.json",
            "tokenizer_config.json",
        }

    def test_has_the_shape_of_the_recipe(self, folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        shape = RECIPES[folder.parents[1].name].shape
        assert config == shape.hf_config(BOS_ID, EOS_ID, PAD_ID)
        assert config["hidden_size"] == shape.heads * 64

    def test_ends_generation_with_its_end_token(self, folder: Path) -> None:
        ends = json.loads((folder / "generation_config.json").read_text())
        assert ends == {"bos_token_id": BOS_ID, "eos_token_id": EOS_ID, "pad_token_id": PAD_ID}

    def test_knows_the_special_tokens(self, folder: Path) -> None:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        assert [tokenizer.token_to_id(token) for token in SPECIAL_TOKENS] == [0, 1, 2, 3, 4, 5]
        config = json.loads((folder / "tokenizer_config.json").read_text())
        assert config["chat_template"] == CHAT_TEMPLATE
        assert (config["bos_token"], config["eos_token"]) == ("<s>", "</s>")

    def test_spells_any_text(self, folder: Path) -> None:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        for text in ("Where is my card?", "Größe: 5 € — 漢字 🙂\n\tend"):
            assert tokenizer.decode(tokenizer.encode(text).ids) == text

    def test_answers_are_of_useful_length(self, folder: Path) -> None:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        lengths = [len(tokenizer.encode(t + EOS).ids) for t in load_answers().values()]
        assert min(lengths) >= 12
        assert max(lengths) <= 40


def test_tiers_share_a_tokenizer() -> None:
    """So that the small model can draft for the large one."""
    spellings = [(folder / "tokenizer.json").read_bytes() for folder in FOLDERS]
    assert all(one == other for one, other in pairwise(spellings))


def test_the_committed_weights_stay_small() -> None:
    size = sum(path.stat().st_size for folder in FOLDERS for path in folder.iterdir())
    assert size < 25_000_000
