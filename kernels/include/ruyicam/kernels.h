/* The kernels in C11: the feature mapping and the frame preprocessing, exact and integer, the same bits everywhere.
 *
 * - Nothing throws and nothing aborts; every call that can fail returns a status, and bad arguments change nothing.
 * - An object is used by one thread at a time; different objects are independent. After creation no call allocates,
 *   but for ruyicam_preprocessor_run when the size of the frame changes.
 * - Pointers are borrowed for the time of a call only; creation copies all constants.
 * - Formulas stand in ruyicam/kernels/mapping.hpp and ruyicam/kernels/preprocess.hpp.
 */
#ifndef RUYICAM_KERNELS_H
#define RUYICAM_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define RUYICAM_API
#else
#define RUYICAM_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Raised by changes that break callers; additions leave it as it is. */
#define RUYICAM_KERNELS_ABI 1

typedef enum ruyicam_status {
  RUYICAM_OK = 0,
  RUYICAM_INVALID = 1,   /* an argument is wrong; the message says which and what would be right */
  RUYICAM_NO_MEMORY = 2,
  RUYICAM_INTERNAL = 3   /* a bug of ours */
} ruyicam_status;

typedef enum ruyicam_backend
#ifdef __cplusplus
    /* So that any number that C passes is one that C++ may look at. */
    : int
#endif
{
  RUYICAM_SIMD = 0,      /* the best of this processor, chosen at run time */
  RUYICAM_PORTABLE = 1   /* plain C++: slow, and the truth that the other is tested against */
} ruyicam_backend;

/* RUYICAM_KERNELS_ABI of the library that is loaded; compare it with the header's at start. */
RUYICAM_API uint32_t ruyicam_kernels_abi(void);
/* Name of the instruction set that RUYICAM_SIMD uses here, for example "AVX3_VNNI"; static, never NULL. */
RUYICAM_API const char *ruyicam_kernels_target(void);

/* Constants of one mapping, as they stand in a bundle. Arrays are row-major. */
typedef struct ruyicam_mapping_params {
  size_t struct_size;         /* sizeof(ruyicam_mapping_params), so that fields can be added at the end */
  int32_t tokens;             /* T, 1 to 4096 */
  int32_t in_dim;             /* D, 1 to 1024 */
  int32_t out_dim;            /* d, 1 to 1024 */
  const int8_t *weight;       /* [d, D] */
  const int32_t *bias;        /* [d], within +-2^24 */
  const int16_t *lut;         /* [lut_size] */
  size_t lut_size;            /* a power of two, 2 to 65536 */
  const uint64_t *noise_cdf;  /* [noise_size], not falling */
  size_t noise_size;          /* even, 2 to 16384 */
  float input_scale;          /* above 0 */
  int32_t multiplier;
  int64_t round;              /* within +-2^62 */
  int32_t shift;              /* 0 to 62 */
  int32_t clip;               /* C, 1 to 2^20 */
  int32_t bits;               /* 2 to 16 */
} ruyicam_mapping_params;

typedef struct ruyicam_mapping ruyicam_mapping;

/* Creates a mapping; *out is set only on success. message, if not NULL, takes one line of at most message_size bytes with
 * its terminating zero, empty on success. */
RUYICAM_API ruyicam_status ruyicam_mapping_new(const ruyicam_mapping_params *params, ruyicam_mapping **out, char *message,
                                               size_t message_size);
/* NULL is allowed. */
RUYICAM_API void ruyicam_mapping_free(ruyicam_mapping *mapping);
/* n = T * d, features of a frame; 0 for NULL. */
RUYICAM_API size_t ruyicam_mapping_features(const ruyicam_mapping *mapping);
/* Bytes of one packed release; 0 for NULL. */
RUYICAM_API size_t ruyicam_mapping_packed_bytes(const ruyicam_mapping *mapping);

/* Steps 1 to 4. tokens: `batch` frames of T rows of D floats, frame_stride and row_stride floats apart.
 * clipped: [batch, n]. */
RUYICAM_API ruyicam_status ruyicam_mapping_project(ruyicam_mapping *mapping, const float *tokens, size_t batch,
                                                   ptrdiff_t frame_stride, ptrdiff_t row_stride, int16_t *clipped,
                                                   ruyicam_backend backend);
/* Steps 5 and 6. clipped: [batch, n]. Frame i is release number releases[i] under the 32 bytes at keys + i * key_stride
 * (key_stride 0: one key for all). A number must never be used twice with one key, or the noise cancels out.
 * packed: [batch, packed_bytes]. */
RUYICAM_API ruyicam_status ruyicam_mapping_release(ruyicam_mapping *mapping, const int16_t *clipped, size_t batch,
                                                   const uint8_t *keys, ptrdiff_t key_stride, const uint64_t *releases,
                                                   uint8_t *packed, ruyicam_backend backend);
/* All steps: what is released, and nothing in between, leaves the call. */
RUYICAM_API ruyicam_status ruyicam_mapping_run(ruyicam_mapping *mapping, const float *tokens, size_t batch,
                                               ptrdiff_t frame_stride, ptrdiff_t row_stride, const uint8_t *keys,
                                               ptrdiff_t key_stride, const uint64_t *releases, uint8_t *packed,
                                               ruyicam_backend backend);

typedef struct ruyicam_preprocessor ruyicam_preprocessor;

/* The state of one camera. width, height: the output grid, 1 to 1024; background_shift: 1 to 16; mask_floor: 0 to 4080. */
RUYICAM_API ruyicam_status ruyicam_preprocessor_new(int32_t width, int32_t height, int32_t background_shift,
                                                    int32_t mask_floor, ruyicam_preprocessor **out, char *message,
                                                    size_t message_size);
/* Wipes and frees; NULL is allowed. */
RUYICAM_API void ruyicam_preprocessor_free(ruyicam_preprocessor *preprocessor);
/* One frame. luma: frame_height rows of frame_width bytes, stride bytes apart: the first plane of NV12, I420 or GRAY8.
 * out: int8 [3, height, width]. The frame must be no smaller than the grid and at most 16384 either way. */
RUYICAM_API ruyicam_status ruyicam_preprocessor_run(ruyicam_preprocessor *preprocessor, const uint8_t *luma,
                                                    int32_t frame_width, int32_t frame_height, ptrdiff_t stride, int8_t *out,
                                                    ruyicam_backend backend);
/* Forgets all frames: the next one starts a new background. */
RUYICAM_API ruyicam_status ruyicam_preprocessor_reset(ruyicam_preprocessor *preprocessor);

#ifdef __cplusplus
}
#endif
#endif
