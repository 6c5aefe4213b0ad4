"""An emulated ARM machine for the tests: Debian's qemu and an aarch64 Python, set up in a folder.

It stands with the tests because nobody else needs it: planish compiles for ARM and runs on ARM
without it. `python -m tests.arm` (or `make test-arm`) sets it up; a test marked `arm` takes the
fixture `emulated` and runs artifacts on a processor of its choice.
"""

from .emulated import Emulated, EmulationError
from .environment import Environment, set_up

__all__ = ["Emulated", "EmulationError", "Environment", "set_up"]
