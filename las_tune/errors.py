"""Errors that a user can cause: one clear line each (the rule, the value received, what to do), exit code 2."""

import errno
import re

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""


class UserError(ValueError):
    """A wrong input. Its text is one line: the rule, then the value, then what to do."""

    def __init__(self, rule: str, received: object = None, do: str = "") -> None:
        """Args:
        rule: what must hold, as a sentence without its full stop.
        received: the value that broke the rule; left out of the line when None.
        do: what the user can do about it, as a sentence without its full stop.
        """
        text = rule if received is None else f"{rule}, got {received}"
        super().__init__(f"{text}. {do}." if do else f"{text}.")


def disk_error(error: BaseException | None) -> str | None:
    """What a full or read-only disk said, where that is why an error was raised; else None."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            return f"{error.strerror}: {error.filename}" if error.filename else str(error.strerror)
        error = error.__cause__ or error.__context__
    return None


class DataError(UserError):
    """Pictures, masks or folders that are not as the layout demands."""


class SpaceError(UserError):
    """A search space that cannot be searched."""


def without_password(text: str) -> str:
    """Hide what stands between :// and @ in addresses, and the values of their query that are secret.

    >>> without_password("postgresql://me:secret@host/las?sslmode=require&password=again")
    'postgresql://***@host/las?sslmode=require&password=***'
    """
    hidden = re.sub(r"://[^/\s]+@", "://***@", text)
    return re.sub(r"(?i)([?&](?:password|passwd|token|secret)=)[^&\s'\"]+", r"\1***", hidden)


def said(error: BaseException, most: int = 160) -> str:
    """What an error says, in a line without passwords, at most so many letters."""
    return without_password(" ".join(str(error).split()))[:most]


def one_line(error: BaseException) -> str:
    """Its type, and what it says."""
    return f"{type(error).__name__}: {said(error, 300)}"
