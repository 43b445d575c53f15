"""Errors that a user can cause: one clear line each (the rule, the value received, what to do), exit code 2."""

import errno
import re

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""


class UserError(ValueError):
    """A wrong input. The message is one line: `<what is wrong, with the value>. <What to do.>`"""

    def __init__(self, problem: str, received: object = None, do: str = "", *, remedy: str = "") -> None:
        """Compose the line.

        Args:
            problem: what is wrong, with the value, as a sentence without its full stop.
            received: deprecated, being removed: put the value into `problem`.
            do: deprecated, being removed: use `remedy`.
            remedy: what to do about it, as a sentence or two without the last full stop.
        """
        text = problem if received is None else f"{problem}, got {received}"
        super().__init__(" ".join(f"{sentence}." for sentence in (text, do or remedy) if sentence))


def require(holds: object, problem: str, *, remedy: str = "", error: type[UserError] = UserError) -> None:
    """Raise a UserError, or the given kind of it, unless a condition holds."""
    if not holds:
        raise error(problem, remedy=remedy)


def disk_error(error: BaseException | None) -> str | None:
    """What a full or read-only disk said, where that is why an error was raised; else None."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            return f"{error.strerror}: {error.filename}" if error.filename else str(error.strerror)
        error = error.__cause__ or error.__context__
    return None


class DataError(UserError):
    """Images, masks or folders that are not as the layout demands."""


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
