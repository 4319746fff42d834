/* The device runtime in C11: start it from a program of your own, and hand it frames of your own capture.
 *
 * - The runtime is not loaded into the program: it is started as ruyicam-edge, in processes that are isolated as always
 *   (docs/privacy.md). This library starts it, hands it luma, starts it again after an update, and ends it.
 * - Frames that this program captures are in this program's memory; keeping them from the network is its task.
 * - Nothing throws and nothing aborts; every call that can fail returns a status, and bad arguments change nothing.
 * - A handle is used by one thread at a time. SIGPIPE is not raised by this library.
 */
#ifndef RUYICAM_EDGE_H
#define RUYICAM_EDGE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define RUYICAM_EDGE_API __attribute__((visibility("default")))

/* Raised by changes that break callers; additions leave it as it is. */
#define RUYICAM_EDGE_ABI 1

typedef enum ruyicam_edge_status {
  RUYICAM_EDGE_OK = 0,
  RUYICAM_EDGE_INVALID = 1,  /* an argument is wrong; the message says which and what would be right */
  RUYICAM_EDGE_SYSTEM = 2,   /* the system refuses: no such program, no process, no pipe */
  RUYICAM_EDGE_BUSY = 3,     /* the device is behind: this frame was dropped, the next may be taken */
  RUYICAM_EDGE_ENDED = 4     /* the device has ended; see ruyicam_edge_exit_code */
} ruyicam_edge_status;

typedef struct ruyicam_edge ruyicam_edge;

typedef struct ruyicam_edge_options {
  size_t struct_size;    /* sizeof(ruyicam_edge_options), so that fields can be added at the end */
  const char *config;    /* edge.toml; `source` and `source_retry` in it are not used when push_frames is set */
  const char *program;   /* ruyicam-edge; NULL: the one on PATH */
  const char *stats;     /* JSON file for the figures of the run, written at its end; NULL: what config says */
  int32_t push_frames;   /* 1: frames come from ruyicam_edge_push; 0: from the source that config names */
} ruyicam_edge_options;

/* RUYICAM_EDGE_ABI of the library that is loaded; compare it with the header's at start. */
RUYICAM_EDGE_API uint32_t ruyicam_edge_abi(void);

/* Starts the device and returns at once. What is wrong with its configuration shows as RUYICAM_EDGE_ENDED a moment later, its
 * reason as one line on stderr. Strings are copied. message [message_size]: one line if it fails; may be NULL. */
RUYICAM_EDGE_API ruyicam_edge_status ruyicam_edge_start(const ruyicam_edge_options *options, ruyicam_edge **device, char *message,
                                                        size_t message_size);

/* Hands over one frame: luma, uint8 [height] rows of `width` bytes, `stride` bytes apart; 16 to 8192 each. time_ns: any clock
 * that rises; a tick takes its first frame. Copies before it returns. Takes at most a second, of which the device is
 * reading the frame; a frame that finds it behind is dropped at once. A size may change from frame to frame. */
RUYICAM_EDGE_API ruyicam_edge_status ruyicam_edge_push(ruyicam_edge *device, const uint8_t *luma, int32_t width, int32_t height,
                                                       ptrdiff_t stride, uint64_t time_ns);

/* RUYICAM_EDGE_OK while it runs. After an update it is started again here and in ruyicam_edge_push. */
RUYICAM_EDGE_API ruyicam_edge_status ruyicam_edge_check(ruyicam_edge *device);

/* The exit code of a device that has ended (README, "Exit codes"); 128 + the signal that ended it; -1 while it runs. */
RUYICAM_EDGE_API int ruyicam_edge_exit_code(const ruyicam_edge *device);

/* Ends the device: what was pushed is still released, and what the server has not acknowledged stays in the spool. Waits up
 * to timeout_ms, then kills it. Returns its exit code as above. NULL: 0. The handle stays valid. */
RUYICAM_EDGE_API int ruyicam_edge_stop(ruyicam_edge *device, int32_t timeout_ms);

/* Stops it if it runs, and frees the handle. NULL is taken. */
RUYICAM_EDGE_API void ruyicam_edge_free(ruyicam_edge *device);

#ifdef __cplusplus
}
#endif
#endif
