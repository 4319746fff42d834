// ChaCha20 key stream (RFC 8439, section 2.3): 256-bit key, 96-bit nonce, 32-bit block counter.
#pragma once
#include <cstddef>
#include <cstdint>

namespace ruyicam::kernels {

// One 64-byte block of key stream. key: 32 bytes, nonce: 12 bytes.
void chacha20_block(const uint8_t* key, const uint8_t* nonce, uint32_t counter, uint8_t out[64]);

// `count` 64-bit words of key stream for release number `release`: nonce = 4 zero bytes, then the
// release number as 8 little-endian bytes; block counter from 0; words read little-endian.
void noise_words(const uint8_t* key, uint64_t release, uint64_t* words, size_t count);

}  // namespace ruyicam::kernels
