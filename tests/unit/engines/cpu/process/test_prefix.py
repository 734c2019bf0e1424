"""What the pipeline would find in its KV-cache."""

from hypothesis import given
from hypothesis import strategies as st

from engines.cpu.process.prefix import PrefixEstimate

tokens = st.lists(st.integers(0, 3), min_size=1, max_size=40)


def test_a_shared_beginning_counts_whole_blocks() -> None:
    prefixes = PrefixEstimate(capacity=100, block_size=4)
    prefixes.remember(range(10))
    assert prefixes.reused_blocks([*range(8), 99, 99]) == 2
    assert prefixes.reused_blocks([99, *range(1, 8)]) == 0


def test_a_conversation_reuses_the_partly_filled_last_block() -> None:
    prefixes = PrefixEstimate(capacity=100, block_size=4)
    prefixes.remember(range(10))
    assert prefixes.reused_blocks(range(20)) == 3


def test_the_least_recently_used_block_goes_first() -> None:
    prefixes = PrefixEstimate(capacity=2, block_size=4)
    prefixes.remember([1, 1, 1, 1])
    prefixes.remember([2, 2, 2, 2])
    assert prefixes.reused_blocks([1, 1, 1, 1]) == 1
    prefixes.remember([3, 3, 3, 3])
    assert prefixes.reused_blocks([1, 1, 1, 1]) == 1
    assert prefixes.reused_blocks([2, 2, 2, 2]) == 0


def test_without_capacity_nothing_is_reused() -> None:
    prefixes = PrefixEstimate(capacity=0, block_size=4)
    prefixes.remember(range(10))
    assert prefixes.reused_blocks(range(10)) == 0


@given(st.lists(tokens, max_size=5), tokens)
def test_never_more_than_the_longest_common_beginning(
    history: list[list[int]], prompt: list[int]
) -> None:
    prefixes = PrefixEstimate(capacity=1000, block_size=4)
    common = 0
    for earlier in history:
        prefixes.remember(earlier)
        length = next(
            (i for i, (a, b) in enumerate(zip(earlier, prompt, strict=False)) if a != b),
            min(len(earlier), len(prompt)),
        )
        common = max(common, length)
    reused = prefixes.reused_blocks(prompt)
    assert common // 4 <= reused <= -(-common // 4)


@given(tokens)
def test_the_same_prompt_again_is_there_entirely(prompt: list[int]) -> None:
    prefixes = PrefixEstimate(capacity=1000, block_size=4)
    prefixes.remember(prompt)
    assert prefixes.reused_blocks(prompt) == -(-len(prompt) // 4)
