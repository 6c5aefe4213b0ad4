"""The command line: the same words as the Python interface.

Commands live in one module each and import what is heavy when they run, so that `--help` is quick.
"""

import warnings


def main() -> None:
    """Run the command line; the console script `planish`."""
    # Libraries warn about themselves; what a user must know, planish says in its own words.
    warnings.simplefilter("ignore")
    from .app import app

    app()


__all__ = ["main"]
