"""The command line, which needs the extra ``convkernels[cli]``."""

from __future__ import annotations

import sys

from convkernels.errors import ConvkernelsError

from .errors import CommandError


def main() -> None:
    """Run the command line; what stops it is one sentence on stderr and an exit code."""
    try:
        from .app import app  # noqa: PLC0415  # may be missing its packages

        app()
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in ("", "convkernels"):
            raise
        _stop(f'the command line needs its extra: pip install "convkernels[cli]" (there is no module {missing!r})', 2)
    except ConvkernelsError as error:
        _stop(str(error), 2)
    except CommandError as error:
        _stop(str(error), error.exit_code)
    except OSError as error:  # stdout cannot be written; a closed pipe Typer and Rich take quietly
        _stop(str(error), 1)


def _stop(message: str, exit_code: int) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(exit_code)
