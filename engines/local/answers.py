"""The support assistant's answers: which sentence belongs to which intent."""

from collections.abc import Mapping
from pathlib import Path

import yaml

ANSWERS_FILE = Path(__file__).with_name("answers.yaml")
OUT_OF_SCOPE = "out_of_scope"  # the intent of every question a bank's assistant cannot answer
SEPARATOR = ": "  # ends the part of an answer that names the intent


def load_answers(path: Path = ANSWERS_FILE) -> dict[str, str]:
    """Sentence by intent; a ValueError says which two start alike or which names nothing."""
    answers = {str(intent): str(text) for intent, text in yaml.safe_load(path.read_text()).items()}
    owners: dict[str, str] = {}
    for intent, text in answers.items():
        name, separator, _ = text.partition(SEPARATOR)
        if not separator:
            raise ValueError(f"{path.name}: {intent}: must start with words and '{SEPARATOR}'")
        if owners.setdefault(name, intent) != intent:
            raise ValueError(f"{path.name}: {intent}: starts like {owners[name]}: '{name}'")
    return answers


def intent_names(answers: Mapping[str, str]) -> dict[str, str]:
    """Intent by the words its answer starts with."""
    return {text.partition(SEPARATOR)[0]: intent for intent, text in answers.items()}


def recognised(text: str, names: Mapping[str, str]) -> str | None:
    """The intent a generated answer names, or None where it names none."""
    return names.get(text.strip().partition(SEPARATOR)[0])
