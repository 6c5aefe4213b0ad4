"""Products of two activations on a GPU: tiles in shared memory, four products at once by dp4a.

A block computes 64 rows x 64 columns of one product, a thread 4 x 4 of them. 64 bytes of each row
and column are brought to shared memory as words of four neighbours along the summed axis; where b
lies the other way, a thread gathers the four bytes of a word, so nothing is packed beforehand. What
lies beyond an edge is zero.

With b' = b - 128, which fits dp4a's signed operand, and d = 128 - zb,

    sum((a - za) * (b - zb)) = sum(a * b') + d * sum(a) - za * sum(b') - za * d * depth:

exact, modulo 2**32. The sums of a and of b' are dot products with ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..kernels.statements import T, kernel, let, loop
from .threads import Launch, do, get, registers

# Rows and columns of a block's tile, words of a step, and rows and columns of a thread.
SIDE, WORDS, PART = 64, 16, 4
ACROSS = SIDE // PART
THREADS = ACROSS * ACROSS
# Words from one row of a tile to the next: an odd number, so that 16 rows meet in no bank.
STRIDE = WORDS + 1
_ONES, _SIGNS = 0x01010101, 0x80808080 - (1 << 32)
SCALARS = (
    ("multiplier", "float32"),
    ("lo", "int32"),
    ("hi", "int32"),
    ("zero_point", "int32"),
    ("a_zero_point", "int32"),
    ("b_zero_point", "int32"),
)


def build(
    products: int,
    sizes: tuple[int, int, int],
    a_row: int,
    b_steps: tuple[int, int],
    y_row: int,
    words: tuple[bool, bool],
    real: bool = False,
) -> Any:
    """Return the kernel on a, b, y and a table: where each product begins in a, b and y.

    Args:
        products: How many matrices are multiplied.
        sizes: (rows, columns, depth).
        a_row: Elements from one row of a to the next; a row's values lie side by side.
        b_steps: Elements along b's summed axis and from one column to the next.
        y_row: Elements from one row of y to the next.
        words: Whether a and b are read as whole words along the summed axis.
        real: Write `float32(sum) * multiplier` instead of requantized bytes.
    """
    rows, columns, depth = sizes

    def body(a: Any, b: Any, y: Any, table: Any, **numbers: Any) -> None:
        # Only the first axis of a grid may be longer than 65535.
        grid = (products, -(-rows // SIDE), -(-columns // SIDE))
        with Launch(grid, THREADS) as (product, row_block, column_block, thread):
            a_at, b_at, y_at = (let(table[product * 3 + i]) for i in range(3))
            first_row, first_column = let(row_block * SIDE), let(column_block * SIDE)
            left, right = (T.alloc_buffer((SIDE * STRIDE,), "int32", scope="shared") for _ in "ab")
            across, down = let(T.truncmod(thread, ACROSS)), let(T.truncdiv(thread, ACROSS))
            sums = _Sums(left, right, down, across)

            def from_a(row: Any, k: Any) -> Any:
                within = first_row + row < rows
                return _word(a, a_at + (first_row + row) * a_row, 1, k, depth, within, words[0])

            def from_b(column: Any, k: Any) -> Any:
                at = b_at + (first_column + column) * b_steps[1]
                within = first_column + column < columns
                return _word(b, at, b_steps[0], k, depth, within, words[1], flip=True)

            with loop(-(-depth // (4 * WORDS))) as step:
                do("sync")
                _fill(left, thread, step, from_a, along_k=True)
                _fill(right, thread, step, from_b, along_k=b_steps[0] == 1)
                do("sync")
                with loop(WORDS) as word:
                    sums.multiply(word)
            for i in range(PART):
                for j in range(PART):
                    row = let(first_row + down + i * ACROSS)
                    column = let(first_column + across + j * ACROSS)
                    with T.If(T.And(row < rows, column < columns)), T.Then():
                        total = sums.total(i, j, depth, numbers)
                        value = _ended(total, numbers, real)
                        T.buffer_store(y, value, [y_at + row * y_row + column])

    dtypes = ["int32" if whole else "uint8" for whole in words]
    pointers = [("a", dtypes[0]), ("b", dtypes[1]), ("y", "float32" if real else "uint8")]
    return kernel([*pointers, ("table", "int32")], SCALARS, body)


class _Sums:
    """A thread's sums: of products, and of its rows and columns alone."""

    def __init__(self, left: Any, right: Any, down: Any, across: Any) -> None:
        self._sides = (left, down), (right, across)
        self._products = registers(PART * PART, "int32")
        self._rows, self._columns = registers(PART, "int32"), registers(PART, "int32")
        for buffer, size in ((self._products, PART * PART), (self._rows, PART)):
            for i in range(size):
                T.buffer_store(buffer, T.int32(0), [i])
        for i in range(PART):
            T.buffer_store(self._columns, T.int32(0), [i])

    def multiply(self, word: Any) -> None:
        """Add one word of each row times one of each column."""
        a, b = (
            [let(tile[(first + i * ACROSS) * STRIDE + word]) for i in range(PART)]
            for tile, first in self._sides
        )
        for i in range(PART):
            _add(self._rows, i, a[i], T.int32(_ONES))
            _add(self._columns, i, T.int32(_ONES), b[i])
            for j in range(PART):
                _add(self._products, i * PART + j, a[i], b[j])

    def total(self, i: int, j: int, depth: int, numbers: dict[str, Any]) -> Any:
        """Return the sum of one result; see the module's formula."""
        distance = 128 - numbers["b_zero_point"]
        row = self._rows[i] - numbers["a_zero_point"] * depth
        column = numbers["a_zero_point"] * self._columns[j]
        return let(self._products[i * PART + j] + distance * row - column)


def _add(sums: Any, index: int, bytes_: Any, signed: Any) -> None:
    T.buffer_store(sums, get("int32", "dot", sums[index], bytes_, signed), [index])


def _fill(
    tile: Any, thread: Any, step: Any, word_of: Callable[[Any, Any], Any], *, along_k: bool
) -> None:
    """Bring a step's words of a tile to shared memory, neighbours in memory by neighbours.

    Args:
        tile: Rows (or columns) of `STRIDE` words.
        thread: The thread's number.
        step: Which words.
        word_of: Returns the word of a row at a place along the summed axis.
        along_k: Whether neighbours in memory are along the summed axis.
    """
    for first in range(0, SIDE * WORDS, THREADS):
        number = let(thread + first)
        size = WORDS if along_k else SIDE
        inner, outer = let(T.truncmod(number, size)), let(T.truncdiv(number, size))
        row, word = (outer, inner) if along_k else (inner, outer)
        value = word_of(row, let((step * WORDS + word) * 4))
        T.buffer_store(tile, value, [row * STRIDE + word])


def _word(
    buffer: Any,
    at: Any,
    k_step: int,
    k: Any,
    depth: int,
    within: Any,
    whole: bool,
    flip: bool = False,
) -> Any:
    """Return four neighbours along the summed axis as an int32, zero beyond the edges.

    Args:
        buffer: Words if `whole`, else bytes.
        at: Where the row begins.
        k_step: Elements from one neighbour to the next.
        k: Which neighbours: the first one's place.
        depth: How many there are in all.
        within: Whether the row exists.
        whole: Whether four neighbours are a word of the buffer, and the last ones too.
        flip: Whether 128 is taken from each byte.
    """
    if whole:
        loaded = buffer[T.truncdiv(at + k, 4)]
        found = T.bitwise_xor(loaded, T.int32(_SIGNS)) if flip else loaded
        return T.if_then_else(T.And(within, k < depth), found, T.int32(0))
    word: Any = T.int32(0)
    for i in range(4):
        byte = T.Cast("int32", buffer[at + (k + i) * k_step])
        byte = T.bitwise_xor(byte, T.int32(128)) if flip else byte
        inside = T.And(within, k + i < depth)
        moved = T.shift_left(byte, T.int32(8 * i))
        word = T.bitwise_or(word, T.if_then_else(inside, moved, T.int32(0)))
    return word


def _ended(total: Any, numbers: dict[str, Any], real: bool) -> Any:
    """Return what is stored of a sum."""
    if real:
        return T.Cast("float32", total) * numbers["multiplier"]
    bounds = [T.Cast("float32", numbers[name]) for name in ("lo", "hi")]
    nearest = get("int32", "requantize", total, numbers["multiplier"], *bounds)
    return T.Cast("uint8", nearest + numbers["zero_point"])
