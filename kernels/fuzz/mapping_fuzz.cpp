// ruyicam_mapping_*: any constants and tokens. What is refused changes nothing; what is taken gives the portable bits on every
// target, within the bound.
#include <algorithm>

#include "fuzz.hpp"
#include "ruyicam/kernels.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Bytes bytes(data, size);
  const std::string target = pick_target(bytes);
  ruyicam_mapping_params p{};
  p.struct_size = sizeof p;
  p.tokens = bytes.between(-1, 40), p.in_dim = bytes.between(-1, 150), p.out_dim = bytes.between(-1, 40);
  p.lut_size = bytes.number<uint8_t>() % 4 == 0 ? bytes.number<uint16_t>() % 600 : size_t(1) << bytes.between(0, 12);
  p.noise_size = size_t(bytes.between(0, 60));
  p.input_scale = bytes.number<float>();
  if (bytes.number<uint8_t>() % 2) p.input_scale = 1.0f / float(1 << bytes.between(0, 12));
  p.multiplier = bytes.number<int32_t>() >> bytes.between(0, 31);
  p.round = bytes.number<int64_t>() >> bytes.between(0, 63);
  p.shift = bytes.between(-1, 63), p.clip = bytes.number<int32_t>() >> bytes.between(0, 31), p.bits = bytes.between(1, 17);
  const auto weight = bytes.numbers<int8_t>(size_t(std::max(p.in_dim, 1) * std::max(p.out_dim, 1)));
  auto bias = bytes.numbers<int32_t>(size_t(std::max(p.out_dim, 1)));
  for (int32_t& b : bias) b >>= 6;
  const auto lut = bytes.numbers<int16_t>(std::max<size_t>(p.lut_size, 1));
  auto cdf = bytes.numbers<uint64_t>(std::max<size_t>(p.noise_size, 1));
  if (bytes.number<uint8_t>() % 8) std::sort(cdf.begin(), cdf.end());
  p.weight = weight.data(), p.bias = bias.data(), p.lut = lut.data(), p.noise_cdf = cdf.data();

  char message[64];
  ruyicam_mapping* m = nullptr;
  const ruyicam_status status = ruyicam_mapping_new(&p, &m, message, sizeof message);
  demand((status == RUYICAM_OK) == (m != nullptr) && (status == RUYICAM_OK) == (message[0] == 0), "status and result differ");
  if (m == nullptr) return 0;
  const size_t n = ruyicam_mapping_features(m), packed = ruyicam_mapping_packed_bytes(m), batch = size_t(bytes.between(0, 2));
  const ptrdiff_t row = p.in_dim + bytes.between(0, 9), frame = p.tokens * row + bytes.between(0, 5);
  const auto tokens = bytes.numbers<float>(batch * size_t(frame) + 1);
  const auto keys = bytes.numbers<uint8_t>(32 * 2);
  const auto releases = bytes.numbers<uint64_t>(2);
  std::vector<int16_t> a(batch * n), b(a);
  std::vector<uint8_t> x(batch * packed), y(x);
  const auto both = [&](std::vector<int16_t>& u, std::vector<uint8_t>& z, ruyicam_backend backend) {
    demand(!ruyicam_mapping_project(m, tokens.data(), batch, frame, row, u.data(), backend), "project failed");
    demand(!ruyicam_mapping_run(m, tokens.data(), batch, frame, row, keys.data(), 32, releases.data(), z.data(), backend), "run failed");
  };
  both(a, x, RUYICAM_PORTABLE), both(b, y, RUYICAM_SIMD);
  demand(a == b, "features differ on " + target);
  demand(x == y, "packets differ on " + target);
  demand(!ruyicam_mapping_release(m, a.data(), batch, keys.data(), 32, releases.data(), y.data(), RUYICAM_SIMD) && x == y,
         "run is not project and release on " + target);
  for (size_t i = 0; i < batch; ++i) {
    int64_t sum = 0;
    for (size_t k = 0; k < n; ++k) sum += int64_t(a[i * n + k]) * a[i * n + k];
    demand(sum <= int64_t(p.clip) * p.clip, "the bound is exceeded");
  }
  ruyicam_mapping_free(m);
  return 0;
}
