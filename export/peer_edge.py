"""What `ruyicam bench edge` compares the device with: its job as a plain loop of OpenCV, ONNX Runtime, NumPy and gRPC.

A process of its own, `python -m ruyicam.export.peer_edge FILE`, with a JSON object of options in FILE; prints one of figures.
It has no isolation, no ledger and no gate that closes, which all would cost it more.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
import zlib
from pathlib import Path

import cv2
import grpc
import numpy as np
import onnxruntime
from safetensors.numpy import load_file

from ruyicam.cloud.wire import METHOD, SERVICE, Ack, FeaturePacket

from .opencv_peer import OpenCv


class PlainMapping:
    """Steps 1 to 6 of the mapping in vectorised NumPy."""

    def __init__(self, manifest: dict, tensors: dict[str, np.ndarray]):
        self.m, self.t = manifest["mapping"], tensors
        self.weight = tensors["weight"].astype(np.int32)

    def project(self, tokens: np.ndarray) -> np.ndarray:
        """float [T, D] -> clipped features int64 [n]."""
        q = np.clip(np.rint(tokens / np.float32(self.m["input_scale"])), -127, 127).astype(np.int32)
        a = (q @ self.weight.T + self.t["bias"]).astype(np.int64)
        lut = self.t["lut"]
        u = (
            lut[np.clip((a * self.m["multiplier"] + self.m["round"]) >> self.m["shift"], 0, len(lut) - 1)]
            .ravel()
            .astype(np.int64)
        )
        total, clip = int((u * u).sum()), self.m["clip"]
        if total > clip * clip:
            factor = int(clip * 65536 / (total**0.5 + 1))
            u = np.sign(u) * (np.abs(u) * factor >> 16)
        return u

    def release(self, u: np.ndarray) -> bytes:
        """Noise, saturation and packing."""
        words = np.frombuffer(os.urandom(8 * len(u)), np.uint64)
        z = u + np.searchsorted(self.t["noise_cdf"], words, side="right") - len(self.t["noise_cdf"]) // 2
        bits = self.m["bits"]
        z = np.clip(z, -(1 << bits - 1), (1 << bits - 1) - 1) + (1 << bits - 1)
        return np.packbits((z[:, None] >> np.arange(bits)) & 1, bitorder="little").tobytes()


def uplink(options: dict, packets: queue.Queue) -> None:
    """Sends what comes until None does, and reads the acknowledgements."""
    pem = {name: Path(options[name]).read_bytes() for name in ("ca", "key", "cert")}
    with grpc.secure_channel(options["server"], grpc.ssl_channel_credentials(pem["ca"], pem["key"], pem["cert"])) as channel:
        call = channel.stream_stream(f"/{SERVICE}/{METHOD}", response_deserializer=Ack.FromString)
        for _ in call(iter(packets.get, None)):
            pass


def main(options: dict) -> dict:
    """Plays the clips and returns {"latency_us": [of every tick], "ticks", "frames"}."""
    cv2.setNumThreads(1)
    bundle = Path(options["bundle"])
    manifest = json.loads((bundle / "manifest.json").read_text())
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(bundle / "edge.onnx"), settings, providers=["CPUExecutionProvider"])
    mapping = PlainMapping(manifest, load_file(bundle / "mapping.safetensors"))
    sizes = {k: v for k, v in manifest["input"].items() if k != "rate_hz"}
    preprocess, rate = OpenCv(**sizes), manifest["input"]["rate_hz"]
    n = manifest["features"]["tokens"] * manifest["features"]["out_dim"]
    window = manifest["features"]["window"]
    history, valid = np.zeros((1, window - 1, n), np.float32), np.zeros((1, window - 1), bool)
    packets: queue.Queue = queue.Queue()
    sender = threading.Thread(target=uplink, args=(options, packets))
    sender.start()
    boot, took, frames, tick, begin = os.urandom(16), [], 0, -1, time.monotonic()
    with open(options["spool"], "ab", buffering=0) as spool:
        for clip in options["clips"]:
            video = cv2.VideoCapture(clip)
            while True:
                more, picture = video.read()
                if not more:
                    break
                at = frames / options["fps"]
                frames += 1
                if options["realtime"] and (wait := begin + at - time.monotonic()) > 0:
                    time.sleep(wait)
                if int(at * rate) <= tick:
                    continue
                tick = int(at * rate)
                start = time.perf_counter()
                frame = preprocess.process(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY))
                tokens, p = session.run(None, {"frame": frame[None], "history": history, "history_valid": valid})
                u = mapping.project(tokens)
                history = np.concatenate([history[:, 1:], u[None, None].astype(np.float32)], 1)
                valid = np.concatenate([valid[:, 1:], np.ones((1, 1), bool)], 1)
                raw = FeaturePacket(
                    camera_id=options["camera_id"],
                    boot_id=boot,
                    sequence=tick,
                    captured_at_us=time.time_ns() // 1000,
                    bundle_id=bytes(16),
                    features=mapping.release(u),
                    kind=1,
                    token=int(p.argmax()),
                    last=0,
                    ledger_releases=tick,
                    ledger_bits=0.0,
                ).SerializeToString()
                spool.write(len(raw).to_bytes(4, "little") + zlib.crc32(raw).to_bytes(4, "little") + raw)
                os.fdatasync(spool.fileno())
                packets.put(raw)
                took.append(1e6 * (time.perf_counter() - start))
    packets.put(None)
    sender.join()
    return {"latency_us": took, "ticks": len(took), "frames": frames}


if __name__ == "__main__":
    print(json.dumps(main(json.loads(Path(sys.argv[1]).read_text()))))
