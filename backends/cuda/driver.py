"""NVIDIA's driver by ctypes: what loading and launching kernels takes, and nothing more.

The driver's library comes with the driver itself, so a machine that runs an artifact installs
nothing: neither CUDA's toolkit nor torch nor TVM. The process's primary context is used, which
other libraries of CUDA share. Which GPU is device 0, the variable CUDA_VISIBLE_DEVICES says.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from numpy.typing import NDArray

from planish.ir.errors import ArtifactError

_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*
_MULTIPROCESSORS, _CLOCK, _MEMORY_CLOCK, _BUS_WIDTH = 16, 13, 36, 37
_REGISTERS = 4  # CU_FUNC_ATTRIBUTE_NUM_REGS
_MOST_SHARED = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING
_FREE_SHARED = 48 << 10  # a block may have this much without asking


class DriverError(ArtifactError):
    """NVIDIA's driver fails on this machine: no GPU, no memory left on it, or too old a driver."""


@dataclass(frozen=True)
class Call:
    """One launch with its addresses.

    Attributes:
        kernel: The kernel's symbol.
        grid: Blocks along x, y and z.
        block: Threads of a block along x, y and z.
        shared: Bytes of dynamic shared memory.
        addresses: Of each argument.
    """

    kernel: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    shared: int
    addresses: tuple[int, ...]


def _open() -> Any:
    """Load the driver's library; OSError where there is none."""
    return ctypes.CDLL("libcuda.so.1")


@cache
def compute_capability() -> tuple[int, int] | None:
    """Return the compute capability of this machine's GPU, or None where there is none."""
    try:
        return _capability(_open())
    except (OSError, DriverError):
        return None


def absence() -> str:
    """Return why `compute_capability` is None, as a clause about this machine."""
    try:
        _capability(_open())
    except DriverError as error:
        return error.what
    except OSError:
        pass
    return "this machine has none that its driver knows"


def _capability(cuda: Any) -> tuple[int, int] | None:
    count, device = ctypes.c_int(), ctypes.c_int()
    if _attempt(cuda, "cuInit", 0) or _attempt(cuda, "cuDeviceGetCount", ctypes.byref(count)):
        return None
    if not count.value or _attempt(cuda, "cuDeviceGet", ctypes.byref(device), 0):
        return None
    found = ctypes.c_int(), ctypes.c_int()
    for number, attribute in zip(found, (_MAJOR, _MINOR), strict=True):
        if _attempt(cuda, "cuDeviceGetAttribute", ctypes.byref(number), attribute, device):
            return None
    return found[0].value, found[1].value


def _attempt(cuda: Any, name: str, *arguments: Any) -> int:
    """Call a function of the driver's library; return its status, 0 for success.

    Raises:
        DriverError: The library has no such function.
    """
    try:
        function = getattr(cuda, name)
    except AttributeError as error:
        raise DriverError(
            f"this machine's NVIDIA driver is too old: it has no {name}, CUDA 12 is needed",
            cure="install a driver of CUDA 12 or later",
        ) from error
    return function(*arguments)


@dataclass(frozen=True)
class Facts:
    """What a GPU is.

    Attributes:
        name: As its driver says it.
        capability: Its compute capability.
        multiprocessors: How many it has.
        clock: Their highest, in Hz.
        bandwidth: Of its memory at its highest clock, in bytes a second.
    """

    name: str
    capability: tuple[int, int]
    multiprocessors: int
    clock: float
    bandwidth: float


def device_facts() -> Facts:
    """Return what this machine's GPU is.

    Raises:
        DriverError: There is none.
    """
    driver, name = _driver(), ctypes.create_string_buffer(256)
    driver.call("cuDeviceGetName", name, 256, driver.device)
    numbers: list[int] = []
    for attribute in (_MAJOR, _MINOR, _MULTIPROCESSORS, _CLOCK, _MEMORY_CLOCK, _BUS_WIDTH):
        number = ctypes.c_int()
        driver.call("cuDeviceGetAttribute", ctypes.byref(number), attribute, driver.device)
        numbers.append(number.value)
    major, minor, multiprocessors, clock, memory_clock, bits = numbers
    # Both edges of the memory's clock carry data; clocks are in kHz.
    bandwidth = 2e3 * memory_clock * bits / 8
    return Facts(name.value.decode(), (major, minor), multiprocessors, 1e3 * clock, bandwidth)


class _Driver:
    """The driver's library with the primary context of device 0."""

    def __init__(self) -> None:
        if compute_capability() is None:
            raise DriverError("there is no NVIDIA GPU here, or no driver for it")
        self._cuda = _open()
        self.device, self._context = ctypes.c_int(), ctypes.c_void_p()
        self.call("cuDeviceGet", ctypes.byref(self.device), 0)
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), self.device)

    def enter(self) -> None:
        """Make the context the calling thread's own."""
        self.call("cuCtxSetCurrent", self._context)

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function of the driver.

        Raises:
            DriverError: It fails; the driver's own name of the reason is in it.
        """
        status = self.attempt(name, *arguments)
        if status:
            text = ctypes.c_char_p()
            self.attempt("cuGetErrorName", status, ctypes.byref(text))
            reason = (text.value or b"").decode() or f"status {status}"
            raise DriverError(
                f"NVIDIA's driver failed in {name}: {reason}",
                cure="see what else uses the GPU (nvidia-smi), or load a target for a processor",
            )

    def attempt(self, name: str, *arguments: Any) -> int:
        """Call a function of the driver; return its status, 0 for success.

        Raises:
            DriverError: The driver has no such function.
        """
        return _attempt(self._cuda, name, *arguments)

    def release_with(self, owner: object, name: str, handle: Any) -> None:
        """Give something back when its owner goes; what the process still has at its end, ends."""

        def release() -> None:
            self.attempt("cuCtxSetCurrent", self._context)
            self.attempt(name, handle)

        weakref.finalize(owner, release).atexit = False


@cache
def _driver() -> _Driver:
    return _Driver()


class Memory:
    """Memory of the GPU, given back when nobody needs it any more.

    Attributes:
        address: Where it begins.
    """

    def __init__(self, nbytes: int) -> None:
        """Take memory.

        Raises:
            DriverError: There is not so much.
        """
        driver, address = _driver(), ctypes.c_uint64()
        driver.enter()
        driver.call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(nbytes))
        self.address = address.value
        driver.release_with(self, "cuMemFree_v2", address)


class Device:
    """A GPU with one cubin loaded."""

    def __init__(self, content: bytes) -> None:
        """Load a cubin.

        Raises:
            DriverError: There is no GPU, or it can't run this cubin.
        """
        self._driver = _driver()
        self._driver.enter()
        self._module = ctypes.c_void_p()
        self._driver.call("cuModuleLoadData", ctypes.byref(self._module), content)
        self._driver.release_with(self, "cuModuleUnload", self._module)

    def allocate(self, nbytes: int) -> Memory:
        """Return memory of at least this size, holding anything."""
        return Memory(nbytes)

    def queue(self) -> Queue:
        """Return a queue of its own, which waits for no other."""
        return Queue(self._driver, self._module)


class Queue:
    """Work for the GPU, done in the order in which it is given (a stream of CUDA)."""

    def __init__(self, driver: _Driver, module: ctypes.c_void_p) -> None:
        """Make a queue for the kernels of a module."""
        driver.enter()
        self._driver, self._module, self._stream = driver, module, ctypes.c_void_p()
        driver.call("cuStreamCreate", ctypes.byref(self._stream), _NON_BLOCKING)
        driver.release_with(self, "cuStreamDestroy_v2", self._stream)

    def upload(self, memory: Memory, array: NDArray[Any]) -> None:
        """Copy a contiguous array to the GPU; it must stay as it is until `wait` returns."""
        self._copy("cuMemcpyHtoDAsync_v2", ctypes.c_uint64(memory.address), _pointer(array), array)

    def download(self, memory: Memory, array: NDArray[Any]) -> None:
        """Copy from the GPU to a contiguous array, which `wait` finds filled."""
        self._copy("cuMemcpyDtoHAsync_v2", _pointer(array), ctypes.c_uint64(memory.address), array)

    def _copy(self, name: str, to: Any, source: Any, array: NDArray[Any]) -> None:
        self._driver.enter()
        if array.nbytes:
            self._driver.call(name, to, source, ctypes.c_size_t(array.nbytes), self._stream)

    def wait(self) -> None:
        """Wait until all is done that was given."""
        self._driver.enter()
        self._driver.call("cuStreamSynchronize", self._stream)

    def prepare(self, calls: Sequence[Call]) -> Callable[[], None]:
        """Return a function that gives these calls to the queue, in order.

        They are recorded once as a graph of CUDA, which the driver launches as a whole.
        """
        driver, stream = self._driver, self._stream
        driver.enter()
        functions = {call.kernel: self._function(call) for call in calls}
        graph, executable = ctypes.c_void_p(), ctypes.c_void_p()
        driver.call("cuStreamBeginCapture_v2", stream, _THREAD_LOCAL)
        for call in calls:
            self._launch(functions[call.kernel], call)
        driver.call("cuStreamEndCapture", stream, ctypes.byref(graph))
        no_flags = ctypes.c_ulonglong(0)
        driver.call("cuGraphInstantiateWithFlags", ctypes.byref(executable), graph, no_flags)
        driver.call("cuGraphDestroy", graph)

        def run() -> None:
            driver.enter()
            driver.call("cuGraphLaunch", executable, stream)

        driver.release_with(run, "cuGraphExecDestroy", executable)
        return run

    def _function(self, call: Call) -> ctypes.c_void_p:
        function = ctypes.c_void_p()
        name = call.kernel.encode()
        self._driver.call("cuModuleGetFunction", ctypes.byref(function), self._module, name)
        # The driver may load a kernel's code when it is first needed, which must not be while
        # launches are recorded: asking for a fact about it is need enough.
        registers = ctypes.c_int()
        self._driver.call("cuFuncGetAttribute", ctypes.byref(registers), _REGISTERS, function)
        if call.shared > _FREE_SHARED:
            self._driver.call("cuFuncSetAttribute", function, _MOST_SHARED, call.shared)
        return function

    def _launch(self, function: ctypes.c_void_p, call: Call) -> None:
        values = [ctypes.c_uint64(address) for address in call.addresses]
        pointers = [ctypes.cast(ctypes.byref(value), ctypes.c_void_p) for value in values]
        arguments = (ctypes.c_void_p * len(pointers))(*pointers)
        sizes = (*call.grid, *call.block, call.shared)
        self._driver.call("cuLaunchKernel", function, *sizes, self._stream, arguments, None)


def _pointer(array: NDArray[Any]) -> ctypes.c_void_p:
    assert array.flags.c_contiguous, "copies are of whole arrays"
    return ctypes.c_void_p(array.ctypes.data)
