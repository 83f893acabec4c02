"""What stops a command."""

from __future__ import annotations


class CommandError(Exception):
    """Something outside the library that a command cannot go on without.

    Parameters
    ----------
    message : str
        One sentence for the user.
    exit_code : int
        What the process returns.
    """

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code
