"""`python -m planish.rpc_server`: let other machines run and measure on this one.

A device needs planish, numpy, safetensors and apache-tvm; neither torch nor onnx. Whoever reaches
the port can run any code here: use it in networks that you trust.
"""

from __future__ import annotations

import argparse
import signal
import sys

from planish.backends.cpu import machine
from planish.ir.errors import PlanishError


def main(words: list[str] | None = None) -> int:
    """Serve until Ctrl-C or SIGTERM; return the exit status, 128 and the signal's number."""
    parser = argparse.ArgumentParser(prog="python -m planish.rpc_server", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="interface; 0.0.0.0 is all of them")
    parser.add_argument("--port", type=int, default=9090, help="0 takes a free one")
    options = parser.parse_args(words)
    from planish.backends.remote.address import address_text
    from planish.backends.remote.server import listen, prepare, serve

    signal.signal(signal.SIGTERM, _end)
    try:
        prepare()
        with listen(options.host, options.port) as listening:
            _say(f"listening on {address_text(listening.getsockname()[:2])}, {machine()}")
            serve(listening, _say)
    except PlanishError as error:
        _say(str(error))
        return 2
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 0


def _end(number: int, _frame: object) -> None:
    """End by an exception, so that the session's process and folder go first."""
    raise SystemExit(128 + number)


def _say(text: str) -> None:
    sys.stderr.write(f"planish.rpc_server: {text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
