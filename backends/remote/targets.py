"""Which target a device is."""

from __future__ import annotations

from planish.ir.errors import OptionError, TargetError

from ..builder import describe_target
from ..matching import obstacle
from ..target import Target
from ..targets import find_target
from ..targets.native import best_for
from .address import address_text
from .device import Device, refuse_gpu


def target_for(address: tuple[str, int], target: str | Target) -> Target:
    """Return the target to compile for.

    Args:
        address: Of the device's server.
        target: A target or its name; "native" is the best one for the device.

    Raises:
        OptionError: No such target, a GPU's, or "native" for a device that doesn't tell what it is.
        TargetError: Nobody answers there, or the device can't run the target's code.
    """
    native = target == "native"
    wanted = None if native else find_target(target)
    if wanted is not None:
        refuse_gpu(wanted.name, wanted.machine, address_text(address))
    with Device(address) as device:
        processor = device.describe()
    if processor is None and wanted is None:
        raise OptionError(
            "the device doesn't tell what it is",
            where=address_text(address),
            cure="name its target; `planish targets` lists them",
        )
    if processor is not None and wanted is None:
        return best_for(processor.machine, processor.cpu_flags)
    assert wanted is not None
    reason = obstacle(describe_target(wanted), processor) if processor is not None else None
    if reason is not None:
        raise TargetError(
            f"the device can't run this target: {reason}", where=address_text(address)
        )
    return wanted
