"""Faces before the camera: read directly from released features, and recognised on pictures made from them."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import torch

from ruyicam.cloud.family import Family

from .inversion import LOOK_BACK, Gallery, Views, decoder, joined, views_of
from .people import PICTURE, frames_to_features, small
from .readers import WindowReader, naming, run, train
from .stats import Result, proportion
from .system import Releaser

_TICKS = LOOK_BACK + 4
# Pictures of each person that the attacker has; the rest are before the camera.
_KNOWN = 7


def _before_camera(picture: np.ndarray, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A face that fills the frame and moves a little: uint8 [ticks, h, w]. picture uint8 [112, 92]."""
    width, height = size
    scale = rng.uniform(0.85, 1.0) * height / picture.shape[0]
    face = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    frames = []
    shift = rng.uniform(-4, 4, 2)
    for _ in range(_TICKS):
        shift = np.clip(shift + rng.normal(0, 1.5, 2), -8, 8)
        frame = np.full((height, width), 110, np.uint8)
        x, y = int((width - face.shape[1]) / 2 + shift[0]), int((height - face.shape[0]) / 2 + shift[1])
        top, left = max(0, y), max(0, x)
        part = face[top - y : top - y + height - top, left - x : left - x + width - left]
        frame[top : top + part.shape[0], left : left + part.shape[1]] = part
        frames.append(frame)
    return np.stack(frames)


def load_faces(folder: Path, people: int) -> list[list[np.ndarray]]:
    """`folder`/s1 ... s40 with ten pictures each (AT&T/ORL): uint8 [112, 92] per person. OSError if there are none."""
    out = []
    for i in range(1, people + 1):
        paths = sorted((folder / f"s{i}").glob("*"), key=lambda p: (len(p.name), p.name))
        pictures = [cv2.imread(str(p), cv2.IMREAD_GRAYSCALE) for p in paths]
        found = [p for p in pictures if p is not None]
        if not found:
            raise OSError(2, "no face pictures", str(folder / f"s{i}"))
        out.append(found)
    return out


class Recogniser:
    """dlib's face descriptor, with the weights of `face-recognition-models`; both are optional (pip install ruyicam[audit])."""

    def __init__(self) -> None:
        """Raises ImportError where one of them is missing."""
        import dlib

        spec = find_spec("face_recognition_models")
        if spec is None or spec.origin is None:
            raise ImportError("face_recognition_models is not installed")
        folder = Path(spec.origin).parent / "models"
        self._network = dlib.face_recognition_model_v1(str(folder / "dlib_face_recognition_resnet_model_v1.dat"))

    def describe(self, face: np.ndarray) -> np.ndarray:
        """A face uint8 [h, w] that fills the picture -> float [128]."""
        chip = cv2.resize(face, (150, 150), interpolation=cv2.INTER_CUBIC)
        return np.array(self._network.compute_face_descriptor(np.ascontiguousarray(np.repeat(chip[..., None], 3, 2))))


def _sequences(
    family: Family, faces: list[list[np.ndarray]], per_picture: int
) -> tuple[list[Views], list[torch.Tensor], np.ndarray, np.ndarray]:
    """(views, features, who, which of the person's pictures) of every sequence."""
    rng = np.random.default_rng(10)
    size = (int(family.config.input.width * 1.25), int(family.config.input.height * 1.25))
    looks, features, who, which = [], [], [], []
    for person, pictures in enumerate(faces):
        for number, picture in enumerate(pictures):
            for _ in range(per_picture if number < _KNOWN else 1):
                frames = _before_camera(picture, size, rng)
                u = frames_to_features(family, frames)
                looks.append(views_of(u, small(frames[-1:]), np.array([_TICKS - 1]), person))
                features.append(u)
                who.append(person)
                which.append(number)
    return looks, features, np.array(who), np.array(which)


def recognition(
    family: Family, releaser: Releaser, faces: list[list[np.ndarray]], seeds: int, epochs: int, per_picture: int
) -> tuple[list[Result], Gallery, str]:
    """Naming the person before the camera, who is one of those that the attacker knows.

    Returns results (read from features; recognised on reconstructions, if dlib is here; the same on the frames themselves
    as a control), the reconstructions, and why a part was left out (empty: nothing was).
    """
    count = len(faces)
    looks, features, who, which = _sequences(family, faces, per_picture)
    known, asked = np.flatnonzero(which < _KNOWN), np.flatnonzero(which >= _KNOWN)
    u = torch.stack(features)
    labels = torch.from_numpy(who)
    right = []
    for seed in range(seeds):
        torch.manual_seed(seed)
        draw = torch.Generator().manual_seed(6000 + seed)
        reader = train(
            WindowReader(u.shape[2], count),
            len(known),
            lambda i, draw=draw: releaser.draw(u[known[i.numpy()]], draw),
            naming(labels[known]),
            epochs,
            seed,
        )
        guess = run(reader, releaser.windows(u[asked].to(torch.int16))).argmax(1)
        right.append((int((guess == labels[asked]).sum()), len(asked)))
    middle = sorted(right)[len(right) // 2]
    cap = releaser.cap(1 / count, _TICKS)
    results = [
        proportion("faces: identity from features", f"top-1 of {count}", [middle], 1 / count, bound=cap,
                   note=f"faces that fill the frame; other pictures of the same people are known; the median of {seeds} seeds")
    ]  # fmt: skip
    every = joined(looks)
    gains, gallery, draw_all = decoder(
        releaser, every.at(known), every.at(asked), "faces: learned decoder", "faces that fill the frame", seeds, epochs
    )
    results += gains
    try:
        recogniser = Recogniser()
    except ImportError as error:
        return results, gallery, f"face recognition on reconstructions: {error}"
    drawn = draw_all(every.at(asked)).astype(np.uint8)
    means = np.stack([np.mean([recogniser.describe(p) for p in pictures[:_KNOWN]], axis=0) for pictures in faces])

    def named(pictures: np.ndarray) -> tuple[int, int]:
        # The face's own part of the frame.
        side = slice(PICTURE[0] // 5, -PICTURE[0] // 5)
        guesses = [np.linalg.norm(means - recogniser.describe(p[:, side]), axis=1).argmin() for p in pictures]
        return int((np.array(guesses) == who[asked]).sum()), len(asked)

    results.append(proportion("faces: recognition on reconstructions", f"top-1 of {count}", [named(drawn)], 1 / count,
                              bound=cap, note="dlib's face descriptor on the decoder's pictures"))  # fmt: skip
    control = named(every.at(asked).pictures.numpy())
    results.append(proportion("faces: recognition on the frames", f"top-1 of {count}", [control], 1 / count, profile="none"))
    return results, gallery, ""
