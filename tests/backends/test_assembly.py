"""Reading loops off assembly, and what the targets' own inner loops are made of."""

from typing import Any

import pytest
import torch

from planish.backends import find_target
from planish.backends.assembly import Instruction, Loop, busiest_loop, inner_loops
from planish.backends.kernels.instructions import INSTRUCTIONS
from planish.backends.machine_code import machine_code
from planish.backends.stand_in import stand_in
from planish.backends.targets import BEST_FIRST
from planish.ir import Graph

PROCESSORS = [name for name in BEST_FIRST if find_target(name).capability is None]

NESTED = """
	.text
	.p2align	4
outer_and_inner:                        # @outer_and_inner
	.cfi_startproc
	pushq	%rbp
.Ltmp1:
.LBB0_1:                                # =>This Loop Header: Depth=1
	vmovdqa	-32(%rsp), %ymm9
	xorl	%eax, %eax
.LBB0_2:
	vpbroadcastd	-4(%rbp,%rax), %ymm3
	vmovdqu	(%rdx,%rax,8), %ymm0        # the weights
	{vex}	vpdpbusd	%ymm0, %ymm3, %ymm1
	{vex}	vpdpbusd	%ymm0, %ymm3, %ymm2
	addq	$32, %rax
	jne	.LBB0_2
	decq	%rcx
	jne	.LBB0_1
	je	.LBB0_9
	vzeroupper
.LBB0_9:
	retq
second:
.LBB1_1:
	vmovdqa64	%zmm16, 64(%rsp)
	vpdpbusd	(%rsi){1to16}, %zmm1, %zmm2
	vpaddd	128(%rsp), %zmm2, %zmm2
	movq	8(%rsp), %rax
	jmp	.LBB1_1
"""

FRAMED = """
f:
	pushq	%rbp
	movq	%rsp, %rbp
.LBB0_1:
	vmovdqu	-96(%rbp), %ymm0
	vmovdqu	-96(%rbx), %ymm0
	jb	.LBB0_1
	retq
"""


ARM = """
	.arch	armv8-a
direct:                                 // @direct
	.cfi_startproc
	sub	sp, sp, #64
	mov	x29, sp
	str	q8, [sp, #16]                   // 16-byte Folded Spill
.LBB0_1:                                // =>This Inner Loop Header: Depth=1
	ldr	q16, [x9], #16
	ldp	q17, q18, [x10, #-32]
	sdot	v0.4s, v17.16b, v16.4b[0]
	sdot	v1.4s, v18.16b, v16.4b[0]
	ldr	q19, [sp, #16]
	str	x3, [sp, #8]
	subs	x11, x11, #1
	b.ne	.LBB0_1
	cbz	w3, .LBB0_9
.LBB0_9:
	tbnz	w4, #0, .LBB0_9
	ret
"""


def test_loops_of_arm() -> None:
    loop, waiting = inner_loops(ARM)
    assert (loop.function, loop.label, len(loop.instructions)) == ("direct", ".LBB0_1", 8)
    assert loop.instructions[1] == Instruction("ldp", ("q17", "q18", "[x10, #-32]"))
    assert loop.instructions[2].registers == {"v"}
    assert (loop.count("sdot", "v"), loop.count("ldr", "q")) == (2, 2)
    assert [str(each) for each in loop.spills] == ["ldr q19, [sp, #16]"]
    # Two of five; the scalar that is stored is no vector.
    assert loop.share("sdot") == pytest.approx(2 / 5)
    assert waiting.label == ".LBB0_9"


def test_innermost_loops() -> None:
    inner, second = inner_loops(NESTED)
    assert (inner.function, inner.label) == ("outer_and_inner", ".LBB0_2")
    assert [each.mnemonic for each in inner.instructions] == [
        *("vpbroadcastd", "vmovdqu", "vpdpbusd", "vpdpbusd", "addq", "jne")
    ]
    assert inner.instructions[1] == Instruction("vmovdqu", ("(%rdx,%rax,8)", "%ymm0"))
    assert inner.instructions[2] == Instruction("vpdpbusd", ("%ymm0", "%ymm3", "%ymm1"), "vex")
    assert str(inner.instructions[2]) == "{vex} vpdpbusd %ymm0, %ymm3, %ymm1"
    assert (second.function, second.label, len(second.instructions)) == ("second", ".LBB1_1", 5)
    assert str(second).startswith("second .LBB1_1:\n  vmovdqa64 %zmm16, 64(%rsp)\n")


def test_counts() -> None:
    inner, second = inner_loops(NESTED)
    assert inner.count("vpdpbusd") == inner.count("vpdpbusd", "ymm") == 2
    assert (inner.count("vpdpbusd", prefix="vex"), inner.count("vpdpbusd", prefix="")) == (2, 0)
    assert inner.count("vpdpbusd", "zmm") == 0
    assert (second.count("vpdpbusd", "zmm", ""), second.count("vpdpbusd", "ymm")) == (1, 0)
    assert inner.mnemonics["addq"] == 1


def test_spills() -> None:
    inner, second = inner_loops(NESTED)
    # %rbp is no frame pointer there, and the outer loop's spill is not the inner one's.
    assert inner.spills == []
    # A scalar on the stack is none, a vector operand there is.
    assert [each.mnemonic for each in second.spills] == ["vmovdqa64", "vpaddd"]
    (framed,) = inner_loops(FRAMED)
    assert [each.operands for each in framed.spills] == [("-96(%rbp)", "%ymm0")]


def test_the_busiest_loop() -> None:
    assert busiest_loop(NESTED, "vpdpbusd").function == "outer_and_inner"
    assert busiest_loop(NESTED, "vpaddd", "movq").function == "second"
    with pytest.raises(ValueError, match="no innermost loop has vpmaddwd or vpdpwssd"):
        busiest_loop(NESTED, "vpmaddwd", "vpdpwssd")
    with pytest.raises(ValueError, match="no innermost loop has vpdpbusd"):
        busiest_loop("", "vpdpbusd")


def test_no_loop() -> None:
    assert inner_loops("f:\n\tje\t.LBB0_1\n.LBB0_1:\n\tretq\n") == []
    assert Loop("f", ".L1", ()).spills == []


def convolution(
    builder: Any, channels: int = 64, kernel: int = 3, divisor: int = 1, stride: int = 2
) -> Graph:
    """A layer with weights of up to 127 / divisor in size; 3x3 of stride 1 is for Winograd."""
    b = builder(1)
    x = b.input(torch.uint8, (1, 64, 28, 28))
    shape = (channels, 64, kernel, kernel)
    y = b.conv(x, shape, padding=(kernel // 2,) * 4, stride=(stride, stride), x_zero=3)
    for stored in b.root.buffers():
        if stored.dtype == torch.int8:
            stored.copy_(stored // divisor)
    return b.finish(y)


# Target, vector registers, and the prefix that tells VEX from EVEX where both exist.
LOOPS = [
    ("x86-64-v3", "ymm", ""),
    ("x86-avxvnni", "ymm", "vex"),
    ("x86-64-v4", "zmm", ""),
    ("x86-avx512vnni", "zmm", ""),
]


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize(("name", "registers", "prefix"), LOOPS)
def test_inner_loops_multiply_and_do_not_spill(
    builder: Any, name: str, registers: str, prefix: str, kernel: int
) -> None:
    text = machine_code(convolution(builder, kernel=kernel), name)
    dots = [word for word in DOTS if word in text]
    loop = busiest_loop(text, *dots)
    assert sum(loop.count(word, registers, prefix) for word in dots) >= 8, str(loop)
    assert loop.spills == [], str(loop)
    if find_target(name).instruction == "vpdpbusd":
        # One broadcast serves all vectors of a pixel: what is no multiplication is at most half.
        assert loop.count("vpdpbusd") >= len(loop.instructions) / 2, str(loop)


@pytest.mark.parametrize(("name", "registers", "prefix"), LOOPS)
def test_winograd_multiplies_words(builder: Any, name: str, registers: str, prefix: str) -> None:
    """LLVM makes one instruction of a product and its sum where VNNI has one."""
    word = "vpdpwssd" if find_target(name).instruction == "vpdpbusd" else "vpmaddwd"
    loop = busiest_loop(machine_code(convolution(builder, stride=1), name), word)
    assert loop.count(word, registers, prefix) >= 8, str(loop)
    assert loop.spills == [], str(loop)


@pytest.mark.parametrize("divisor", [2, 8])
@pytest.mark.parametrize(("name", "registers"), [("x86-64-v3", "ymm"), ("x86-64-v4", "zmm")])
def test_weights_that_cannot_saturate_are_multiplied_as_bytes(
    builder: Any, name: str, registers: str, divisor: int
) -> None:
    loop = busiest_loop(machine_code(convolution(builder, divisor=divisor), name), "vpmaddubsw")
    assert loop.count("vpmaddubsw", registers) >= 8, str(loop)
    assert loop.spills == [], str(loop)


@pytest.mark.parametrize("name", PROCESSORS)
def test_half_a_vector_of_channels(builder: Any, name: str) -> None:
    """Eight channels fill half of 512 bits; LLVM did not end on an earlier way to store them."""
    b = builder(2)
    layer = b.conv(b.input(torch.uint8, (1, 24, 1, 22)), (8, 24, 1, 1))
    text = machine_code(b.finish(layer), name)
    assert any(f"{word}\t" in text for word in DOTS)


# Target, its multiplications, and the least share that they have of a loop's vector instructions.
ARM_LOOPS = [
    ("armv8", ("smull", "smlal2", "sadalp"), 0.8),
    ("armv8-dotprod", ("sdot",), 0.7),
    ("armv8-i8mm", ("usmmla",), 0.7),
]


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize(("name", "words", "least"), ARM_LOOPS)
def test_inner_loops_of_arm_multiply_and_do_not_spill(
    builder: Any, name: str, words: tuple[str, ...], least: float, kernel: int
) -> None:
    # Of a few channels beside whole blocks LLVM writes short loops out, weights on the stack.
    loop = busiest_loop(machine_code(convolution(builder, 96, kernel=kernel), name), *words)
    assert loop.share(*words) >= least, str(loop)
    assert loop.spills == [], str(loop)


@pytest.mark.parametrize(("name", "word"), [("armv8-dotprod", "sdot"), ("armv8-i8mm", "sudot")])
def test_a_lane_of_activations_is_not_copied(builder: Any, name: str, word: str) -> None:
    b = builder(1)
    rows = b.conv(b.input(torch.uint8, (1, 512, 1, 1)), (64, 512, 1, 1))
    loop = busiest_loop(machine_code(b.finish(rows), name), word)
    assert all("[" in each.operands[2] for each in loop.instructions if each.mnemonic == word)
    assert loop.mnemonics["dup"] == 0


DOTS = ("vpdpbusd", "vpmaddwd", "vpmaddubsw", "smull", "smlal", "sdot", "sudot", "usdot", "usmmla")


def test_every_named_target_is_looked_at() -> None:
    assert {name for name, *_ in [*LOOPS, *ARM_LOOPS]} == set(PROCESSORS)
    assert {find_target(name).instruction for name in PROCESSORS} <= set(INSTRUCTIONS)


@pytest.mark.parametrize("name", PROCESSORS)
def test_a_stand_in_has_the_loops_without_the_instruction(builder: Any, name: str) -> None:
    target = stand_in(find_target(name))
    assert target.tuned_as == find_target(name).tuned_as
    text = machine_code(convolution(builder, 16), target)
    # LLVM may find an AVX2 instruction in the arithmetic, but nothing that AVX2 lacks.
    assert not any(word in text for word in ("vpdpbusd\t", "zmm", "{vex}"))
