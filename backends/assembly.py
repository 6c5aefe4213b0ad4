"""Loops in assembly text as LLVM prints it, to check code that this machine can't run.

x86's is in AT&T's spelling, 64-bit ARM's in Arm's own.

A kernel is fast if its innermost loop holds dot products and little else, and keeps its sums in
registers. Both can be read off the text:

    loop = busiest_loop(text, "vpdpbusd")
    loop.count("vpdpbusd", "zmm"), loop.share("vpdpbusd"), loop.spills
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

_LABEL = re.compile(r"([.\w$@]+):\s*(?:(?:#|//).*)?$")
_OPERAND = re.compile(r",\s*(?![^(\[{]*[)\]}])")
_VECTOR = re.compile(r"%([xyz]mm)\d+|\b([vqds])\d+\b")
_JUMP = re.compile(r"j[a-z]+$|b(\.\w+)?$|[ct]bn?z$")
# What makes a register point to the stack for a whole function, and that register.
_FRAMES = {"movq %rsp, %rbp": "%rbp", "mov x29, sp": "x29"}


@dataclass(frozen=True)
class Instruction:
    """One instruction.

    Attributes:
        mnemonic: "vpdpbusd".
        operands: As written, on x86 the result last: ("%ymm0", "-96(%rdx)", "%ymm1"), on ARM first:
            ("v0.4s", "v1.16b", "v2.4b[1]").
        prefix: "vex" where LLVM says that it isn't the EVEX encoding: "{vex} vpdpbusd".
    """

    mnemonic: str
    operands: tuple[str, ...]
    prefix: str = ""

    @property
    def registers(self) -> frozenset[str]:
        """The kinds of vector registers that it names: "xmm", "ymm", "zmm"; "v", "q", "d", "s"."""
        return frozenset(x86 or arm for x86, arm in _VECTOR.findall(" ".join(self.operands)))

    def touches(self, bases: frozenset[str]) -> bool:
        """Whether a memory operand has one of these registers as its base."""
        places = [f"{bracket}{base}" for base in bases for bracket in "(["]
        return any(place in operand for operand in self.operands for place in places)

    def __str__(self) -> str:
        prefix = f"{{{self.prefix}}} " if self.prefix else ""
        return f"{prefix}{self.mnemonic} {', '.join(self.operands)}".rstrip()


@dataclass(frozen=True)
class Loop:
    """An innermost loop.

    Attributes:
        function: The symbol that it belongs to.
        label: Where it begins.
        instructions: From there to the jump back, in order.
        stack: Registers that point to the stack there: %rsp or sp, and %rbp or x29 where it is the
            frame's.
    """

    function: str
    label: str
    instructions: tuple[Instruction, ...]
    stack: frozenset[str] = frozenset({"%rsp"})

    def count(self, mnemonic: str, registers: str | None = None, prefix: str | None = None) -> int:
        """Return how often an instruction occurs.

        Args:
            mnemonic: Its name.
            registers: Only with vectors of this kind: "zmm".
            prefix: Only with this prefix: "vex"; "" is none.
        """
        return sum(
            each.mnemonic == mnemonic
            and (registers is None or registers in each.registers)
            and prefix in (None, each.prefix)
            for each in self.instructions
        )

    def share(self, *mnemonics: str) -> float:
        """Return which part of the loop's vector instructions these are; loads are such too."""
        vectors = [each for each in self.instructions if each.registers]
        return sum(each.mnemonic in mnemonics for each in vectors) / max(len(vectors), 1)

    @property
    def mnemonics(self) -> Counter[str]:
        """How often each instruction occurs."""
        return Counter(each.mnemonic for each in self.instructions)

    @property
    def spills(self) -> list[Instruction]:
        """Instructions that move a vector to or from the stack, or calculate with one there."""
        return [each for each in self.instructions if each.registers and each.touches(self.stack)]

    def __str__(self) -> str:
        return "\n".join([f"{self.function} {self.label}:", *(f"  {i}" for i in self.instructions)])


def inner_loops(text: str) -> list[Loop]:
    """Return the innermost loops of a text in order: code up to a jump back, without one inside."""
    return [loop for name, lines in _functions(text) for loop in _loops(name, lines)]


def busiest_loop(text: str, *mnemonics: str) -> Loop:
    """Return the innermost loop with the most of these instructions.

    Raises:
        ValueError: None has any.
    """

    def busy(loop: Loop) -> int:
        return sum(loop.mnemonics[name] for name in mnemonics)

    best = max(inner_loops(text), key=busy, default=None)
    if best is None or not busy(best):
        raise ValueError(f"no innermost loop has {' or '.join(mnemonics)}")
    return best


def _functions(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield each symbol's name and its lines, without comments and directives."""
    comment = "#" if "%r" in text else "//"
    name, lines = "", list[str]()
    for raw in text.splitlines():
        line = raw.strip()
        label = _LABEL.match(line)
        if label and not label[1].startswith(".L"):
            yield name, lines
            name, lines = label[1], []
        elif label:
            lines.append(f"{label[1]}:")
        elif line and not line.startswith((".", comment)):
            lines.append(line.partition(comment)[0].strip())
    yield name, lines


def _loops(function: str, lines: list[str]) -> list[Loop]:
    places = {line[:-1]: i for i, line in enumerate(lines) if line.endswith(":")}
    parsed = {i: _instruction(line) for i, line in enumerate(lines) if not line.endswith(":")}
    ends: dict[str, int] = {}
    for i, each in parsed.items():
        target = each.operands[-1] if _JUMP.match(each.mnemonic) and each.operands else ""
        if places.get(target, i) < i:
            ends[target] = i
    spans = {label: (places[label], end) for label, end in ends.items()}
    frames = {_FRAMES[str(each)] for each in parsed.values() if str(each) in _FRAMES}
    return [
        Loop(
            function,
            label,
            tuple(parsed[i] for i in range(first, last + 1) if i in parsed),
            frozenset({"%rsp", "sp", *frames}),
        )
        for label, (first, last) in sorted(spans.items(), key=lambda item: item[1])
        if not any(first < a and b <= last for a, b in spans.values())
    ]


def _instruction(line: str) -> Instruction:
    prefix = ""
    if line.startswith("{"):
        prefix, _, line = line[1:].partition("}")
    mnemonic, _, operands = line.strip().partition("\t")
    if not operands:
        mnemonic, _, operands = line.strip().partition(" ")
    found = tuple(part.strip() for part in _OPERAND.split(operands) if part.strip())
    return Instruction(mnemonic, found, prefix)
