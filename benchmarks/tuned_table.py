"""Write the table of choices that planish ships for a target, from tuning databases.

    python -m benchmarks.tuned_table --target x86-avx512vnni DATABASE...

The table holds what beats the rules beyond the noise, and nothing else: what the rules choose
themselves needs no row. Of databases that know the same workload the first one counts.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from planish.backends.targets import find_target
from planish.backends.tuning.database import Database, export_table
from planish.ir.errors import PlanishError
from planish.ir.files import write_beside

TABLES = Path(__file__).parent.parent / "backends" / "tables"


def main(words: list[str] | None = None) -> int:
    """Write the table; return the exit status."""
    parser = argparse.ArgumentParser(
        description="Write the table of choices that planish ships for a target."
    )
    parser.add_argument("databases", nargs="+", type=Path)
    parser.add_argument("--target", default="native")
    parser.add_argument("--folder", type=Path, default=TABLES, help="where the table goes")
    options = parser.parse_args(words)
    try:
        target = find_target(options.target)
        found = [Database(path, target, create=False) for path in options.databases]
        text = export_table(found)
        options.folder.mkdir(exist_ok=True)
        path = options.folder / f"{target.tuned_as}.json"
        write_beside(path, text.encode())
    except PlanishError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(f"{path}: {text.count(chr(10)) - 2} rows, {len(text)} bytes\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
