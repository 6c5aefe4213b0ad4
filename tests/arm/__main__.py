"""`python -m tests.arm`: set the emulated ARM environment up."""

import sys
import time
from pathlib import Path

from planish.cli.console import fail, say
from planish.ir.errors import PlanishError

from .environment import default_folder, require_compiler, set_up


def main(words: list[str]) -> int:
    """Set it up in the folder that is named, or in the default one; return the exit status."""
    folder = Path(words[0]).absolute() if words else default_folder()
    begun = time.monotonic()

    def tell(text: str) -> None:
        say(f"arm: {text} ({time.monotonic() - begun:.0f} s)")

    try:
        require_compiler()
        set_up(folder, tell)
    except PlanishError as error:
        fail(str(error))
        return 2
    tell(f"ready in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
