"""Who is it, and what do they look like? Read from released features, from the contour, and from the pictures as a control."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ruyicam.cloud.data.scenes.identity import CLOTHING
from ruyicam.cloud.family import Family

from .people import EVERY, People
from .readers import WindowReader, naming, run, train
from .stats import Result, bootstrap, proportion
from .system import Releaser

BINARY = ("tall", "heavy", "dark_shirt", "long_hair")


@dataclass(frozen=True)
class Effort:
    """How hard attackers try."""

    seeds: int = 3
    epochs: int = 40
    batch: int = 64


def _split(people: People, seed: int, seeds: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices (train, test): every seed tests on scenes of its own, of all people."""
    place = torch.arange(len(people)) % seeds
    return (place != seed).nonzero()[:, 0], (place == seed).nonzero()[:, 0]


def _observed(people: People, releaser: Releaser) -> torch.Tensor:
    """What of the windows does not depend on the noise: the tokens as one-hot, float [N, W, K]."""
    return functional.one_hot(people.token.long(), len(releaser.plan.alphabet)).float() * 32


def looks(people: People) -> torch.Tensor:
    """What pictures show of a figure: the luma at its joints and their places, float [N, P, 17 * 4].

    For the control that must break: an attacker with pictures would find the joints by a pose network, and here they are given.
    """
    points = people.points[:, EVERY - 1 :: EVERY].float()
    height, width = people.picture.shape[2:]
    x = (points[..., 0] * width).long().clamp(0, width - 1)
    y = (points[..., 1] * height).long().clamp(0, height - 1)
    luma = people.picture.flatten(2).gather(2, y * width + x).float()
    # Lighting differs from scene to scene: against the picture as a whole.
    luma = (luma - people.picture.float().mean((2, 3))[..., None]) / 32
    return torch.cat([luma * points[..., 2], points.flatten(3).flatten(2).mul(4)], -1)


def _name_people(observe, model, labels: torch.Tensor, train_on, test_on, effort: Effort, seed: int, test_x) -> tuple[int, int]:
    torch.manual_seed(seed)
    reader = train(
        model(), len(train_on), lambda i: observe(train_on[i]), naming(labels[train_on]), effort.epochs, seed, effort.batch
    )
    guess = run(reader, test_x(test_on)).argmax(1)
    return int((guess == labels[test_on]).sum()), len(test_on)


def identity(people: People, releaser: Releaser, effort: Effort, target: float | None = None) -> tuple[Result, Result, Result]:
    """(from released features, the same with shuffled labels, from the pictures as a control): naming one of all people.

    One window of released features and tokens; every seed has its own split, network and noise.
    """
    count = int(people.who.max()) + 1
    ticks = people.features.shape[1]
    features, fixed = people.features.float(), _observed(people, releaser)
    width = features.shape[2] + fixed.shape[2]
    shown = looks(people)
    found, shuffled, seen = [], [], []
    for seed in range(effort.seeds):
        noise = torch.Generator().manual_seed(1000 + seed)
        train_on, test_on = _split(people, seed, effort.seeds)

        def observe(i: torch.Tensor, noise=noise) -> torch.Tensor:
            return torch.cat([releaser.draw(features[i], noise), fixed[i]], -1)

        def released(i: torch.Tensor) -> torch.Tensor:
            return torch.cat([releaser.windows(people.features[i]), fixed[i]], -1)

        def reader() -> nn.Module:
            return WindowReader(width, count)

        found.append(_name_people(observe, reader, people.who, train_on, test_on, effort, seed, released))
        mixed = people.who[torch.randperm(len(people), generator=noise)]
        shuffled.append(_name_people(observe, reader, mixed, train_on, test_on, effort, seed, released))

        def looker() -> nn.Module:
            return WindowReader(shown.shape[2], count)

        seen.append(_name_people(shown.__getitem__, looker, people.who, train_on, test_on, effort, seed, shown.__getitem__))
    metric = f"top-1 of {count}"
    cap = releaser.cap(1 / count, ticks, ticks)
    return (
        proportion("identity of generated people", metric, found, 1 / count, bound=cap, target=target,
                   profile=releaser.plan.profile, note=f"one window of {ticks} ticks"),
        proportion("shuffled labels", metric, shuffled, 1 / count, profile=releaser.plan.profile),
        proportion("identity from the pictures", metric, seen, 1 / count, profile="none"),
    )  # fmt: skip


def certified_identity(people: People, releaser: Releaser, effort: Effort) -> Result:
    """What a certified profile releases of one visit, two releases and two tokens: naming one of all people."""
    count = int(people.who.max()) + 1
    clip = releaser.plan.clip
    # Two ticks far apart, as two blocks have; the norm is brought to the clip, where it tells the most.
    chosen = people.features[:, [people.features.shape[1] // 2 - 1, -1]].float()
    chosen = torch.round(chosen * (clip / chosen.norm(dim=-1, keepdim=True).clamp(min=1)).clamp(max=1))
    look = (people.token > 0).float().reshape(len(people), 2, -1).amax(-1, keepdim=True) * 8
    found = []
    for seed in range(effort.seeds):
        noise = torch.Generator().manual_seed(2000 + seed)
        train_on, test_on = _split(people, seed, effort.seeds)

        def observe(i: torch.Tensor, noise=noise) -> torch.Tensor:
            return torch.cat([releaser.draw(chosen[i], noise) / 16, look[i]], -1)

        def released(i: torch.Tensor) -> torch.Tensor:
            return torch.cat([releaser.windows(chosen[i].to(torch.int16)) / 16, look[i]], -1)

        def reader() -> nn.Module:
            width = 2 * (chosen.shape[2] + 1)
            return nn.Sequential(nn.Flatten(), nn.Linear(width, 128), nn.SiLU(), nn.Linear(128, count))

        found.append(_name_people(observe, reader, people.who, train_on, test_on, effort, seed, released))
    cap = releaser.cap(1 / count, 2, 2)
    return proportion("identity of generated people", f"top-1 of {count}", found, 1 / count, bound=cap,
                      profile=releaser.plan.profile, note="one visit: two releases, two tokens")  # fmt: skip


# Pairs of joints whose distances tell a build: shoulders, hips, arms, legs, head.
_BONES = ((5, 6), (11, 12), (5, 7), (7, 9), (11, 13), (13, 15), (0, 5), (3, 4))


def gait_of(points: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Build and movement apart from where someone is: [N, W, 17, 3] (x, y as shares of a picture of `size`, seen) -> [N, W, F].

    Joints against the hips in units of the torso, how they move, and lengths of bones.
    """
    xy = points[..., :2] * torch.tensor(size, dtype=torch.float32)
    hips, shoulders = xy[..., 11:13, :].mean(-2, keepdim=True), xy[..., 5:7, :].mean(-2, keepdim=True)
    torso = (shoulders - hips).norm(dim=-1, keepdim=True).clamp(min=3)
    place = (xy - hips) / torso
    motion = torch.cat([torch.zeros_like(place[:, :1]), place.diff(dim=1)], 1) * 4
    bones = torch.stack([(xy[..., a, :] - xy[..., b, :]).norm(dim=-1) for a, b in _BONES], -1) / torso[..., 0]
    return torch.cat([place.flatten(2), motion.flatten(2), bones, points[..., 2]], -1).clamp(-6, 6)


@torch.inference_mode()
def _contours(family: Family, z: torch.Tensor) -> torch.Tensor:
    """Of every window the figure that the deepest tier is surest of, as `gait_of` sees it."""
    deepest = list(family.config.trunk.exits)[-1]
    there = torch.ones(z.shape[:2], dtype=torch.bool)
    parts = [family.reasoner(a, b, (deepest,))[deepest].contour for a, b in zip(z.split(128), there.split(128), strict=True)]
    points = torch.cat(parts)
    points[..., 2] = torch.sigmoid(points[..., 2])
    surest = points[..., 2].mean((1, 3)).argmax(1)
    chosen = points[torch.arange(len(points)), :, surest]
    return gait_of(chosen, (family.config.input.width, family.config.input.height))


def gait(family: Family, people: People, releaser: Releaser, effort: Effort) -> tuple[Result, Result]:
    """(from the contour that the service shows, from the true joints for comparison): naming one of all people."""
    count = int(people.who.max()) + 1
    ticks = people.features.shape[1]
    joints = gait_of(people.points.float(), (family.config.input.width, family.config.input.height))
    # An attacker may ask for as many draws as he likes; four of each scene are enough to learn what noise does.
    drawn = [_contours(family, releaser.windows(people.features)) for _ in range(4)]
    found, true = [], []
    for seed in range(effort.seeds):
        pick = torch.Generator().manual_seed(3000 + seed)
        train_on, test_on = _split(people, seed, effort.seeds)
        fresh = _contours(family, releaser.windows(people.features[test_on]))
        place = torch.full((len(people),), -1)
        place[test_on] = torch.arange(len(test_on))

        def observe(i: torch.Tensor, pick=pick) -> torch.Tensor:
            return drawn[int(torch.randint(len(drawn), (1,), generator=pick))][i]

        def reader(width: int = drawn[0].shape[2]) -> nn.Module:
            return WindowReader(width, count)

        def shown(i: torch.Tensor, fresh=fresh, place=place) -> torch.Tensor:
            return fresh[place[i]]

        found.append(_name_people(observe, reader, people.who, train_on, test_on, effort, seed, shown))

        def walker() -> nn.Module:
            return WindowReader(joints.shape[2], count)

        true.append(_name_people(joints.__getitem__, walker, people.who, train_on, test_on, effort, seed, joints.__getitem__))
    metric = f"top-1 of {count}"
    cap = releaser.cap(1 / count, ticks, ticks)
    return (
        proportion("gait and skeleton on the contour output", metric, found, 1 / count, bound=cap, note="cloud-l's contour"),
        proportion(
            "gait and skeleton from the true joints",
            metric,
            true,
            1 / count,
            profile="none",
            note="not released: what a perfect contour would tell",
        ),
    )


def attributes(people: People, releaser: Releaser, effort: Effort) -> list[Result]:
    """Build, height, clothing and hair of people none of whom the attacker has learned from: from one window, and
    by a vote over all of a person's.
    """
    count = int(people.who.max()) + 1
    table = people.identities
    names = (*BINARY, "clothing")
    classes = {name: len(CLOTHING) if name == "clothing" else 2 for name in names}
    truth = {n: torch.tensor([who.attributes[n] for who in table]) for n in names}
    features, fixed = people.features.float(), _observed(people, releaser)
    right: dict[str, list[tuple[int, int]]] = {n: [] for n in names}
    single: dict[str, list[torch.Tensor]] = {n: [] for n in names}
    whose: list[torch.Tensor] = []
    order = torch.randperm(count, generator=torch.Generator().manual_seed(5))
    for seed in range(effort.seeds):
        noise = torch.Generator().manual_seed(4000 + seed)
        held = order[seed :: effort.seeds]
        tested = torch.isin(people.who, held)
        train_on, test_on = (~tested).nonzero()[:, 0], tested.nonzero()[:, 0]
        torch.manual_seed(seed)
        reader = WindowReader(features.shape[2] + fixed.shape[2], sum(classes.values()))

        def observe(i: torch.Tensor, noise=noise, train_on=train_on) -> torch.Tensor:
            return torch.cat([releaser.draw(features[train_on[i]], noise), fixed[train_on[i]]], -1)

        def loss(output: torch.Tensor, i: torch.Tensor, train_on=train_on) -> torch.Tensor:
            who = people.who[train_on[i]]
            parts = output.split(list(classes.values()), 1)
            return sum(functional.cross_entropy(p, truth[n][who]) for n, p in zip(names, parts, strict=True))

        train(reader, len(train_on), observe, loss, max(1, effort.epochs // 2), seed, effort.batch)
        output = run(reader, torch.cat([releaser.windows(people.features[test_on]), fixed[test_on]], -1))
        for name, part in zip(names, output.split(list(classes.values()), 1), strict=True):
            votes = torch.zeros(count, classes[name]).index_add_(0, people.who[test_on], torch.log_softmax(part, -1))
            right[name].append((int((votes.argmax(1)[held] == truth[name][held]).sum()), len(held)))
            single[name].append(part.argmax(1) == truth[name][people.who[test_on]])
        whose.append(people.who[test_on])
    out = []
    for name in names:
        # The most frequent value is the guess of someone who sees nothing.
        prevalence = float(truth[name].bincount().max()) / count
        title, limits = f"attribute: {name.replace('_', ' ')}", {"bound": 1.0, "target": prevalence + 0.05}
        hits = torch.cat(single[name]).double().numpy()
        groups = torch.cat(whose).numpy()
        out.append(
            Result(title, "share of windows", float(hits.mean()), bootstrap(hits, groups), prevalence, trials=len(hits),
                   note="unknown people, one window each time", **limits)
        )  # fmt: skip
        out.append(
            proportion(f"{title}, all windows", "share of people", right[name], prevalence,
                       note=f"a vote over all {len(people) // count} windows of an unknown person", **limits)
        )  # fmt: skip
    return out


def subjects(features: list[torch.Tensor], who: np.ndarray, releaser: Releaser, draws: int = 5) -> Result:
    """Which of the actors of real clips it is, one clip left out at a time: the nearest mean of features and motion."""
    clips = []
    for u in features:
        z = torch.stack([releaser.windows(u[None].to(torch.int16))[0] for _ in range(draws)]).mean(0)
        clips.append(torch.cat([z.mean(0), z.std(0)]))
    x = torch.stack(clips)
    x = (x - x.mean(0)) / x.std(0).clamp(min=1e-3)
    labels, right = torch.from_numpy(who), 0
    for i in range(len(x)):
        rest = torch.arange(len(x)) != i
        means = torch.stack([x[rest & (labels == c)].mean(0) for c in range(int(labels.max()) + 1)])
        right += int((means - x[i]).square().sum(1).argmin() == labels[i])
    usual = float(torch.bincount(labels).max()) / len(labels)
    return proportion("identity of the fall subjects", "share of clips", [(right, len(x))], usual, bound=1.0,
                      note="each subject was filmed in a room of his own, so the room may be what is recognised")  # fmt: skip
