"""An uplink that takes every packet, notes when it came and acknowledges it: the far end of a bench of the device."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc

from ruyicam.cloud.serve.tls import server_credentials
from ruyicam.cloud.wire import CERTIFY, METHOD, SERVICE, Ack, Certified, FeaturePacket

from .pki import Authority


class Sink:
    """Context manager; `address` is HOST:PORT, `arrivals` (time.monotonic(), packet) of every packet."""

    def __init__(
        self, authority: Authority, keep: Callable[[FeaturePacket], object] = lambda packet: packet, host: str = "localhost"
    ):
        """keep: what is noted of a packet; by default all of it. host: name or address of this machine, as devices see it."""
        self.arrivals: list[tuple[float, object]] = []
        self._keep, self._lock = keep, threading.Lock()
        server = authority.server(["localhost", "127.0.0.1", host])
        self._server = grpc.server(ThreadPoolExecutor(16))
        handlers = {
            METHOD: grpc.stream_stream_rpc_method_handler(self._stream, FeaturePacket.FromString, Ack.SerializeToString),
            CERTIFY: grpc.unary_unary_rpc_method_handler(lambda raw, context: Certified(), bytes, Certified.SerializeToString),
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        bind = "127.0.0.1" if host == "localhost" else host
        port = self._server.add_secure_port(f"{bind}:0", server_credentials(authority.ca, server.cert, server.key))
        self.address = f"{host}:{port}"

    def __enter__(self) -> Sink:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(0)

    def clear(self) -> None:
        """Forgets what has come."""
        with self._lock:
            self.arrivals = []

    def _stream(self, requests: Iterator[FeaturePacket], context: grpc.ServicerContext) -> Iterator[Ack]:
        for packet in requests:
            with self._lock:
                self.arrivals.append((time.monotonic(), self._keep(packet)))
            yield Ack(boot_id=packet.boot_id, sequence=packet.sequence)
