"""Changes of events to those who listen, as server-sent events; whoever was away goes on from where it was."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

from .store import Store
from .tables import Change

# A proxy between would end a connection on which nothing is said.
_ALIVE_S = 15.0


class Subscribers:
    """Wakes all who listen; what they are told they read from the database, each at its own pace."""

    def __init__(self, store: Store):
        self._store = store
        self._changed = asyncio.Event()
        self._closed = False

    def wake(self) -> None:
        """There may be changes. To be called on the event loop."""
        # Who waits has the old one; who looks now takes the new one.
        self._changed.set()
        self._changed = asyncio.Event()

    def close(self) -> None:
        """Ends all streams."""
        self._closed = True
        self.wake()

    async def changes(self, after: int) -> AsyncIterator[Change | None]:
        """Every change behind that number, for ever; None now and then while there is none."""
        while not self._closed:
            changed = self._changed
            some = await asyncio.to_thread(self._store.changes, after)
            for change in some:
                after = change.id
                yield change
            if some:
                continue
            try:
                await asyncio.wait_for(changed.wait(), _ALIVE_S)
            except TimeoutError:
                yield None


def sse(number: int, kind: str, data: dict) -> str:
    """One message in the text/event-stream format."""
    return f"id: {number}\nevent: {kind}\ndata: {json.dumps(data)}\n\n"
