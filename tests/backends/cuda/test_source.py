"""TensorIR becomes CUDA C text whose kernels keep their parameters, threads and names."""

import os
from typing import Any

import numpy as np
import pytest

from planish.backends.cuda.emulator import emulate
from planish.backends.cuda.source import cuda_source
from planish.backends.cuda.threads import Launch, split
from planish.backends.kernels.statements import kernel, let, store


def counting(blocks: tuple[int, int, int], threads: int) -> Any:
    """A kernel that writes each thread's number, times a factor, where it belongs."""

    def body(y: Any, factor: Any, offset: Any) -> None:
        with Launch(blocks, threads) as (x, row, plane, thread):
            number = let(((plane * blocks[1] + row) * blocks[0] + x) * threads + thread)
            store(y, number, number * factor + offset, 1)

    return kernel([("y", "int32")], [("factor", "int32"), ("offset", "int32")], body)


def test_signatures_and_results() -> None:
    sizes = {"one": ((3, 2, 2), 64), "two": ((5, 1, 1), 32)}
    functions = {name: counting(*size) for name, size in sizes.items()}
    source, signatures = cuda_source(functions, "sm_75")
    library = emulate(source, "sm_75")
    for name, (blocks, threads) in sizes.items():
        signature = signatures[name]
        assert (signature.grid, signature.block) == (blocks, (threads, 1, 1))
        assert signature.parameters == (("y", "handle"), ("factor", "int32"), ("offset", "int32"))
        y = np.zeros(int(np.prod(blocks)) * threads, np.int32)
        library.launch(name, signature.grid, signature.block, signature.shared, [y, 3, -7])
        assert np.array_equal(y, np.arange(len(y)) * 3 - 7)


def test_the_text_needs_no_header_and_is_always_the_same() -> None:
    texts = {cuda_source({"k": counting((2, 1, 1), 32)}, arch)[0] for arch in ("sm_61", "sm_90")}
    (text,) = texts
    assert "#include" not in text
    assert text.startswith('extern "C" __global__ void')


@pytest.mark.parametrize("before", [None, "0"])
def test_tvm_finds_its_environment_as_it_was(
    monkeypatch: pytest.MonkeyPatch, before: str | None
) -> None:
    monkeypatch.delenv("TVM_COMPILE_FORCE_FALLBACK", raising=False)
    if before is not None:
        monkeypatch.setenv("TVM_COMPILE_FORCE_FALLBACK", before)
    cuda_source({"k": counting((1, 1, 1), 32)}, "sm_80")
    assert os.environ.get("TVM_COMPILE_FORCE_FALLBACK") == before


def test_digits_of_a_number() -> None:
    """The first digit has no limit: what counts blocks may be longer than its size says."""
    seen: list[Any] = []

    def body(y: Any) -> None:
        with Launch((1, 1, 1), 64) as (_, _, _, thread):
            seen.extend(split(thread, (1, 5, 1, 3)))
            value = seen[0] * 1000 + seen[1] * 100 + seen[2] * 10 + seen[3]
            store(y, thread, value, 1)

    source, _ = cuda_source({"k": kernel([("y", "int32")], [], body)}, "sm_80")
    y = np.zeros(64, np.int32)
    emulate(source).launch("k", (1,), (64,), 0, [y])
    number = np.arange(64)
    assert np.array_equal(y, number // 15 * 1000 + number // 3 % 5 * 100 + number % 3)
