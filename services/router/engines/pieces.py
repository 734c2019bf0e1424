"""Tokens of an answer, turned into pieces of text as they come; state of one answer.

Here a stop text ends an answer that the engine goes on with, and here each token is counted with
the text that it completes.
"""

from collections.abc import Sequence

from services.router.policy.stop_texts import StopTexts
from services.router.ports import Detokenizer, Finish, Piece


class Pieces:
    """Makes the pieces of one answer.

    Attributes:
        finish_reason: why it ended, once it has.
    """

    __slots__ = (
        "_limit",
        "_made",
        "_owed",
        "_stops",
        "_text",
        "_watches",
        "ended",
        "finish_reason",
    )

    def __init__(self, text: Detokenizer, stops: Sequence[str], limit: int) -> None:
        """`limit` is the most tokens that the engine was asked for."""
        self._text = text
        self._stops = StopTexts(stops)
        self._watches = bool(stops)
        self._limit = limit
        self._made = 0
        self._owed = 0
        self.ended = False
        self.finish_reason = Finish.STOP

    def take(self, tokens: Sequence[int], *, final: bool) -> Piece:
        """The text that new tokens complete; what comes after the end of the answer is dropped."""
        if self.ended:
            return Piece("", 0, ended=True)
        text, stopped = "", False
        for chunk in self._chunks(tokens):
            self._made += len(chunk)
            self._owed += len(chunk)
            more, stopped = self._stops.feed(self._text.feed(chunk))
            text += more
            if stopped:
                break
        if final and not stopped:
            more, stopped = self._stops.feed(self._text.rest())
            text += more if stopped else more + self._stops.rest()
        if stopped or final:
            self.ended = True
            if not stopped and self._made >= self._limit:
                self.finish_reason = Finish.LENGTH
        if not text and not self.ended:
            return Piece("", 0, ended=False)
        owed, self._owed = self._owed, 0
        return Piece(text, owed, self.ended)

    def _chunks(self, tokens: Sequence[int]) -> Sequence[Sequence[int]]:
        """Token by token where a stop text may end the answer: those behind it are no part of it.

        How many have piled up must not decide what the answer counts.
        """
        if self._watches:
            return [[token] for token in tokens]
        return [tokens] if tokens else []
