"""The server process: gRPC ingest, the reasoner's loop and the HTTP API in one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import logging
import signal
import socket
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version

import grpc
import uvicorn

from ruyicam.cloud.bundles import BundleInfo, read_bundle_info
from ruyicam.cloud.errors import Exit, RuyicamError
from ruyicam.cloud.family.config import FamilyConfig

from .accounts import Accounts
from .alerting.engine import Alerting
from .care import EventCare
from .config import ServerConfig
from .enrol import Enrolment, Issuer
from .ingest import MAX_MESSAGE, Ingest
from .live import Live, readings_of
from .load import LoadPolicy
from .metrics import EVENTS, HOLDING, LAG, LATENCY, REASONING, WINDOWS
from .offers import Offer
from .packets import GroupWriter, PacketLog
from .passes import PASS, WorkerPasses, local_passes
from .reasoner import WindowReasoner
from .replay import Replay
from .retention import Retention
from .scale.bell import Bell
from .scale.cluster import ray_passes
from .store import Store
from .subscribers import Subscribers
from .tls import revoked_serials, server_credentials
from .web.access import Backend
from .web.api import make_api
from .windows import PendingWindow, Seen, WindowQueue

log = logging.getLogger("ruyicam.serve")
# <malloc.h>
_M_ARENA_MAX = -8


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

    def __init__(self, config: ServerConfig, reread: Callable[[], ServerConfig] | None = None):
        """Loads and checks all that the configuration names; `reread` gives it anew on SIGHUP. Raises RuyicamError."""
        self.config, self.reread = config, reread
        self.credentials = server_credentials(config.ca, config.cert, config.key)
        self.revoked: set[int] = set(revoked_serials(config.crl, config.ca))
        self.bundles: dict[str, BundleInfo] = {}
        self.offers: list[Offer] = []
        self._family_config = FamilyConfig.of_checkpoint(config.model)
        self._load_bundles(config)
        self.store = Store(config.database)
        self.enrolment = None
        if config.enrol is not None and config.ca_key is not None:
            self.enrolment = Enrolment(self.store, Issuer(config.ca, config.ca_key, config.enrol_days))
            self.enrol_credentials = server_credentials(config.ca, config.cert, config.key, mutual=False)
        self.http = _bind(config.http)
        # gRPC would say why in a log of its own, so the address is tried first.
        for address in filter(None, (config.grpc, config.enrol)):
            _bind(address).close()
        # Last, as it takes seconds to load: whatever is wrong above is said at once.
        make, self._most = partial(local_passes, config.model, config.device), 4 * PASS
        if config.ray is not None:
            make = partial(ray_passes, config.model, config.device, config.ray)
            # Every replica has a part to read, and the next one at hand.
            self._most = max(self._most, 2 * PASS * config.ray.replicas_max)
        self.passes = WorkerPasses(make)
        model = self._family_config
        self.reasoner = WindowReasoner(model, self.passes, self.bundles)
        self.writer = GroupWriter(PacketLog(self.store))
        self.queue = WindowQueue(self.store, model.window, config.stride_ticks, config.idle_s, model.labels[0])
        self.turn = self.queue.turn
        self.load = LoadPolicy(config.latency_s, config.hold_s, model.window, config.stride_ticks)
        self.subscribers, self.live = Subscribers(self.store), Live()
        self.replay = Replay(self.store, self.reasoner, self.bundles)
        patience = config.retry_s, config.retry_longest_s, config.give_up_s
        self.alerting = Alerting(self.store, self.subscribers, self.replay, *patience)
        self._wake = asyncio.Event()
        self.api = make_api(self.backend(), config.oidc)
        self.bell = Bell(
            self.store,
            packets=self._wake.set,
            changes=self.subscribers.wake,
            reading=lambda reading: self.live.show([reading]),
            watching=lambda: self.live.watched and not self.turn.held,
        )
        self.passes.wait_ready()

    def backend(self) -> Backend:
        """What the API shows."""
        model, accounts = self._family_config, Accounts(self.store)
        if not self.config.open and not accounts.users():
            log.warning("nobody can log in yet: 'ruyicam users add NAME --role admin'")
        return Backend(
            self.store,
            accounts,
            EventCare(self.store, model.labels),
            self.subscribers,
            self.live,
            self.replay,
            self.alerting.book,
            self.bundles,
            model.input.rate_hz,
            self.config.idle_s,
            version("ruyicam"),
            self.config.open,
        )

    def _load_bundles(self, config: ServerConfig) -> None:
        # What is offered is welcome, too.
        infos = [read_bundle_info(path, config.public_key) for path in (*config.bundles, *config.offers.values())]
        model = self._family_config
        for info in infos:
            if info.features != model.features or info.labels != model.labels:
                raise RuyicamError(Exit.BUNDLE, f"bundle {info.name} does not belong to the model in {config.model}")
        offered = zip(config.offers.items(), infos[len(config.bundles) :], strict=True)
        # In place, and only now that all is good: ingest and reasoner hold them. None is forgotten: its packets may still come.
        self.bundles.update({info.id.hex(): info for info in infos})
        self.offers[:] = [Offer(pattern, path, info.id) for (pattern, path), info in offered]

    def reload(self) -> None:
        """Takes up `bundles`, `offers` and `crl` of the configuration file; what is wrong with it is logged, and all stays."""
        try:
            if self.reread is not None:
                config = self.reread()
                revoked = revoked_serials(config.crl, config.ca)
                self._load_bundles(config)
                # In place, as above.
                self.revoked.clear()
                self.revoked.update(revoked)
                counts = len(self.bundles), len(self.offers), len(self.revoked)
                log.info("reloaded: %d bundles known, %d offered, %d certificates revoked", *counts)
        except RuyicamError as error:
            log.error("not reloaded: %s", error)

    def read_pending(self) -> tuple[list[PendingWindow], list[Seen]]:
        """Reads one batch of windows, and says what was seen in them."""
        pending = self.queue.pending(list(self.bundles), self._most)

        def lags_s() -> list[float]:
            now = time.time()
            return [max(0.0, now - w.packets[-1].received_at) for w in pending if w.packets and not w.final]

        plan = self.load.plan(lags_s())
        LAG.set(self.load.lag_s)
        if not pending:
            return [], []
        begun = time.monotonic()
        with REASONING.time():
            seen = self.reasoner.read(pending, plan.effort)
        EVENTS.inc(self.queue.conclude(pending, seen, plan.stride))
        self.load.took(time.monotonic() - begun)
        WINDOWS.labels(plan.effort).inc(sum(bool(s.verdicts) for s in seen))
        for lag in lags_s():
            LATENCY.observe(lag)
        return pending, seen

    async def _reason(self) -> None:
        while True:
            try:
                windows, seen = await asyncio.to_thread(self.read_pending)
                self.load.settle()
                HOLDING.set(self.load.holding)
                if windows:
                    readings = readings_of(windows, seen, self.live.watched or self.bell.watched)
                    self.live.show(readings)
                    self.subscribers.wake()
                    if self.bell.watched:
                        await asyncio.to_thread(self.bell.tell_readings, readings)
                    continue
            except Exception:
                log.exception("reading windows failed; trying again")
                await asyncio.sleep(1)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), 0.5)
            self._wake.clear()

    @staticmethod
    def _rpc(service: Ingest | Enrolment, address: str, credentials: grpc.ServerCredentials) -> tuple[grpc.aio.Server, int]:
        # SO_REUSEPORT would let a second server take the port silently.
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", MAX_MESSAGE)])
        server.add_generic_rpc_handlers((service.handler(),))
        try:
            return server, server.add_secure_port(address, credentials)
        except RuntimeError as error:
            raise RuyicamError(Exit.ADDRESS, f"cannot listen on {address}: address in use or not ours") from error

    async def run(self) -> None:
        """Serves until SIGTERM or SIGINT; prints one line with both addresses when ready."""
        http = self.http
        server, port = self._rpc(
            Ingest(self.store, self.writer, self.bundles, self.load, self._wake.set, self.offers, self.revoked),
            self.config.grpc,
            self.credentials,
        )
        servers, where = [server], f"grpc={self.config.grpc.rpartition(':')[0]}:{port}"
        if self.enrolment is not None and self.config.enrol is not None:
            server, port = self._rpc(self.enrolment, self.config.enrol, self.enrol_credentials)
            servers.append(server)
            where += f" enrol={self.config.enrol.rpartition(':')[0]}:{port}"
        for server in servers:
            await server.start()
        web = uvicorn.Server(uvicorn.Config(self.api, log_level="warning", access_log=False))
        # The service handles signals for both servers.
        web.capture_signals = contextlib.nullcontext
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self.reload)
        work = [asyncio.create_task(self._reason()), asyncio.create_task(self.writer.run())]
        work.append(asyncio.create_task(self.bell.run()))
        work.append(asyncio.create_task(self.alerting.run(lambda: self.turn.held)))
        work.append(asyncio.create_task(Retention(self.store, self.config.keep).run(lambda: self.turn.held)))
        serving = asyncio.create_task(web.serve(sockets=[http]))
        print(
            f"ruyicam serve: ready {where} http={http.getsockname()[0]}:{http.getsockname()[1]}",
            flush=True,
        )
        await stop.wait()
        self.subscribers.close()
        self.live.close()
        web.should_exit = True
        await asyncio.gather(*(server.stop(grace=2) for server in servers))
        for task in work:
            task.cancel()
        await asyncio.gather(*work, serving, return_exceptions=True)
        self.turn.give_back()
        self.passes.close()


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {"time": self.formatTime(record), "level": record.levelname.lower(), "message": record.getMessage()}
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line)


def _few_arenas() -> None:
    """Of glibc's, as each thread's own keeps what it once needed: a third of the memory under load. Elsewhere nothing."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)


def serve(reread: Callable[[], ServerConfig]) -> None:
    """Runs the service of the configuration that `reread` gives until it is told to stop; on SIGHUP bundles and offers are
    taken from it anew. Raises RuyicamError for what cannot be loaded or bound."""
    _few_arenas()
    handler = logging.StreamHandler()
    handler.setFormatter(_JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler])

    async def main() -> None:
        await Service(reread(), reread).run()

    asyncio.run(main())
