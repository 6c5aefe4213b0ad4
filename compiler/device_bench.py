"""Models measured on a device, by the device's own clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from planish.backends.remote import Device, RemoteArtifact
from planish.backends.remote.targets import target_for
from planish.ir.errors import OptionError

from .compilation import compile
from .latency import Timing
from .side_by_side import OWN, Result, example_inputs, silent

if TYPE_CHECKING:
    from planish.backends.target import Target
    from planish.ir.graph import Graph

    from .side_by_side import Settings


@dataclass(frozen=True)
class DeviceSubject:
    """A model to measure on a device.

    Attributes:
        name: As it is printed.
        graph: Of any level; None where there is an artifact.
        content: An artifact's bytes.
    """

    name: str
    graph: Graph | None = None
    content: bytes | None = None


def measure_on_device(
    subjects: Sequence[DeviceSubject],
    address: tuple[str, int],
    settings: Settings,
    threads: Sequence[int] = (),
    progress: Callable[[str], object] = silent,
) -> list[Result]:
    """Measure models on a device, one after the other.

    Args:
        subjects: What to measure.
        address: Host and port of the device's RPC server.
        settings: The batch, the number of calls, choices of kernels, and the target: what models
            are compiled for and which one of an artifact's runs; "native" is the device's best.
        threads: Each number is measured; by default 1, and of an artifact its own.
        progress: Is told what is being done.

    Raises:
        ArtifactError: An artifact that can't be read, or that the device can't run.
        OptionError: An artifact for another number of threads, more threads than the device has,
            or a target that has to be named.
        TargetError: Nobody answers there, or the session broke.
    """
    graphs = any(subject.content is None for subject in subjects)
    target = target_for(address, settings.target) if graphs else None
    results: list[Result] = []
    for count in threads or [None]:
        with Device(address) as device:  # a session's pool of threads can't grow
            _check_threads(device, count)
            for subject in subjects:
                progress(f"{subject.name}: measuring on {device.address}")
                results.append(_measure(subject, device, settings, target, count))
    return results


def _check_threads(device: Device, threads: int | None) -> None:
    """Raise OptionError if a device tells that it runs fewer threads at once."""
    processor = device.describe()
    most = None if processor is None else processor.count
    if threads is not None and most is not None and threads > most:
        raise OptionError(
            f"the device runs {most} thread(s) at once, not {threads}",
            where=device.address,
            cure=f"give --threads from 1 to {most}",
        )


def _measure(
    subject: DeviceSubject,
    device: Device,
    settings: Settings,
    target: Target | None,
    threads: int | None,
) -> Result:
    """Measure a model; `target` is what graphs are compiled for."""
    content, start = subject.content, time.perf_counter()
    facts: dict[str, Any] = {}
    wanted = settings.target
    if content is None:
        assert target is not None, "a target is chosen for graphs"
        content, wanted = _compile(subject, settings, target, threads or 1), target.name
        facts["compile_s"] = time.perf_counter() - start
        start = time.perf_counter()
    artifact = RemoteArtifact(content, subject.name, device, wanted)
    facts["load_s"] = time.perf_counter() - start
    own = artifact.manifest["threads"]
    if threads not in (None, own):
        raise OptionError(
            f"the artifact was compiled for {own} thread(s), not {threads}",
            where=subject.name,
            cure="give the graph or the ONNX file that it was compiled from",
        )
    timing = artifact.bench(*example_inputs(artifact.inputs), calls=settings.runs)
    facts = {
        "target": artifact.target,
        "bytes": artifact.nbytes,
        "memory": asdict(artifact.memory),
        "int8_mac_coverage": artifact.coverage["int8_mac_coverage"],
        **facts,
    }
    times = Timing(timing.median, timing.minimum, timing.calls)
    return Result(subject.name, OWN, own, times, facts=facts)


def _compile(subject: DeviceSubject, settings: Settings, target: Target, threads: int) -> bytes:
    assert subject.graph is not None, "a subject has a graph or an artifact"
    return compile(
        subject.graph,
        target,
        batch=settings.batch,
        threads=threads,
        database=settings.database,
        cross_compiler=settings.cross_compiler,
        sysroot=settings.sysroot,
    ).content
