// One release under a key made of a seed, in a function that callgrind can count alone: kernels_release TARGET SEED.
#include <cstdlib>
#include <string>

#include "random_params.hpp"

using namespace ruyicam::kernels;

extern "C" __attribute__((noinline)) void released(Mapping& mapping, const int16_t* clipped, const uint8_t* key,
                                                   uint8_t* out, Backend backend) {
  mapping.release(clipped, key, 7, out, backend);
}

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  const std::string target = argv[1];
  const Backend backend = target == "portable" ? Backend::kPortable : Backend::kSimd;
  if (backend == Backend::kSimd) force_simd_target(target);
  std::mt19937_64 rng(1);
  Mapping mapping(random_params(rng, 12, 64, 8, 8));
  const std::vector<int16_t> clipped(mapping.features(), 3);
  std::vector<uint8_t> out(mapping.packed_bytes());
  uint8_t key[32];
  std::mt19937_64 keys(std::strtoull(argv[2], nullptr, 10));
  for (auto& k : key) k = uint8_t(keys());
  released(mapping, clipped.data(), key, out.data(), backend);
  return 0;
}
