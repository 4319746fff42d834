"""What each place of the picture is asked in training."""

from __future__ import annotations

import pytest
import torch
from made import SMALL

from ruyicam.cloud.data.batches import collate
from ruyicam.cloud.data.store import Store, Windows
from ruyicam.cloud.family import Family
from ruyicam.cloud.training.places import Places, where


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Windows:
    """Fifty scenes."""
    store = Store(tmp_path_factory.mktemp("cache"), SMALL, Family(SMALL).encoder)
    return Windows(store.build(store.scenes(0, 50), 1))


def test_each_place_is_asked_who_is_there(scenes):
    batch = collate([scenes[i] for i in range(8)], SMALL)
    place, there = where(batch["contour"], batch["inside"], SMALL.grid)
    rows, columns = SMALL.grid
    assert place.min() >= 0 and place.max() < rows * columns and there.any()
    x = batch["contour"][..., 11:13, 0].mean(-1)
    assert torch.equal((place % columns)[there], (x * columns).long()[there])
    assert not there[batch["inside"] == 0].any()


def test_places_teach_the_look_and_ask_scenes_alone(scenes):
    torch.manual_seed(0)
    family = Family(SMALL)
    batch = collate([scenes[i] for i in range(8)], SMALL)
    exists = batch["exists"]
    asked = Places(SMALL)
    torch.nn.init.normal_(asked.read.weight)
    looks = family.encoder.look(batch["maps"][exists])
    loss = asked(looks, batch, exists)
    loss.backward()
    taught = {n for n, p in family.named_parameters() if p.grad is not None and p.grad.any()}
    assert {n.split(".")[1] for n in taught} == {"here", "around", "join"}
    assert asked(looks, batch | {"is_scene": torch.zeros(8, dtype=torch.bool)}, exists) == 0
    # A reading that knows the answer has nothing left to learn.
    place, there = where(batch["contour"], batch["inside"], SMALL.grid)
    at = torch.nn.functional.one_hot(place, SMALL.grid[0] * SMALL.grid[1]) * there.unsqueeze(-1)
    done = (batch["doing"].unsqueeze(-1) * at.unsqueeze(3)).amax(2)
    answer = torch.cat([at.amax(2).unsqueeze(2), done], 2).flatten(0, 1)[exists.flatten()]
    asked.read = torch.nn.Identity()
    sure = asked((20 * answer - 10).unflatten(-1, SMALL.grid), batch, exists)
    assert sure < 0.01 * loss
