"""Judged events as training data: the released features of their windows, and what somebody says that they show."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from ruyicam.cloud.bundles import BundleInfo
from ruyicam.cloud.family.config import FamilyConfig
from ruyicam.cloud.files import whole, write_whole

from .care import EventCare
from .reasoner import window_inputs
from .replay import LONGEST, windows_between
from .store import Store


def export_labels(store: Store, config: FamilyConfig, bundles: Mapping[str, BundleInfo], out: Path) -> int:
    """Writes labels.jsonl (a judged event a line, with `first_window` and `windows`) and windows.safetensors (features int16
    [windows, ticks, n], valid bool [windows, ticks], label int64 [windows]) into the folder `out`; returns how many events
    there are. Events whose features were deleted have no windows. Raises OSError."""
    out.mkdir(parents=True, exist_ok=True)
    lines, features, valid, label = [], [], [], []
    for row in EventCare(store, config.labels).labels_given():
        boot = store.boot(row["boot_id"])
        windows = []
        if boot is not None and boot.bundle_id in bundles:
            first = max(row["first_tick"], row["last_tick"] - LONGEST + 1)
            windows = windows_between(store, boot, first, row["last_tick"], config.window)
        lines.append(json.dumps(row | {"first_window": len(label), "windows": len(windows)}))
        some, there = window_inputs(windows, bundles, config)
        features.append(some)
        valid.append(there)
        label += [config.labels.index(row["label"])] * len(windows)
    shape = (0, config.window)
    arrays = {
        "features": np.concatenate(features) if features else np.zeros((*shape, config.features), np.int16),
        "valid": np.concatenate(valid) if valid else np.zeros(shape, bool),
        "label": np.array(label, np.int64),
    }
    with whole(out / "windows.safetensors") as partial:
        save_file(arrays, partial, {"labels": json.dumps(list(config.labels))})
    write_whole(out / "labels.jsonl", "".join(line + "\n" for line in lines))
    return len(lines)
