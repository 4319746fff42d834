/* From two luma frames to released bytes, in C: the whole hot path without an encoder, whose place made-up tokens take.
 *
 *   cc -std=c11 map_frames.c $(pkg-config --cflags --libs ruyicam-kernels) -o map_frames
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <ruyicam/kernels.h>

enum { kTokens = 12, kIn = 64, kOut = 8, kWidth = 320, kHeight = 240, kGridWidth = 192, kGridHeight = 144 };

int main(void) {
  if (ruyicam_kernels_abi() != RUYICAM_KERNELS_ABI) {
    fprintf(stderr, "map_frames: the library has ABI %u, expected %u\n", ruyicam_kernels_abi(), RUYICAM_KERNELS_ABI);
    return 1;
  }
  static int8_t weight[kOut * kIn];
  static int32_t bias[kOut];
  static int16_t lut[256];
  for (int i = 0; i < kOut * kIn; ++i) weight[i] = (int8_t)(i * 37 % 255 - 127);
  for (int i = 0; i < 256; ++i) lut[i] = (int16_t)((i - 128) * 48 / 128);
  /* A bundle brings the real table; this one draws -1, 0 or 1, each about as often. */
  const uint64_t third = UINT64_MAX / 3;
  const uint64_t noise_cdf[2] = {third, 2 * third};
  const ruyicam_mapping_params params = {
      .struct_size = sizeof params, .tokens = kTokens, .in_dim = kIn, .out_dim = kOut, .weight = weight, .bias = bias,
      .lut = lut, .lut_size = 256, .noise_cdf = noise_cdf, .noise_size = 2, .input_scale = 1.0f / 32, .multiplier = 1280,
      .round = 1 << 15, .shift = 16, .clip = 304, .bits = 8};
  char message[200];
  ruyicam_mapping *mapping = NULL;
  ruyicam_preprocessor *preprocessor = NULL;
  if (ruyicam_mapping_new(&params, &mapping, message, sizeof message) != RUYICAM_OK ||
      ruyicam_preprocessor_new(kGridWidth, kGridHeight, 6, 64, &preprocessor, message, sizeof message) != RUYICAM_OK) {
    fprintf(stderr, "map_frames: %s\n", message);
    return 1;
  }

  static uint8_t luma[kWidth * kHeight];
  static int8_t input[3 * kGridWidth * kGridHeight];
  for (int frame = 0; frame < 2; ++frame) {
    memset(luma, 80, sizeof luma);
    for (int y = 100; y < 160; ++y) memset(luma + y * kWidth + 100 + 8 * frame, 200, 40);
    if (ruyicam_preprocessor_run(preprocessor, luma, kWidth, kHeight, kWidth, input, RUYICAM_SIMD) != RUYICAM_OK) return 1;
  }
  int moving = 0;
  for (int i = 0; i < kGridWidth * kGridHeight; ++i) moving += input[kGridWidth * kGridHeight + i] != 0;

  static float tokens[kTokens * kIn];
  for (int i = 0; i < kTokens * kIn; ++i) tokens[i] = (float)(i % 17 - 8) / 8;
  uint8_t key[32] = {0}; /* take 32 bytes of getrandom() */
  const uint64_t release = 0;
  uint8_t *packed = malloc(ruyicam_mapping_packed_bytes(mapping));
  if (packed == NULL || ruyicam_mapping_run(mapping, tokens, 1, 0, kIn, key, 0, &release, packed, RUYICAM_SIMD) != RUYICAM_OK)
    return 1;
  printf("%s: %d cells moved, %zu features in %zu bytes\n", ruyicam_kernels_target(), moving,
         ruyicam_mapping_features(mapping), ruyicam_mapping_packed_bytes(mapping));
  free(packed);
  ruyicam_preprocessor_free(preprocessor);
  ruyicam_mapping_free(mapping);
  return 0;
}
