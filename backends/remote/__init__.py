"""Devices behind TVM's RPC: what runs and measures there is uploaded from here.

A device runs a server (`python -m planish.rpc_server`, or TVM's own); this machine compiles.
"""

from .artifact import RemoteArtifact, load_remote
from .device import Device

__all__ = ["Device", "RemoteArtifact", "load_remote"]
