"""Errors that a user can cause. The command line prints their message in one line and exits with code 2."""

import errno
import re

INTERRUPTED = 130
"""Exit code after Ctrl-C, as in shells."""


class UserError(ValueError):
    """A wrong input. The message is one line: `<What is wrong, with the value>. <What to do>.`"""

    def __init__(self, problem: str, *, remedy: str = "") -> None:
        """Compose the message.

        Args:
            problem: what is wrong, with the value, as a sentence without its full stop.
            remedy: what to do about it, as one or two sentences without the last full stop.
        """
        super().__init__(" ".join(f"{sentence.removesuffix('.')}." for sentence in (problem, remedy) if sentence))


class DataError(UserError):
    """Images, masks or folders that do not follow the layout."""


class SpaceError(UserError):
    """A search space that is not valid."""


def require(holds: object, problem: str, *, remedy: str = "", error: type[UserError] = UserError) -> None:
    """Raise UserError, or a subclass of it, unless a condition holds."""
    if not holds:
        raise error(problem, remedy=remedy)


def disk_error(error: BaseException | None) -> str | None:
    """Return the message of a full or read-only disk, if that caused the error; else None."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            return f"{error.strerror}: {error.filename}" if error.filename else str(error.strerror)
        error = error.__cause__ or error.__context__
    return None


def without_password(text: str) -> str:
    """Replace the credentials in URIs, and the values of secret query parameters, by asterisks.

    >>> without_password("postgresql://me:secret@host/las?sslmode=require&password=again")
    'postgresql://***@host/las?sslmode=require&password=***'
    """
    hidden = re.sub(r"://[^/\s]+@", "://***@", text)
    return re.sub(r"(?i)([?&](?:password|passwd|token|secret)=)[^&\s'\"]+", r"\1***", hidden)


def short_message(error: BaseException, max_length: int = 160) -> str:
    """Return the message of an error in one line, without passwords and cut at `max_length` characters."""
    return without_password(" ".join(str(error).split()))[:max_length]


def type_and_message(error: BaseException) -> str:
    """Return the type and the message of an error in one line."""
    return f"{type(error).__name__}: {short_message(error, 300)}"
