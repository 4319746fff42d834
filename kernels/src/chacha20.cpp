#include "ruyicam/kernels/chacha20.hpp"

#include <bit>
#include <cstring>

#include "chacha20_state.hpp"

namespace ruyicam::kernels {
namespace {

void quarter_round(uint32_t& a, uint32_t& b, uint32_t& c, uint32_t& d) {
  a += b; d ^= a; d = std::rotl(d, 16);
  c += d; b ^= c; b = std::rotl(b, 12);
  a += b; d ^= a; d = std::rotl(d, 8);
  c += d; b ^= c; b = std::rotl(b, 7);
}

}  // namespace

void chacha20_block(const uint8_t* key, const uint8_t* nonce, uint32_t counter, uint8_t out[64]) {
  uint32_t state[16];
  chacha20_state(key, nonce, counter, state);
  uint32_t x[16];
  std::memcpy(x, state, sizeof x);
  for (int round = 0; round < 10; ++round) {
    quarter_round(x[0], x[4], x[8], x[12]);
    quarter_round(x[1], x[5], x[9], x[13]);
    quarter_round(x[2], x[6], x[10], x[14]);
    quarter_round(x[3], x[7], x[11], x[15]);
    quarter_round(x[0], x[5], x[10], x[15]);
    quarter_round(x[1], x[6], x[11], x[12]);
    quarter_round(x[2], x[7], x[8], x[13]);
    quarter_round(x[3], x[4], x[9], x[14]);
  }
  for (int i = 0; i < 16; ++i) {
    const uint32_t v = x[i] + state[i];
    for (int b = 0; b < 4; ++b) out[4 * i + b] = uint8_t(v >> (8 * b));
  }
}

void noise_words(const uint8_t* key, uint64_t release, uint64_t* words, size_t count) {
  uint8_t nonce[12] = {};
  for (int b = 0; b < 8; ++b) nonce[4 + b] = uint8_t(release >> (8 * b));
  uint8_t block[64];
  uint32_t counter = 0;
  for (size_t i = 0; i < count; i += 8, ++counter) {
    chacha20_block(key, nonce, counter, block);
    for (size_t k = 0; k < 8 && i + k < count; ++k)
      words[i + k] = uint64_t(load32(block + 8 * k)) | uint64_t(load32(block + 8 * k + 4)) << 32;
  }
}

}  // namespace ruyicam::kernels
