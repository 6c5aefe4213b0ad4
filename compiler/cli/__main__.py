"""`python -m planish.cli`."""

from . import main

main()
