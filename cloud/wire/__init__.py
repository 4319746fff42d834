"""The wire, from the compiled description of `edge/proto/ruyicam/v1/uplink.proto` (`make proto` renews uplink.desc).

Message classes are made at run time from the description, so they fit whatever protobuf release is installed.
"""

from __future__ import annotations

from enum import IntEnum
from importlib.resources import files

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_pool = descriptor_pool.DescriptorPool()
for _file in descriptor_pb2.FileDescriptorSet.FromString(files(__package__).joinpath("uplink.desc").read_bytes()).file:
    _pool.Add(_file)

SERVICE = "ruyicam.v1.Uplink"
METHOD = "Stream"
CERTIFY = "Certify"
FETCH = "Fetch"
KNOWS = "Knows"
ENROLMENT = "ruyicam.v1.Enrolment"
ENROL = "Enrol"
BUNDLE_FILES = ("manifest.json", "manifest.sig", "edge.onnx", "mapping.safetensors")
FeaturePacket = message_factory.GetMessageClass(_pool.FindMessageTypeByName("ruyicam.v1.FeaturePacket"))
SessionCertificate = message_factory.GetMessageClass(_pool.FindMessageTypeByName("ruyicam.v1.SessionCertificate"))
Certified = message_factory.GetMessageClass(_pool.FindMessageTypeByName("ruyicam.v1.Certified"))
BundleRequest = message_factory.GetMessageClass(_pool.FindMessageTypeByName("ruyicam.v1.BundleRequest"))
BundleKnown = message_factory.GetMessageClass(_pool.FindMessageTypeByName("ruyicam.v1.BundleKnown"))
BundlePart = message_factory.GetMessageClass(_pool.FindMessageTypeByName("ruyicam.v1.BundlePart"))
EnrolmentRequest = message_factory.GetMessageClass(_pool.FindMessageTypeByName("ruyicam.v1.EnrolmentRequest"))
Enrolled = message_factory.GetMessageClass(_pool.FindMessageTypeByName("ruyicam.v1.Enrolled"))
Ack = message_factory.GetMessageClass(_pool.FindMessageTypeByName("ruyicam.v1.Ack"))


class Kind(IntEnum):
    """What a packet's features field holds."""

    WITHHELD_BY_GATE = 0
    FEATURES = 1
    WITHHELD_BY_LEDGER = 2


def packet_size(camera_id: str, packed_bytes: int) -> int:
    """Bytes of every packet of that camera and bundle: no other size is a packet."""
    packet = FeaturePacket(
        camera_id=camera_id,
        boot_id=bytes(16),
        sequence=0,
        captured_at_us=0,
        bundle_id=bytes(16),
        features=bytes(packed_bytes),
        kind=0,
        token=0,
        last=0,
        ledger_releases=0,
        ledger_bits=0.0,
    )
    return packet.ByteSize()
