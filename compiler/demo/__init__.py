"""The demo: a trained residual network, compressed, compiled, held against its promises."""

from .run import Settings, run_demo

__all__ = ["Settings", "run_demo"]
