"""Changes of events to those who listen; whoever was away goes on from where it was."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from .store import Store
from .tables import Change

# A proxy between would end a connection on which nothing is said.
ALIVE_S = 15.0


class Subscribers:
    """Wakes all who listen; what they are told they read from the database, each at its own pace."""

    def __init__(self, store: Store):
        self._store = store
        self._changed = asyncio.Event()
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def wake_soon(self) -> None:
        """The same as wake(), from any thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self.wake)

    def wake(self) -> None:
        """There may be changes. To be called on the event loop."""
        # Who waits has the old one; who looks now takes the new one.
        self._changed.set()
        self._changed = asyncio.Event()

    def next_change(self) -> asyncio.Event:
        """Is set when there may be changes that were not there when it was asked for."""
        return self._changed

    def close(self) -> None:
        """Ends all streams."""
        self._closed = True
        self.wake()

    async def changes(self, after: int) -> AsyncIterator[list[Change]]:
        """Every change behind that number, for ever; an empty list now and then while there is none."""
        self._loop = asyncio.get_running_loop()
        while not self._closed:
            changed = self.next_change()
            some = await asyncio.to_thread(self._store.changes, after)
            if some:
                after = some[-1].id
                yield some
                continue
            try:
                await asyncio.wait_for(changed.wait(), ALIVE_S)
            except TimeoutError:
                yield []
