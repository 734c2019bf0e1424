"""How a command ends: errors as a sentence with a hint, and the exit code that stands for them."""

import asyncio
from collections.abc import Coroutine
from typing import Any, NoReturn

import typer
from rich.text import Text

from pennyweight.address import is_loopback
from pennyweight.channel import KEY_VARIABLE
from pennyweight.command.show import console
from pennyweight.errors import (
    BadRequest,
    DeadlineExceeded,
    Overloaded,
    PennyweightError,
    Unauthenticated,
    Unavailable,
)

FAILED, USAGE, NOBODY, INTERRUPTED = 1, 2, 3, 130


def run(work: Coroutine[Any, Any, None], address: str) -> None:
    """Runs a command's work; what goes wrong with the service at `address` ends the command."""
    try:
        asyncio.run(work)
    except PennyweightError as error:
        explain_failure(error, address)
    except (OSError, ValueError) as error:
        end(str(error), code=USAGE)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def end(sentence: str, hint: str = "", *, code: int = FAILED) -> NoReturn:
    """Prints a sentence and a hint on standard error and ends the command."""
    screen = console(stderr=True)
    screen.print(Text(sentence, style="bold red"), soft_wrap=True)
    if hint:
        screen.print(Text(hint), soft_wrap=True)
    raise typer.Exit(code)


def explain_failure(error: PennyweightError, address: str) -> NoReturn:
    """Ends the command with what went wrong and what to do about it."""
    if isinstance(error, Unavailable) and not error.reason and not error.handle:
        hint = "Start it with `make up`." if is_loopback(address) else "Is --address right?"
        end(f"Nothing answers at {address}.", f"{hint}\n({error.message})", code=NOBODY)
    sentence = error.message
    if error.handle:
        sentence += f" (request {error.handle})"
    end(sentence, _hint(error))


def _hint(error: PennyweightError) -> str:
    if isinstance(error, BadRequest):
        rules = [f"{one.name}: {one.rule}" for one in error.violations]
        return "\n".join(rule for rule in rules if rule not in error.message)
    if isinstance(error, Unauthenticated):
        return f"Put your key into {KEY_VARIABLE}; `pennyweight key` makes one."
    if error.retry_after_seconds is not None:
        return f"Try again in {error.retry_after_seconds:g} s."
    if isinstance(error, Overloaded):
        return "Try again later."
    if isinstance(error, DeadlineExceeded):
        return "Allow more time with --timeout."
    return ""
