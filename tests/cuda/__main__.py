"""`python -m tests.cuda make|run FOLDER`: see the package."""

from __future__ import annotations

import sys
from pathlib import Path

from planish.ir.errors import PlanishError

USAGE = """\
usage: python -m tests.cuda make FOLDER [TARGET]   compile for a GPU: cuda-sm90, or TARGET
       python -m tests.cuda run FOLDER             run that on a GPU, compare with the reference
"""


def main(words: list[str]) -> int:
    """Make or run; return the exit status: 1 where a bit differs, 2 for what can't be done."""
    try:
        match words:
            case ["make", folder, *target] if len(target) < 2:
                from .making import make

                make(Path(folder), *target)
                return 0
            case ["run", folder]:
                from .running import run

                return run(Path(folder))
            case _:
                sys.stderr.write(USAGE)
                return 2
    except PlanishError as error:
        sys.stderr.write(f"tests.cuda: {error}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
