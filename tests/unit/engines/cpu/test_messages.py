"""The step as it stands in the memory that stub and engine process share."""

import pytest

from engines.cpu.messages import Step, pack_step, unpack_step


@pytest.mark.parametrize("keys", [(), (1,), (3, 1, 1 << 40)])
def test_a_step_is_read_as_it_was_noted_though_a_longer_one_stood_there(
    keys: tuple[int, ...],
) -> None:
    before = pack_step(range(9), alone=False)
    noted = pack_step(keys, alone=True)
    assert unpack_step(noted + before[len(noted) :]) == Step(keys, alone=True)


def test_what_is_cut_or_was_never_written_names_nobody() -> None:
    noted = pack_step((1, 2), alone=True)
    for length in range(len(noted)):
        assert unpack_step(noted[:length]) == Step((), alone=False)
