"""One launch of a kernel, as a plan of an artifact holds it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Where an argument points: a memory ("workspace", "parameters", "input", "output"), which input or
# output (0 otherwise), and the byte in it.
Place = tuple[str, int, int]


@dataclass(frozen=True)
class Launch:
    """One kernel launch.

    Attributes:
        kernel: The kernel's symbol.
        grid: Blocks along x, y and z.
        block: Threads of a block along x, y and z.
        shared: Bytes of dynamic shared memory.
        arguments: Where each of its pointers points.
    """

    kernel: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    shared: int
    arguments: tuple[Place, ...]

    def to_json(self) -> list[Any]:
        """Return it as plain JSON; `from_json` reads that."""
        return [self.kernel, self.grid, self.block, self.shared, self.arguments]

    @staticmethod
    def from_json(data: list[Any]) -> Launch:
        """Return what `to_json` wrote.

        Raises:
            TypeError: It is something else, as is ValueError.
        """
        kernel, grid, block, shared, arguments = data
        places = tuple((str(memory), int(index), int(at)) for memory, index, at in arguments)
        sizes = tuple(tuple(int(size) for size in sizes) for sizes in (grid, block))
        return Launch(str(kernel), *sizes, int(shared), places)  # type: ignore[arg-type]

    def check(self, sizes: Mapping[str, Sequence[int]]) -> None:
        """Check that each argument points into memory that there is.

        Args:
            sizes: Bytes of the memories by name, of each input or output, of the one otherwise.

        Raises:
            ValueError: One does not.
        """
        for memory, index, offset in self.arguments:
            known = sizes.get(memory, ())
            if not 0 <= index < len(known) or not 0 <= offset <= known[index]:
                raise ValueError(f"kernel {self.kernel} gets {memory} {index} at {offset}")
