"""All attacks in order, each kept when it is done, so that an interrupted audit goes on where it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
import torch

from ruyicam.cloud.data.clips import find_clips, luma_frames
from ruyicam.cloud.family import Family
from ruyicam.cloud.files import whole, write_whole
from ruyicam.cloud.privacy.profiles import CERTIFIED, release_plan
from ruyicam.kernels import Preprocessor

from . import faces, footage, inversion, membership, retrieval, who
from .inversion import Gallery
from .people import EVERY, People, make_people
from .stats import Result, interval
from .system import Releaser

# What we ask of the default model under `reasoning`.
IDENTITY_TARGET = 0.03


@dataclass(frozen=True)
class Scale:
    """How much of everything. `quick` is for continuous integration: minutes, and wide intervals."""

    people: int = 100
    windows: int = 40
    seeds: int = 3
    epochs: int = 40
    batch: int = 64
    decoder_epochs: int = 8
    candidates: int = 1000
    trials: int = 20000
    draws: int = 1_000_000
    averaged: tuple[int, ...] = (1, 4, 16, 64, 256, 1024)
    optimised: int = 16
    optimise_steps: int = 300
    optimise_releases: int = 64
    reuse: tuple[int, int] = (50_000, 4)
    face_people: int = 40
    per_picture: int = 4
    clips: int | None = None


QUICK = Scale(
    people=8, windows=24, seeds=2, epochs=20, batch=16, decoder_epochs=4, candidates=100, trials=2000, draws=100_000,
    averaged=(1, 16, 256), optimised=2, optimise_steps=20, optimise_releases=4, reuse=(5000, 2), face_people=6,
    per_picture=1, clips=3,
)  # fmt: skip


@dataclass
class Findings:
    """What one stage has found. `curve`: success against releases, by profile."""

    attacks: list[Result] = field(default_factory=list)
    positive: list[Result] = field(default_factory=list)
    negative: list[Result] = field(default_factory=list)
    galleries: list[Gallery] = field(default_factory=list)
    curve: dict[str, list[dict]] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)

    def save(self, stem: Path) -> None:
        """Writes STEM.json and STEM.npz, whole or not at all."""
        arrays = {}
        for i, g in enumerate(self.galleries):
            arrays |= {f"{i}-{part}": getattr(g, part) for part in ("originals", "drawn", "mean")}
        content = {
            **{kind: [asdict(r) for r in getattr(self, kind)] for kind in ("attacks", "positive", "negative")},
            "galleries": [[g.name, g.real] for g in self.galleries],
            "curve": self.curve,
            "skipped": self.skipped,
        }
        stem.parent.mkdir(parents=True, exist_ok=True)
        with whole(stem.with_suffix(".npz")) as partial, partial.open("wb") as file:
            np.savez_compressed(file, **arrays)
        write_whole(stem.with_suffix(".json"), json.dumps(content, indent=1))

    @classmethod
    def load(cls, stem: Path) -> Findings:
        """Reads what `save` wrote. OSError or ValueError if it is not there or not whole."""
        content = json.loads(stem.with_suffix(".json").read_text())
        with np.load(stem.with_suffix(".npz")) as arrays:
            galleries = [
                Gallery(name, *(arrays[f"{i}-{part}"] for part in ("originals", "drawn", "mean")), real)
                for i, (name, real) in enumerate(content["galleries"])
            ]
        results = {
            kind: [Result(**{**r, "ci": tuple(r["ci"]), "seeds": tuple(r["seeds"])}) for r in content[kind]]
            for kind in ("attacks", "positive", "negative")
        }
        return cls(**results, galleries=galleries, curve=content["curve"], skipped=content["skipped"])

    def add(self, other: Findings) -> None:
        """Takes over what another stage has found."""
        for name in ("attacks", "positive", "negative", "galleries", "skipped"):
            getattr(self, name).extend(getattr(other, name))
        self.curve.update(other.curve)


class Audit:
    """The stages of one audit of one family."""

    def __init__(
        self,
        family: Family,
        scale: Scale,
        cache: Path,
        data: Path | None = None,
        progress: Callable[[str, int, int], None] = lambda what, done, of: None,
    ):
        """data: the folder with `surveillance`, `falls` and `faces`; without it what needs real pictures is left out."""
        self.family, self.scale, self.cache, self.data, self.progress = family, scale, cache, data, progress
        self.effort = who.Effort(scale.seeds, scale.epochs, scale.batch)

    def _begin_stage(self) -> None:
        """The same random bits for a stage whether it is the first or an interrupted audit goes on with it."""
        torch.manual_seed(0)
        plans = {p: release_plan(self.family.config, p) for p in (*CERTIFIED, "reasoning")}
        self.releasers = {p: Releaser(self.family, plan) for p, plan in plans.items()}
        self.reasoning = self.releasers["reasoning"]

    @cached_property
    def people(self) -> People:
        """Windows of generated people."""
        return make_people(
            self.family,
            self.scale.people,
            self.scale.windows,
            self.cache,
            lambda d, o: self.progress("generating people", d, o),
        )

    @cached_property
    def frames(self) -> np.ndarray:
        """Clean features of frames of different scenes, int16 [N, n]."""
        return self.people.features[:, ::13].flatten(0, 1).numpy()

    def _footage(self, part: str) -> list[footage.Footage]:
        assert self.data is not None
        clips = find_clips([self.data / part], self.family.config.labels)
        if self.scale.clips is not None:
            # Some of every label.
            clips = [
                c
                for label in dict.fromkeys(c.label for c in clips)
                for c in [x for x in clips if x.label == label][: self.scale.clips]
            ]
        return footage.footage(self.family, clips)

    @cached_property
    def train_clips(self) -> list[footage.Footage]:
        """The clips that the default model was trained on."""
        return self._footage("surveillance/train")

    @cached_property
    def val_clips(self) -> list[footage.Footage]:
        """Clips of scenes that no model has seen."""
        return self._footage("surveillance/val")

    def stages(self) -> dict[str, Callable[[], Findings]]:
        """Name and function of every stage, in order; those that need real pictures only where there are some."""
        found = {
            "mechanism": self.mechanism,
            "smuggling": self.smuggling,
            "retrieval": self.retrieval,
            "identity": self.identity,
            "gait": self.gait,
            "attributes": self.attributes,
            "decoder": self.decoder,
        }
        if self.data is not None:
            found |= {"footage": self.real_decoder, "optimisation": self.optimisation, "membership": self.membership,
                      "subjects": self.subjects, "faces": self.faces}  # fmt: skip
        return found

    def run(self, out: Path) -> Iterator[tuple[str, Findings]]:
        """Runs every stage that `out` does not hold yet, and gives all of them."""
        folder = self.folder(out)
        stages = self.stages()
        for number, (name, stage) in enumerate(stages.items()):
            self.progress(name, number, len(stages))
            stem = folder / name
            try:
                found = Findings.load(stem)
            except (OSError, ValueError, KeyError, TypeError):
                self._begin_stage()
                found = stage()
                found.save(stem)
            yield name, found

    def folder(self, out: Path) -> Path:
        """Where the findings of this model at this scale are kept."""
        return out / f"stages-{self._key()}"

    def _key(self) -> str:
        digest = hashlib.sha256(f"{self.scale} {self.family.config.model_dump_json()} {self.data is None}".encode())
        for value in self.family.state_dict().values():
            digest.update(value.cpu().numpy().tobytes())
        return digest.hexdigest()[:12]

    def mechanism(self) -> Findings:
        """mu as built, and noise that must never come twice."""
        out = Findings()
        for profile, releaser in self.releasers.items():
            if profile == "reasoning":
                # One release is told from none without a mistake; nothing can be estimated from that.
                continue
            out.attacks.append(retrieval.mechanism(releaser, 2, self.scale.draws)[0])
        fresh, same = retrieval.noise_reuse(self.reasoning, self.frames, *self.scale.reuse)
        out.attacks.append(fresh)
        out.positive.append(same)
        return out

    def smuggling(self) -> Findings:
        """Encoders that betray who it is, under every profile."""
        out, s = Findings(), self.scale
        for profile, releaser in self.releasers.items():
            for people in (20, 1000):
                tokens = 2 if profile in CERTIFIED else 1
                out.attacks.append(retrieval.smuggled(releaser, people, tokens, tokens, s.seeds, s.trials))
        out.positive.append(retrieval.smuggled(self.releasers["strict"], 1000, 2, 2, s.seeds, s.trials, noise=False))
        return out

    def retrieval(self) -> Findings:
        """Which frame and which clip it was, and what averaging adds."""
        out, s = Findings(), self.scale
        for profile, releaser in self.releasers.items():
            results = retrieval.which_frame(releaser, self.frames, s.averaged, s.seeds, s.candidates)
            out.attacks += results
            out.curve[profile] = [
                {"releases": times, "value": r.value, "ci": list(r.ci), "bound": r.bound, "chance": r.chance}
                for times, r in zip(s.averaged, results, strict=True)
            ]
            windows = self.people.features[: s.candidates].numpy()
            out.attacks.append(
                retrieval.which_clip(releaser, windows, s.seeds, 2 if profile in CERTIFIED else windows.shape[1])
            )
        clean = retrieval.which_frame(self.releasers["strict"], self.frames, (1,), s.seeds, s.candidates, noise=False)
        out.positive += [replace(clean[0], note="noise off")]
        return out

    def identity(self) -> Findings:
        """Naming generated people."""
        found, shuffled, pictures = who.identity(self.people, self.reasoning, self.effort, IDENTITY_TARGET)
        out = Findings([found], [pictures], [shuffled])
        out.attacks += [who.certified_identity(self.people, self.releasers[p], self.effort) for p in CERTIFIED]
        return out

    def gait(self) -> Findings:
        """Naming generated people by how they move."""
        found, true = who.gait(self.family, self.people, self.reasoning, self.effort)
        return Findings([found, true])

    def attributes(self) -> Findings:
        """What unknown people look like."""
        return Findings(who.attributes(self.people, self.reasoning, self.effort))

    def _scene_views(self) -> tuple[inversion.Views, inversion.Views]:
        """Views of generated people: those that the attacker knows, and others."""
        p = self.people
        parts = []
        ticks = np.arange(p.features.shape[1])[EVERY - 1 :: EVERY][1::3]
        for i in range(len(p)):
            pictures = p.picture[i][torch.from_numpy(ticks // EVERY)]
            parts.append(inversion.views_of(p.features[i], pictures, ticks, int(p.who[i])))
        views = inversion.joined(parts)
        people = int(p.who.max()) + 1
        known = views.group < 0.8 * people
        return views.at(np.flatnonzero(known)), views.at(np.flatnonzero(~known))

    def decoder(self) -> Findings:
        """Pictures of generated scenes, by a decoder that has learned from others of the same kind; and of real clips."""
        s = self.scale
        known, unknown = self._scene_views()
        results, gallery, draw = inversion.decoder(
            self.reasoning, known, unknown, "learned decoder, in domain", "scenes", s.seeds, s.decoder_epochs
        )
        out = Findings(results, galleries=[replace(gallery, real=False)])
        if self.data is not None:
            real = footage.views(self.val_clips)
            drawn, mean = draw(real), known.pictures.float().mean(0).numpy()
            gains = inversion.gains_over(drawn, real.pictures.numpy(), mean)
            out.attacks += inversion.scored(
                "learned decoder, out of domain", gains, real.group, "scenes to real clips", "reasoning"
            )
        return out

    def real_decoder(self) -> Findings:
        """Pictures of real clips, by a decoder that has learned from other real clips."""
        s = self.scale
        known, unknown = footage.views(self.train_clips, 1), footage.views(self.val_clips)
        results, gallery, _ = inversion.decoder(
            self.reasoning, known, unknown, "learned decoder, real clips", "CCTV of other scenes", s.seeds, s.decoder_epochs
        )
        return Findings(results, galleries=[gallery])

    def optimisation(self) -> Findings:
        """Pictures by gradients through the encoder."""
        inputs, pictures = [], []
        kernel_keys = self.family.config.input.model_dump(exclude={"rate_hz"})
        for c in self.val_clips[:: max(1, len(self.val_clips) // self.scale.optimised)][: self.scale.optimised]:
            kernel = Preprocessor(**kernel_keys)
            for number, (_, luma) in enumerate(luma_frames(c.clip.path)):
                made = kernel.process(luma)
                if number == 12:
                    break
            inputs.append(made)
            pictures.append(cv2.resize(luma, inversion.PICTURE, interpolation=cv2.INTER_AREA))
        mean = footage.views(self.train_clips).pictures.float().mean(0).numpy()
        results, gallery = inversion.optimise(
            self.family,
            self.reasoning,
            np.stack(inputs),
            np.stack(pictures),
            mean,
            self.scale.optimise_steps,
            self.scale.optimise_releases,
        )
        return Findings(results, galleries=[gallery])

    def membership(self) -> Findings:
        """Which clips the model was trained on."""
        return Findings(
            [membership.membership(self.family, self.reasoning, self.train_clips, self.val_clips, 8, self.scale.seeds)]
        )

    def subjects(self) -> Findings:
        """Which actor of the fall clips it is."""
        clips = self._footage("falls/train") + self._footage("falls/val")
        names = sorted({c.clip.path.stem.split("_")[0] for c in clips})
        labels = np.array([names.index(c.clip.path.stem.split("_")[0]) for c in clips])
        return Findings([who.subjects([c.features for c in clips], labels, self.reasoning)])

    def faces(self) -> Findings:
        """Faces that fill the frame."""
        assert self.data is not None
        pictures = faces.load_faces(self.data / "faces" / "orl", self.scale.face_people)
        results, gallery, why = faces.recognition(
            self.family, self.reasoning, pictures, self.scale.seeds, self.scale.epochs, self.scale.per_picture
        )
        control = [r for r in results if r.profile == "none"]
        return Findings([r for r in results if r.profile != "none"], control, galleries=[gallery], skipped=[why] if why else [])


# A control is judged by an interval that errs once in a thousand audits.
_CONTROL = 0.999


def verdict(found: Findings) -> list[str]:
    """What fails, a line each: an attack above its bound, a positive control that does not break, a negative one off chance."""

    def sure(r: Result) -> tuple[float, float]:
        return interval(round(r.value * r.trials), r.trials, _CONTROL)

    wrong = [f"{r.name} ({r.profile}): {r.ci[0]:.4g} lies above the bound {r.bound:.4g}" for r in found.attacks if not r.holds]
    for r in found.positive:
        if sure(r)[0] <= r.chance:
            wrong.append(f"positive control '{r.name}' does not break: {r.value:.4g} at chance {r.chance:.4g}")
    for r in found.negative:
        low, high = sure(r)
        if not low <= r.chance <= high:
            wrong.append(f"negative control '{r.name}' is not at chance: {r.value:.4g}, chance {r.chance:.4g}")
    return wrong


__all__ = ["QUICK", "Audit", "Findings", "Scale", "verdict"]
