"""What is given up when it is due, and what later, as the loop itself was late."""

import asyncio

from services.common.lateness import Limit


async def test_what_is_due_is_given_up_and_a_little_later_if_we_are_late() -> None:
    loop = asyncio.get_running_loop()
    in_time, late = loop.create_future(), loop.create_future()
    limits = [Limit(60.0, 0.1, in_time.cancel), Limit(60.0, 0.1, late.cancel)]
    limits[0]._reached(loop.time())
    limits[1]._reached(loop.time() - 60.0)
    assert (in_time.cancelled(), late.cancelled()) == (True, False)
    assert [limit.late for limit in limits] == [False, True]
    async with asyncio.timeout(5):
        await asyncio.wait([late])
    assert late.cancelled()


async def test_what_has_come_in_time_is_not_given_up_though_we_read_it_late() -> None:
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[str] = loop.create_future()
    limit = Limit(60.0, 30.0, answer.cancel)
    loop.call_soon(answer.set_result, "answer")
    limit._reached(loop.time() - 60.0)  # the loop was held up
    assert await answer == "answer"
    limit.cancel()
    assert limit._timer.cancelled()
