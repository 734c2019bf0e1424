"""Names of schemas that would go on as a grammar: refused before any compiler reads them."""

import json

import pytest

from engines.cpu.process.names import refuse_names
from engines.cpu.request import InvalidRequestError

NAMES = ['a" [0-9]{3,3} "b', "a\\b", "a\nb", "x" * 257, 'a" ' + "(" * 200]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "schema",
    [
        '{"properties": {NAME: {}}}',
        '{"required": [NAME]}',
        '{"anyOf": [{"items": {"properties": {"a": {"properties": {NAME: {}}}}}}]}',
        '{"$defs": {NAME: {}}}',
        '{"dependentRequired": {NAME: []}}',
        '{"patternProperties": {NAME: {}}}',
    ],
)
def test_a_name_that_is_no_plain_text_is_refused(schema: str, name: str) -> None:
    with pytest.raises(InvalidRequestError, match="a name has at most 256 characters"):
        refuse_names(schema.replace("NAME", json.dumps(name)))


@pytest.mark.parametrize(
    "schema",
    ['{"properties": {"a é/~$": {"enum": ["x\\"y"]}}, "required": ["a é/~$"]}', "{", "true"],
)
def test_others_are_left_to_the_compiler(schema: str) -> None:
    refuse_names(schema)
