// What the server sends, and packets from the spool: protobuf's parser, and what is done with the answer.
#include "fuzz.hpp"
#include "ruyicam/v1/uplink.pb.h"

using namespace ruyicam;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto again = [&](auto message) {
    if (!message.ParseFromArray(data, int(size))) return;
    std::string bytes;
    fuzz::demand(message.SerializeToString(&bytes), "what was read cannot be written");
    decltype(message) copy;
    fuzz::demand(copy.ParseFromString(bytes) && copy.SerializeAsString() == bytes, "what was written reads as something else");
  };
  again(v1::Ack()), again(v1::FeaturePacket()), again(v1::BundlePart()), again(v1::BundleKnown()), again(v1::Certified());
  return 0;
}
