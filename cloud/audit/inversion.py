"""Pictures from features: by a learned decoder, and by optimisation with the expectation over the noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch.nn import functional

from ruyicam.cloud.family import Family

from .people import PICTURE
from .readers import Decoder, run, train
from .stats import Result, bootstrap
from .system import Releaser

LOOK_BACK = 8
SSIM_TARGET, PSNR_TARGET = 0.02, 0.5


@dataclass(frozen=True)
class Views:
    """Looks back at `LOOK_BACK` ticks each, and the picture at the last of them; `group`: the person or clip of each.

    features int16 [N, LOOK_BACK, n]; pictures uint8 [N, 36, 48].
    """

    features: torch.Tensor
    pictures: torch.Tensor
    group: np.ndarray

    def __len__(self) -> int:
        return len(self.group)

    def at(self, index: np.ndarray) -> Views:
        """Some of them."""
        i = torch.from_numpy(np.asarray(index))
        return Views(self.features[i], self.pictures[i], self.group[index])


def ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Structural similarity of two pictures of 0 to 255 (Wang et al. 2004): Gaussian window of 11, sigma 1.5."""
    a, b = a.astype(np.float64), b.astype(np.float64)

    def blur(x: np.ndarray) -> np.ndarray:
        return cv2.GaussianBlur(x, (11, 11), 1.5)

    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b, both = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2, blur(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    top = (2 * mean_a * mean_b + c1) * (2 * both + c2)
    return float((top / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))).mean())


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of two pictures of 0 to 255."""
    error = np.square(a.astype(np.float64) - b).mean()
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


def gains_over(drawn: np.ndarray, truth: np.ndarray, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """By how much the drawn pictures are better than the prior-mean picture: SSIM, dB; each [N]."""
    s = [ssim(d, t) - ssim(mean, t) for d, t in zip(drawn, truth, strict=True)]
    p = [psnr(d, t) - psnr(mean, t) for d, t in zip(drawn, truth, strict=True)]
    return np.array(s), np.array(p)


def scored(name: str, gains: tuple[np.ndarray, np.ndarray], group: np.ndarray, note: str, profile: str) -> list[Result]:
    out = []
    for metric, values, target in zip(("SSIM", "dB"), gains, (SSIM_TARGET, PSNR_TARGET), strict=True):
        out.append(
            Result(name, f"{metric} above the prior-mean picture", float(values.mean()), bootstrap(values, group), 0.0,
                   target=target, profile=profile, trials=len(values), note=note, share=False)
        )  # fmt: skip
    return out


@dataclass(frozen=True)
class Gallery:
    """Some originals beside the best reconstruction of each, for the report: uint8 [N, 36, 48] each.

    real: they show real people.
    """

    name: str
    originals: np.ndarray
    drawn: np.ndarray
    mean: np.ndarray
    real: bool = True


def decoder(
    releaser: Releaser, known: Views, unknown: Views, name: str, note: str, seeds: int, epochs: int
) -> tuple[list[Result], Gallery, Callable[[Views], np.ndarray]]:
    """A decoder trained on `known` with as much noise as it likes, judged on `unknown` with the device's own.

    Returns the gains in SSIM and dB, a gallery, and the best decoder as a function of views.
    """
    mean = known.pictures.float().mean(0)
    features, pictures = known.features.float(), known.pictures.float()
    gains, drawings, models = [], [], []

    for seed in range(seeds):
        torch.manual_seed(seed)
        model = Decoder(known.features.shape[2], LOOK_BACK, mean)
        draw = torch.Generator().manual_seed(5000 + seed)

        def inputs(i: torch.Tensor, draw=draw) -> torch.Tensor:
            return releaser.draw(features[i], draw)

        def loss(output: torch.Tensor, i: torch.Tensor) -> torch.Tensor:
            return functional.mse_loss(output, pictures[i]) / 1000 + functional.l1_loss(output, pictures[i]) / 100

        train(model, len(known), inputs, loss, epochs, seed, batch=128)
        drawings.append(run(model, releaser.windows(unknown.features)).clamp(0, 255).numpy())
        models.append(model)
        gains.append(gains_over(drawings[-1], unknown.pictures.numpy(), mean.numpy()))
    # The strongest of the seeds is the one that counts.
    best = int(np.argmax([s.mean() for s, _ in gains]))
    order = np.argsort(-gains[best][0])
    shown = order[:: max(1, len(order) // 8)][:8]
    drawn = drawings[best][shown].astype(np.uint8)
    gallery = Gallery(name, unknown.pictures.numpy()[shown], drawn, mean.numpy().astype(np.uint8))
    results = scored(name, gains[best], unknown.group, f"{note}; the best of {seeds} seeds", releaser.plan.profile)
    return results, gallery, lambda views: run(models[best], releaser.windows(views.features)).clamp(0, 255).numpy()


def optimise(
    family: Family, releaser: Releaser, frames: np.ndarray, pictures: np.ndarray, mean: np.ndarray, steps: int, releases: int
) -> tuple[list[Result], Gallery]:
    """White-box inversion: the picture whose features are likeliest, by gradients through encoder and mapping.

    frames int8 [N, 3, h, w]: encoder inputs; `releases` releases of each are averaged, which is the expectation over the
    noise. The picture is 36 x 48, smoothed by a total-variation prior, starts from the prior mean, and stands for a frame that
    has just appeared: motion differences are the attacker's to choose, too.
    """
    config = family.config
    size = (config.input.height, config.input.width)
    with torch.inference_mode():
        clean = family.features(torch.from_numpy(frames)[:, None])[:, 0]
    u = clean.numpy().astype(np.int16)
    seen = torch.from_numpy(np.mean([releaser.release(u) for _ in range(releases)], axis=0, dtype=np.float32))
    prior = torch.from_numpy(mean).float() - 128
    guess = torch.stack([prior, torch.zeros_like(prior), torch.zeros_like(prior)]).repeat(len(frames), 1, 1, 1).requires_grad_()
    optimiser = torch.optim.Adam([guess], lr=3.0)
    # The encoder's picture side is frozen and takes no gradients; an attacker is not bound by that.
    maps = type(family.encoder).maps.__wrapped__
    mapping = family.mapping.train()
    try:
        for _ in range(steps):
            optimiser.zero_grad()
            picture = functional.interpolate(guess.clamp(-128, 127), size, mode="bilinear")
            features = mapping(family.encoder.tokens(maps(family.encoder, picture)))
            misfit = (features - seen).square().sum(1).mean() / (2 * releaser.plan.sigma**2)
            rough = (guess.diff(dim=-1).abs().mean() + guess.diff(dim=-2).abs().mean()) + 0.3 * guess[:, 1:].abs().mean()
            (misfit / config.features + 0.02 * rough).backward()
            optimiser.step()
    finally:
        mapping.eval()
    drawn = (guess.detach()[:, 0] + 128).clamp(0, 255).numpy()
    gains = gains_over(drawn, pictures, mean)
    name = "inversion by optimisation"
    note = f"{steps} steps, {releases} releases averaged"
    results = scored(name, gains, np.arange(len(frames)), note, releaser.plan.profile)
    shown = np.argsort(-gains[0])[:8]
    return results, Gallery(name, pictures[shown], drawn[shown].astype(np.uint8), mean.astype(np.uint8))


def views_of(features: torch.Tensor, pictures: torch.Tensor, ticks: np.ndarray, group: object) -> Views:
    """Views that end at `ticks` of one sequence: features [T, n], pictures uint8 [len(ticks), 36, 48]."""
    past = torch.cat([features[:1].expand(LOOK_BACK - 1, -1), features]).to(torch.int16)
    looks = torch.stack([past[t : t + LOOK_BACK] for t in ticks])
    return Views(looks, pictures, np.array([group] * len(ticks)))


def joined(parts: list[Views]) -> Views:
    """All of them, end to end."""
    return Views(
        torch.cat([p.features for p in parts]), torch.cat([p.pictures for p in parts]), np.concatenate([p.group for p in parts])
    )


__all__ = ["PICTURE", "Gallery", "Views", "decoder", "gains_over", "joined", "optimise", "psnr", "scored", "ssim", "views_of"]
