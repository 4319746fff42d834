// ruyicam_preprocessor_*: any grid and frames of any size, stride and content, sizes changing on the way. Equal bits on every
// target.
#include "fuzz.hpp"
#include "ruyicam/kernels.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Bytes bytes(data, size);
  const std::string target = pick_target(bytes);
  const int width = bytes.between(0, 200), height = bytes.between(0, 40), shift = bytes.between(0, 17), floor = bytes.between(-1, 4081);
  char message[64];
  ruyicam_preprocessor *plain = nullptr, *fast = nullptr;
  const ruyicam_status status = ruyicam_preprocessor_new(width, height, shift, floor, &plain, message, sizeof message);
  demand(status == ruyicam_preprocessor_new(width, height, shift, floor, &fast, message, sizeof message), "not the same twice");
  demand((status == RUYICAM_OK) == (plain != nullptr && fast != nullptr), "status and result differ");
  if (plain == nullptr) return 0;
  std::vector<int8_t> a(size_t(3 * width * height)), b(a);
  int w = bytes.between(0, 500), h = bytes.between(0, 100);
  for (int i = 0; i < 4; ++i) {
    if (bytes.number<uint8_t>() % 4 == 0) w = bytes.between(0, 1200), h = bytes.between(0, 60);
    // At a distance from the allocation's start that is no multiple of anything.
    const int stride = w + bytes.between(0, 70), offset = bytes.between(0, 17);
    std::vector<uint8_t> frame(size_t(offset) + size_t(stride) * size_t(h) + 1);
    uint32_t state = bytes.number<uint32_t>();
    for (auto& pixel : frame) pixel = uint8_t((state = state * 1664525u + 1013904223u) >> 24);
    if (bytes.number<uint8_t>() % 4 == 0) std::fill(frame.begin(), frame.end(), bytes.number<uint8_t>());
    // The last row ends where its pixels end.
    if (h > 0) frame.resize(size_t(offset) + size_t(stride) * size_t(h - 1) + size_t(w)), frame.shrink_to_fit();
    const auto one = ruyicam_preprocessor_run(plain, frame.data() + offset, w, h, stride, a.data(), RUYICAM_PORTABLE);
    const auto two = ruyicam_preprocessor_run(fast, frame.data() + offset, w, h, stride, b.data(), RUYICAM_SIMD);
    demand(one == two && (one == RUYICAM_OK) == (w >= width && h >= height), "a frame is taken or refused wrongly");
    demand(a == b, "inputs differ on " + target);
    if (bytes.number<uint8_t>() % 8 == 0) ruyicam_preprocessor_reset(plain), ruyicam_preprocessor_reset(fast);
  }
  ruyicam_preprocessor_free(plain), ruyicam_preprocessor_free(fast);
  return 0;
}
