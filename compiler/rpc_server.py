"""`python -m planish.rpc_server`: let other machines run and measure on this one.

A device needs planish, numpy, safetensors, apache-tvm and the packages of planish[rpc]; neither
torch nor onnx. Whoever reaches the port can run any code here: use it in networks that you trust.
"""

from __future__ import annotations

import argparse
import sys

from planish.backends.cpu import machine
from planish.ir.errors import PlanishError


def main(words: list[str] | None = None) -> int:
    """Serve until Ctrl-C; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m planish.rpc_server", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="interface; 0.0.0.0 is all of them")
    parser.add_argument("--port", type=int, default=9090, help="0 takes a free one")
    options = parser.parse_args(words)
    from planish.backends.remote.server import listen, serve

    try:
        with listen(options.host, options.port) as listening:
            host, port = listening.getsockname()[:2]
            _say(f"listening on {host}:{port}, {machine()}")
            serve(listening, _say)
    except PlanishError as error:
        _say(str(error))
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def _say(text: str) -> None:
    sys.stderr.write(f"planish.rpc_server: {text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
