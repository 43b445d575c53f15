"""Errors that a user can cause: one clear line each (the rule, the value received, what to do), exit code 2."""

import errno


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
