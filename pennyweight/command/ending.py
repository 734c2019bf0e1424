"""How a command ends: errors as a sentence with a hint, and the exit code that stands for them."""

import asyncio
from collections.abc import Coroutine
from typing import Any, NoReturn

import typer

from pennyweight.channel import KEY_VARIABLE
from pennyweight.command import diagnosis
from pennyweight.command.options import Target
from pennyweight.command.show import console, plain, say
from pennyweight.errors import (
    BadRequest,
    DeadlineExceeded,
    Overloaded,
    PennyweightError,
    Unauthenticated,
    Unavailable,
)

FAILED, USAGE, NOBODY, INTERRUPTED = 1, 2, 3, 130


def run(work: Coroutine[Any, Any, None], target: Target, *, service: str = "router") -> None:
    """Runs a command's work; what goes wrong with the service at the target ends the command."""
    try:
        asyncio.run(work)
    except PennyweightError as error:
        explain_failure(error, target, service)
    except UnicodeEncodeError:
        end("What was given is not UTF-8 text.", code=USAGE)
    except BrokenPipeError:
        raise  # nobody reads the output any more
    except (OSError, ValueError) as error:
        end(str(error), code=USAGE)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def end(sentence: str, hint: str = "", *, code: int = FAILED) -> NoReturn:
    """Prints a sentence and a hint on standard error and ends the command."""
    screen = console(stderr=True)
    say(screen, plain(sentence), "bold red")
    if hint:
        say(screen, plain(hint))
    raise typer.Exit(code)


def explain_failure(error: PennyweightError, target: Target, service: str) -> NoReturn:
    """Ends the command with what went wrong and what to do about it."""
    if isinstance(error, Unavailable) and not error.reason and not error.handle:
        found = diagnosis.of_connection(target, error.message)
        end(found.sentence, found.hint, code=FAILED if found.answers else NOBODY)
    if error.reason == "CALL_UNKNOWN":
        other = diagnosis.of_service(target, service)
        if other is not None:
            end(other.sentence, other.hint)
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
    return "\n".join(getattr(error, "__notes__", ()))
