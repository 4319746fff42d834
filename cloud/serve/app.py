"""The server process: gRPC ingest, the reasoner's loop and the HTTP API in one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import socket
import time
from importlib.metadata import version
from pathlib import Path

import grpc
import torch
import uvicorn

from ruyicam.cloud.bundles import BundleInfo, read_bundle_info
from ruyicam.cloud.errors import Exit, RuyicamError
from ruyicam.cloud.family import Family

from .api import make_api
from .config import ServerConfig
from .ingest import MAX_MESSAGE, Ingest
from .metrics import EVENTS, LATENCY, REASONING, WINDOWS
from .offers import Offer
from .reasoner import WindowReasoner
from .store import Store
from .tls import server_credentials

log = logging.getLogger("ruyicam.serve")


def load_family(path: Path) -> Family:
    """A checkpoint folder; RuyicamError(USAGE) with one line if it is none."""
    try:
        return Family.from_pretrained(path)
    except OSError as error:
        raise RuyicamError(Exit.USAGE, f"model {path}: {error.strerror or error}") from error
    except Exception as error:
        raise RuyicamError(Exit.USAGE, f"model {path}: not a checkpoint: {str(error).splitlines()[0]}") from error


def _bind(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    try:
        family, kind, proto, _, where = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0]
        sock = socket.socket(family, kind, proto)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(where)
        sock.listen(128)
    except (OSError, OverflowError) as error:
        raise RuyicamError(Exit.ADDRESS, f"cannot listen on {address}: {getattr(error, 'strerror', error)}") from error
    return sock


class Service:
    """Everything between the two sockets."""

    def __init__(self, config: ServerConfig):
        """Loads and checks all that the configuration names. Raises RuyicamError."""
        self.config = config
        self.credentials = server_credentials(config.ca, config.cert, config.key)
        family = load_family(config.model)
        # What is offered is welcome, too.
        paths = [*config.bundles, *config.offers.values()]
        infos = [read_bundle_info(path, config.public_key) for path in paths]
        for info in infos:
            if info.features != family.config.features or info.labels != family.config.labels:
                raise RuyicamError(Exit.BUNDLE, f"bundle {info.name} does not belong to the model in {config.model}")
        self.bundles: dict[str, BundleInfo] = {info.id.hex(): info for info in infos}
        self.offers = [
            Offer(pattern, path, info.id)
            for (pattern, path), info in zip(config.offers.items(), infos[len(config.bundles) :], strict=True)
        ]
        self.store = Store(config.database)
        self.reasoner = WindowReasoner(family, self.bundles)
        self._wake = asyncio.Event()

    def read_pending(self) -> int:
        """Reads one batch of windows; returns how many there were."""
        c = self.config
        window = self.reasoner.config.window
        pending = self.store.pending_windows(list(self.bundles), window, c.stride_ticks, c.idle_s)
        if not pending:
            return 0
        begin = time.perf_counter()
        verdicts = self.reasoner.read(pending)
        REASONING.observe(time.perf_counter() - begin)
        for window, said in zip(pending, verdicts, strict=True):
            new = self.store.add_verdicts(window, said, self.reasoner.config.labels[0], c.stride_ticks)
            if said:
                WINDOWS.inc()
                LATENCY.observe(max(0.0, time.time() - window.seen_at))
            EVENTS.inc(int(new))
        return len(pending)

    async def _reason(self) -> None:
        while True:
            try:
                if await asyncio.to_thread(self.read_pending):
                    continue
            except Exception:
                log.exception("reading windows failed; trying again")
                await asyncio.sleep(1)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), 0.5)
            self._wake.clear()

    async def run(self) -> None:
        """Serves until SIGTERM or SIGINT; prints one line with both addresses when ready."""
        http = _bind(self.config.http)
        # SO_REUSEPORT would let a second server take the port silently.
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", MAX_MESSAGE)])
        server.add_generic_rpc_handlers((Ingest(self.store, self.bundles, self._wake.set, self.offers).handler(),))
        host = self.config.grpc.rpartition(":")[0]
        # gRPC would say why in a log of its own, so the address is tried first.
        _bind(self.config.grpc).close()
        try:
            port = server.add_secure_port(self.config.grpc, self.credentials)
        except RuntimeError as error:
            raise RuyicamError(Exit.ADDRESS, f"cannot listen on {self.config.grpc}: address in use or not ours") from error
        await server.start()
        web = uvicorn.Server(uvicorn.Config(make_api(self.store, version("ruyicam")), log_level="warning", access_log=False))
        # The service handles signals for both servers.
        web.capture_signals = contextlib.nullcontext
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        tasks = [asyncio.create_task(self._reason()), asyncio.create_task(web.serve(sockets=[http]))]
        print(
            f"ruyicam serve: ready grpc={host}:{port} http={http.getsockname()[0]}:{http.getsockname()[1]}",
            flush=True,
        )
        await stop.wait()
        web.should_exit = True
        await server.stop(grace=2)
        tasks[0].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {"time": self.formatTime(record), "level": record.levelname.lower(), "message": record.getMessage()}
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line)


def serve(config: ServerConfig) -> None:
    """Runs the service until it is told to stop. Raises RuyicamError for what cannot be loaded or bound."""
    handler = logging.StreamHandler()
    handler.setFormatter(_JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    torch.set_num_threads(1)

    async def main() -> None:
        await Service(config).run()

    asyncio.run(main())
