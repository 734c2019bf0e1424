"""The waiting line against a plain model of it."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from services.router.policy.line import Priority, Ticket, WaitingLine

SIZE = 4


class LineMachine(RuleBasedStateMachine):
    """Plays joins and leaves against a list of (priority, number)."""

    def __init__(self) -> None:
        super().__init__()
        self.line: WaitingLine[int] = WaitingLine(SIZE)
        self.tickets: dict[int, Ticket[int]] = {}
        self.model: list[tuple[Priority, int]] = []
        self.gone: list[Ticket[int]] = []
        self.count = 0

    @rule(priority=st.sampled_from(Priority))
    def join(self, priority: Priority) -> None:
        self.count += 1
        ticket, evicted = self.line.join(self.count, priority)
        if len(self.model) < self.line.size:
            assert ticket is not None
            assert evicted is None
        elif not self.model:
            assert (ticket, evicted) == (None, None)
            return
        else:
            # Of the lowest class the one who came last has to go, for somebody above its class.
            lowest = min(one for one, _ in self.model)
            victim = max(number for one, number in self.model if one == lowest)
            if priority <= lowest:
                assert (ticket, evicted) == (None, None)
                return
            assert evicted is not None
            assert evicted.holder == victim
            self._forget(victim)
        assert ticket is not None
        assert (ticket.holder, ticket.priority) == (self.count, priority)
        self.tickets[self.count] = ticket
        self.model.append((priority, self.count))

    @rule(size=st.integers(0, SIZE))
    def resize(self, size: int) -> None:
        self.line.size = size  # who waits already stays

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        _, number = data.draw(st.sampled_from(self.model))
        self.line.leave(self.tickets[number])
        self._forget(number)

    @precondition(lambda self: self.model)
    @rule()
    def serve_first(self) -> None:
        first = self.line.first()
        assert first is not None
        self.line.leave(first)
        self._forget(first.holder)

    @precondition(lambda self: self.gone)
    @rule(data=st.data())
    def leave_again(self, data: st.DataObject) -> None:
        self.line.leave(data.draw(st.sampled_from(self.gone)))

    @invariant()
    def length_and_first_are_those_of_the_model(self) -> None:
        assert len(self.line) == len(self.model) <= SIZE
        first = self.line.first()
        if not self.model:
            assert first is None
        else:
            best = max(self.model, key=lambda one: (one[0], -one[1]))
            assert first is not None
            assert first.holder == best[1]

    def _forget(self, number: int) -> None:
        self.model = [one for one in self.model if one[1] != number]
        self.gone.append(self.tickets.pop(number))


TestWaitingLine = LineMachine.TestCase
TestWaitingLine.settings = settings(max_examples=60, stateful_step_count=40)


def test_a_line_without_places_turns_everybody_away() -> None:
    line: WaitingLine[str] = WaitingLine(0)
    assert line.join("anybody", Priority.CRITICAL) == (None, None)
    assert len(line) == 0


def test_those_who_give_up_leave_nothing_behind() -> None:
    line: WaitingLine[int] = WaitingLine(2)
    for number in range(10_000):
        ticket, _ = line.join(number, Priority.BATCH)
        assert ticket is not None
        line.leave(ticket)
    assert (len(line), line._lanes) == (0, {})


def test_priorities_are_those_of_the_proto() -> None:
    from pennyweight.router.v1 import router_pb2

    told = {name.removeprefix("PRIORITY_CLASS_"): n for name, n in router_pb2.PriorityClass.items()}
    assert {one.name: one.value for one in Priority} == {
        name: n for name, n in told.items() if name != "UNSPECIFIED"
    }
