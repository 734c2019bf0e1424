"""Whatever happens to the policy files, what is in force is what was last right."""

import asyncio
import shutil
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.common.config import ConfigError
from services.router.policy.calibration import Rung
from services.router.routes.files import PolicyFiles
from tests.making.policy_folder import LADDERED, PRICES
from tests.making.watching import TINY_PRICE, WITH_TINY, Scene

SURE = Rung(1.0, -0.5)

CHANGES = (
    lambda files: files.routes.write_text(LADDERED),
    lambda files: files.routes.write_text(LADDERED.replace("cancel: drain", "cancel: abort")),
    lambda files: files.routes.write_text(LADDERED.replace("cancel: drain", "cancel: never")),
    lambda files: files.routes.write_text(WITH_TINY),
    lambda files: files.routes.write_text(LADDERED[:-20]),
    lambda files: files.prices.write_text(PRICES),
    lambda files: files.prices.write_text(TINY_PRICE),
    lambda files: files.prices.unlink(missing_ok=True),
    lambda files: files.calibrate("plain", SURE),
    lambda files: files.calibrate("plain", Rung(1.0, -0.6)),
    lambda files: files.calibrate("good", SURE).write_text("{"),
    lambda files: shutil.rmtree(files.routes.parent / "calibration", ignore_errors=True),
)


@settings(max_examples=30)
@given(walk=st.lists(st.sampled_from(CHANGES), max_size=8))
def test_what_is_in_force_is_what_was_last_right(
    tmp_path_factory: pytest.TempPathFactory, walk: list[Any]
) -> None:
    scene = Scene(tmp_path_factory.mktemp("walk"))

    async def play() -> None:
        wanted, refused = scene.version, 0.0
        for change in walk:
            change(scene.files)
            try:
                wanted = PolicyFiles(scene.files.routes, scene.files.prices).load().version
                refused = 0.0
            except ConfigError:
                refused = 1.0
            await scene.look()
            assert (scene.version, scene.metric("policy_refused")) == (wanted, refused)
            tokenizers = {tier.tokenizer for tier in scene.in_force.now.tiers.values()}
            assert {str(text.folder) for text in scene.held} == tokenizers
            assert (scene.state / "versions" / wanted / "routes.yaml").exists()

    asyncio.run(play())
