"""What a program without Python needs of an artifact: code, packed parameters, and how to call it.

    library.so        the target's machine code
    parameters.bin    the packed parameter memory
    interface.txt     entry, sizes, inputs and outputs

`interface.txt` has one fact a line, names last, so that a few lines of any language read it:

    entry planish_main
    threads 1
    needs_runtime 0                       1: library.so calls TVM's thread pool or its allocator
    machine x86_64
    cpu_flags avx avx2 bmi1               what /proc/cpuinfo or getauxval must have
    parameters 25024
    workspace 98368
    input float32 4 1 3 32 32 image       dtype, number of axes, sizes, name
    output float32 2 1 10 logits
    quantized uint8 0.05 128              of the tensor above: dtype, scale, zero point
    checksum 3610a686                     CRC-32 of all lines before, in hexadecimal

The entry takes inputs, outputs, parameters and workspace as DLTensors, in this order, and returns
0. Parameters and workspace begin on a multiple of 64 bytes. `examples/deploy_cpp` does all of it.
"""

from __future__ import annotations

import os
import zlib
from typing import Any

from planish.ir.errors import OptionError
from planish.ir.files import write_together

from .container import Container, read_file
from .manifest import damage_named
from .packing import pack_all

LIBRARY, PARAMETERS, INTERFACE = "library.so", "parameters.bin", "interface.txt"


def unpack(
    path: str | os.PathLike[str], folder: str | os.PathLike[str], target: str | None = None
) -> str:
    """Write what a program without Python needs of an artifact; return the target's name.

    Args:
        path: The artifact.
        folder: Where the three files go; made if it is missing.
        target: Which of its targets; needed where it has several. This machine need not run it.

    Raises:
        ArtifactError: Unreadable, foreign or damaged.
        OptionError: It has no such target, or several and none is named; or no folder is named.
        PlanishError: The folder can't be written.
    """
    if not os.fspath(folder):  # for the system that is the current folder
        raise OptionError("the folder to write to is empty", cure="name one; . is the current one")
    content = read_file(path)
    files, name = deployment_files(Container(content, os.fspath(path)), target)
    write_together(folder, files)
    return name


def deployment_files(container: Container, target: str | None) -> tuple[dict[str, bytes], str]:
    """Return the files by name, and the target's name.

    Raises:
        ArtifactError: The artifact is damaged.
        OptionError: It has no such target, or several and none is named.
    """
    name = _only_target(container, target)
    plan = container.plan(name)
    if "launches" in plan:
        raise OptionError(
            f"target {name!r} is a GPU's, whose code has no entry that a program could call",
            where=container.where,
            cure="choose a target for a processor",
        )
    with damage_named(container.where):
        parameters = pack_all(plan["recipes"], container.tensors(), plan["parameter_bytes"])
        (entry,) = [e for e in container.manifest["targets"] if e["name"] == name]
        files = {
            LIBRARY: container.library(name),
            PARAMETERS: parameters.tobytes(),
            INTERFACE: _interface(container.manifest, entry, plan).encode(),
        }
    return files, name


def _only_target(container: Container, target: str | None) -> str:
    names = [entry["name"] for entry in container.manifest["targets"]]
    if target is None and len(names) > 1:
        raise OptionError(
            "the artifact has code for several targets",
            where=container.where,
            cure=f"name one: {', '.join(names)}",
        )
    if target is not None and target not in names:
        raise OptionError(
            f"the artifact has no code for target {target!r}",
            where=container.where,
            cure=f"it has {', '.join(names)}",
        )
    return target or names[0]


def _interface(manifest: dict[str, Any], target: dict[str, Any], plan: dict[str, Any]) -> str:
    """Return the text of `interface.txt`."""
    lines = [
        f"entry {plan['entry']}",
        f"threads {manifest['threads']}",
        f"needs_runtime {int(plan['needs_runtime'])}",
        f"machine {target['machine']}",
        " ".join(["cpu_flags", *target["cpu_flags"]]),
        f"parameters {plan['parameter_bytes']}",
        f"workspace {plan['workspace_bytes']}",
    ]
    for kind in ("input", "output"):
        for entry in manifest[f"{kind}s"]:
            lines += _tensor(kind, entry)
    text = "\n".join(lines) + "\n"
    return f"{text}checksum {zlib.crc32(text.encode()):08x}\n"


def _tensor(kind: str, entry: dict[str, Any]) -> list[str]:
    shape = entry["shape"]
    words = [kind, entry["dtype"], len(shape), *shape, *entry["name"].split()]
    lines = [" ".join(map(str, words))]
    if entry.get("scale") is not None:
        lines.append(
            f"quantized {entry['quantized_dtype']} {entry['scale']!r} {entry['zero_point']}"
        )
    return lines
