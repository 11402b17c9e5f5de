"""What a campaign counts: tries, by what fmbench answered, and every answer that is wrong."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from user_code import Said

WRONG = "WRONG"
ERRORS = (2, 3)
"""The exit codes of errors in words: a config and a file."""


@dataclass
class Tries:
    """The tries of one kind.

    Attributes:
        kind: its name.
        promise: what must happen, in words.
        answers: how often each answer came.
        wrong: every try whose answer breaks the promise, in words.
    """

    kind: str
    promise: str
    answers: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def count(self, answer: str) -> None:
        self.answers[answer] += 1

    def fault(self, what: str) -> None:
        """Count a try that breaks the promise."""
        self.answers[WRONG] += 1
        self.wrong.append(what)

    def __str__(self) -> str:
        answers = ", ".join(f"{n} {answer}" for answer, n in sorted(self.answers.items()))
        return f"{self.kind:<12} {self.answers.total():>6}   {answers or 'none'}"


def in_words(said: Said) -> bool:
    """Whether a command failed as it should: a known exit code and one message, without a traceback."""
    return said.code in ERRORS and "fmbench: error: " in said.err and "Traceback" not in said.err


def names(said: Said, path: Path) -> bool:
    """Whether the message of a command names a file, or the folder it is in."""
    return path.name in said.err or str(path.parent) in said.err
