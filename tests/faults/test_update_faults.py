"""Updates that are cut off or damaged: the device always starts, with the old bundle or the new one, and gets there."""

from __future__ import annotations

import json
import os
import random
import shutil
import time

import pytest
from account import LIVE, Account, recovered
from made import another_bundle
from test_device_faults import kill_at_random
from test_end_to_end import spooled, start
from test_updates import QUICK, identity, offer

from ruyicam.cloud.errors import Exit

pytestmark = [pytest.mark.timeout(1800), pytest.mark.skipif(os.geteuid() != 0, reason="needs root, as the rest of the suite")]


@pytest.fixture
def newer(signed, tmp_path):
    """A bundle to update to."""
    return another_bundle(signed[0], tmp_path / "newer.ruyicam", signed[2], serial=2_000_000_000, version="newer")


def current(state) -> str:
    """Id of the bundle in the last packet of a spool."""
    return spooled(state)[-1].bundle_id.hex()


def kept(state, bundle: str) -> bool:
    """Whether that bundle runs and has proved well."""
    slots = state / "bundles" / "slots.json"
    return slots.exists() and bool(json.loads(slots.read_text())["active"]) and current(state) == bundle


def settle(session, state, account: Account, bundle: str) -> float:
    """Starts the device as its supervisor would until it has kept that bundle; seconds that it took."""
    began = time.monotonic()
    while time.monotonic() < began + 120:
        edge = start(session, LIVE, state, **QUICK)
        while edge.poll() is None and not kept(state, bundle):
            time.sleep(0.05)
        if edge.poll() is not None:
            assert edge.returncode == Exit.RESTART, edge.stderr.read()
            continue
        seconds = time.monotonic() - began
        edge.terminate()
        edge.communicate(timeout=60)
        account.note(spooled(state))
        account.settle(session)
        return seconds
    raise AssertionError("the bundle was not kept in time")


def test_power_cuts_during_an_update(session, newer, tmp_path):
    """At any moment of fetching, installing and trying; what was not yet durable may be gone."""
    rng, account, state = random.Random(3), Account(), tmp_path / "state"
    offer(session, newer)
    folder, seen = state / "bundles", set()
    for i in range(40):
        edge = start(session, LIVE, state, **QUICK)
        until = time.monotonic() + rng.uniform(0.3, 2.5)
        # Fetching takes a blink: every other cut is aimed at it.
        while time.monotonic() < until and edge.poll() is None and not (i % 2 and any(folder.glob("partial/*"))):
            time.sleep(0.001)
        time.sleep(i % 2 * rng.uniform(0, 0.02))
        kill_at_random(edge, rng)
        assert edge.returncode in (Exit.RESTART, -9), edge.returncode
        account.note(spooled(state))
        if (slots := folder / "slots.json").exists():
            seen.add(json.loads(slots.read_text())["trial"])
            if all(json.loads(slots.read_text())[k] == "" for k in ("trial", "active")) or rng.random() < 0.3:
                # Taken back after three cuts, or kept: once more from the beginning.
                shutil.rmtree(folder)
        if partial := sorted(folder.glob("partial/*")):
            seen.add("partial")
            os.truncate(lost := rng.choice(partial), rng.randrange(lost.stat().st_size + 1))
    assert {"partial", "a"} <= seen, seen
    shutil.rmtree(folder, ignore_errors=True)
    recovered("40 power cuts during updates: start to the new bundle kept", settle(session, state, account, identity(newer)))


def test_a_bundle_damaged_on_the_way(session, newer, tmp_path):
    """Any bit of any file, or the end of it missing."""
    rng, account, state = random.Random(4), Account(), tmp_path / "state"
    offer(session, newer)
    good = {file: file.read_bytes() for file in newer.iterdir()}
    for _ in range(12):
        file = rng.choice(list(good))
        data = bytearray(good[file])
        if rng.random() < 0.3:
            del data[rng.randrange(len(data)) :]
        else:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        file.write_bytes(data)
        edge = start(session, LIVE, state, **QUICK)
        said = edge.stderr.readline()
        while '"update: ' not in said:
            assert said, f"{file.name}: ended with {edge.wait()}"
            said = edge.stderr.readline()
        assert "installed" not in said, file
        edge.kill()
        edge.communicate()
        assert not (state / "bundles" / "slots.json").exists(), file
        account.note(spooled(state))
        file.write_bytes(good[file])
    recovered("a bundle damaged on the way: start to the good one kept", settle(session, state, account, identity(newer)))
