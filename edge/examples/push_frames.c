/* Ten seconds of made-up frames through the device, as a program with a capture stack of its own would hand them over.
 *
 *   cc -std=c11 push_frames.c $(pkg-config --cflags --libs ruyicam-edge) -o push_frames
 *   ./push_frames edge.toml [FRAMES [PROGRAM]]
 */
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <ruyicam/edge.h>

enum { kWidth = 320, kHeight = 240, kRate = 20 };

int main(int argc, char **argv) {
  if (argc < 2 || argc > 4) {
    fprintf(stderr, "usage: push_frames EDGE.TOML [FRAMES [PROGRAM]]\n");
    return 2;
  }
  if (ruyicam_edge_abi() != RUYICAM_EDGE_ABI) {
    fprintf(stderr, "push_frames: the library has ABI %u, expected %u\n", ruyicam_edge_abi(), RUYICAM_EDGE_ABI);
    return 1;
  }
  const ruyicam_edge_options options = {
      .struct_size = sizeof options, .config = argv[1], .program = argc > 3 ? argv[3] : NULL, .push_frames = 1};
  char message[200];
  ruyicam_edge *device;
  if (ruyicam_edge_start(&options, &device, message, sizeof message) != RUYICAM_EDGE_OK) {
    fprintf(stderr, "push_frames: %s\n", message);
    return 1;
  }
  static uint8_t luma[kWidth * kHeight];
  const int frames = argc > 2 ? atoi(argv[2]) : 10 * kRate;
  int dropped = 0;
  ruyicam_edge_status status = RUYICAM_EDGE_OK;
  for (int i = 0; i < frames && status != RUYICAM_EDGE_ENDED; ++i) {
    memset(luma, 90, sizeof luma);
    /* A bright square crosses the picture. */
    for (int y = 80; y < 160; ++y) memset(luma + y * kWidth + i * 7 % (kWidth - 40), 220, 40);
    status = ruyicam_edge_push(device, luma, kWidth, kHeight, kWidth, (uint64_t)i * 1000000000u / kRate);
    dropped += status == RUYICAM_EDGE_BUSY;
    nanosleep(&(struct timespec){.tv_nsec = 1000000000 / kRate}, NULL);
  }
  const int code = ruyicam_edge_stop(device, 60000);
  printf("%d frames, %d dropped, exit code %d\n", frames, dropped, code);
  ruyicam_edge_free(device);
  return code;
}
