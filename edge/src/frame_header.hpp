// What precedes every frame that a program hands to the device on a descriptor (`source` "frames:FD"), on the same machine.
#pragma once
#include <cstdint>

namespace ruyicam::edge {

struct FrameHeader {
  static constexpr uint64_t kMagic = 0x314d415246595552;  // "RUYFRAM1"
  static constexpr uint32_t kLeastSide = 16, kMostSide = 8192;
  uint64_t magic = kMagic;
  uint32_t width = 0, height = 0;
  uint64_t time_ns = 0;
};

}  // namespace ruyicam::edge
