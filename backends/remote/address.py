"""Addresses of servers, and whether an RPC server answers there, found out without TVM.

TVM's own connection would try for a minute, or wait for ever for a server of another kind.
"""

from __future__ import annotations

import socket
import struct

from planish.ir.errors import OptionError, TargetError

# Seconds for a server to answer; it only compares a word.
ANSWER = 5.0
# The numbers that open TVM's RPC protocol (tvm.rpc.base).
MAGIC, MISMATCH = 0xFF271, 0xFF273
# Nobody names a server like that, so that a server says no and goes on listening.
_PROBE = b"client:planish asks who is there"
_CURE = "start one there: python -m planish.rpc_server --host 0.0.0.0 --port {port}"
_FREE_PORT = "0, which takes a free port and prints it"


def parse_address(text: str, what: str, example: str) -> tuple[str, int]:
    """Return (host, port) of "host:port".

    Args:
        text: As the user wrote it.
        what: Whose address it is, for the error: "tracker".
        example: A good one.

    Raises:
        OptionError: It is spelled otherwise.
    """
    host, _, port = text.rpartition(":")
    host = host.strip("[]")
    digits = port.isascii() and port.isdecimal() and len(port) < 6
    if not digits or not is_address((host, int(port))):
        raise OptionError(f"the {what} {text!r} is not host:port", cure=f"write {example}")
    return host, int(port)


def is_address(address: object) -> bool:
    """Return whether this is (host, port), of a host that sockets can look up."""
    match address:
        case (str(host), int(port)):
            return _is_host(host) and 0 < port < 65536
        case _:
            return False


def _is_host(host: str) -> bool:
    try:
        return bool(host.encode("idna"))
    except UnicodeError:  # an empty part, or one of over 63 letters
        return False


def address_text(address: tuple[str | None, int]) -> str:
    """Return "host:port", "[host]:port" for an address of IPv6."""
    host, port = address
    return f"[{host}]:{port}" if host and ":" in host else f"{host}:{port}"


def require_server(address: tuple[str, int]) -> None:
    """Return if a TVM RPC server listens at an address and is free.

    Raises:
        TargetError: Nobody answers, or something else than a server does.
    """
    where = address_text(address)
    try:
        with socket.create_connection(address, timeout=ANSWER) as connection:
            connection.sendall(struct.pack("<ii", MAGIC, len(_PROBE)) + _PROBE)
            answer = _receive(connection, 4)
    except TimeoutError as error:
        raise TargetError(
            f"no answer within {ANSWER:g} s",
            where=where,
            cure="the server may be busy with another client; else check the address",
        ) from error
    except OSError as error:
        raise TargetError(
            f"no RPC server answers: {error.strerror or error}",
            where=where,
            cure=_CURE.format(port=address[1]),
        ) from error
    if answer not in (struct.pack("<i", MAGIC), struct.pack("<i", MISMATCH)):
        raise TargetError("this is no RPC server", where=where, cure=_CURE.format(port=_FREE_PORT))


def _receive(connection: socket.socket, count: int) -> bytes:
    """Return so many bytes, fewer if the other side ends before."""
    found = b""
    while len(found) < count:
        part = connection.recv(count - len(found))
        if not part:
            break
        found += part
    return found
