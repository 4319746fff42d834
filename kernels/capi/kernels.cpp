// The C API over the C++ classes: checks what C cannot, and lets no exception out.
#include "ruyicam/kernels.h"

#include <cstdio>
#include <exception>
#include <new>
#include <stdexcept>
#include <string>

#include "ruyicam/kernels/mapping.hpp"
#include "ruyicam/kernels/preprocess.hpp"

using namespace ruyicam::kernels;

struct ruyicam_mapping {
  Mapping mapping;
};
struct ruyicam_preprocessor {
  Preprocessor preprocessor;
};

namespace {

void say(char* message, size_t size, const char* text) {
  if (message != nullptr && size > 0) std::snprintf(message, size, "%s", text);
}

template <class Work>
ruyicam_status guarded(char* message, size_t size, Work work) {
  try {
    say(message, size, "");
    work();
    return RUYICAM_OK;
  } catch (const std::invalid_argument& error) {
    say(message, size, error.what());
    return RUYICAM_INVALID;
  } catch (const std::bad_alloc&) {
    say(message, size, "out of memory");
    return RUYICAM_NO_MEMORY;
  } catch (const std::exception& error) {
    say(message, size, error.what());
    return RUYICAM_INTERNAL;
  } catch (...) {
    say(message, size, "unknown error");
    return RUYICAM_INTERNAL;
  }
}

template <class Work>
ruyicam_status guarded(Work work) {
  return guarded(nullptr, 0, work);
}

void need(bool ok, const char* what) {
  if (!ok) throw std::invalid_argument(what);
}

Backend backend_of(ruyicam_backend backend) {
  need(backend == RUYICAM_SIMD || backend == RUYICAM_PORTABLE, "backend is unknown");
  return backend == RUYICAM_SIMD ? Backend::kSimd : Backend::kPortable;
}

MappingParams params_of(const ruyicam_mapping_params& p) {
  need(p.struct_size >= sizeof p, "params.struct_size is smaller than this library's: set it to sizeof params");
  need(p.weight && p.bias && p.lut && p.noise_cdf, "params.weight, bias, lut and noise_cdf must not be NULL");
  // Sizes come before the copies that rely on them; everything else the C++ class checks.
  need(p.in_dim >= 1 && p.in_dim <= 1024 && p.out_dim >= 1 && p.out_dim <= 1024, "params.in_dim and out_dim must be 1 to 1024");
  need(p.lut_size <= 65536, "params.lut_size must be at most 65536");
  need(p.noise_size <= 16384, "params.noise_size must be at most 16384");
  const size_t out = size_t(p.out_dim);
  return {p.tokens, p.in_dim, p.out_dim, {p.weight, p.weight + out * size_t(p.in_dim)}, {p.bias, p.bias + out},
          {p.lut, p.lut + p.lut_size}, {p.noise_cdf, p.noise_cdf + p.noise_size}, p.input_scale, p.multiplier, p.round,
          p.shift, p.clip, p.bits};
}

}  // namespace

extern "C" {

uint32_t ruyicam_kernels_abi(void) { return RUYICAM_KERNELS_ABI; }

const char* ruyicam_kernels_target(void) {
  try {
    static const std::string name = simd_targets().empty() ? "" : simd_targets().front();
    return name.c_str();
  } catch (...) {
    return "";
  }
}

ruyicam_status ruyicam_mapping_new(const ruyicam_mapping_params* params, ruyicam_mapping** out, char* message, size_t size) {
  return guarded(message, size, [&] {
    need(params != nullptr && out != nullptr, "params and out must not be NULL");
    *out = new ruyicam_mapping{Mapping(params_of(*params))};
  });
}

void ruyicam_mapping_free(ruyicam_mapping* m) { delete m; }
size_t ruyicam_mapping_features(const ruyicam_mapping* m) { return m ? m->mapping.features() : 0; }
size_t ruyicam_mapping_packed_bytes(const ruyicam_mapping* m) { return m ? m->mapping.packed_bytes() : 0; }

ruyicam_status ruyicam_mapping_project(ruyicam_mapping* m, const float* tokens, size_t batch, ptrdiff_t frame_stride,
                                       ptrdiff_t row_stride, int16_t* clipped, ruyicam_backend backend) {
  return guarded([&] {
    need(m && (batch == 0 || (tokens && clipped)), "no pointer may be NULL");
    m->mapping.project(tokens, batch, frame_stride, row_stride, clipped, backend_of(backend));
  });
}

ruyicam_status ruyicam_mapping_release(ruyicam_mapping* m, const int16_t* clipped, size_t batch, const uint8_t* keys,
                                       ptrdiff_t key_stride, const uint64_t* releases, uint8_t* packed,
                                       ruyicam_backend backend) {
  return guarded([&] {
    need(m && (batch == 0 || (clipped && keys && releases && packed)), "no pointer may be NULL");
    m->mapping.release(clipped, batch, keys, key_stride, releases, packed, backend_of(backend));
  });
}

ruyicam_status ruyicam_mapping_run(ruyicam_mapping* m, const float* tokens, size_t batch, ptrdiff_t frame_stride,
                                   ptrdiff_t row_stride, const uint8_t* keys, ptrdiff_t key_stride, const uint64_t* releases,
                                   uint8_t* packed, ruyicam_backend backend) {
  return guarded([&] {
    need(m && (batch == 0 || (tokens && keys && releases && packed)), "no pointer may be NULL");
    m->mapping.map(tokens, batch, frame_stride, row_stride, keys, key_stride, releases, packed, backend_of(backend));
  });
}

ruyicam_status ruyicam_preprocessor_new(int32_t width, int32_t height, int32_t background_shift, int32_t mask_floor,
                                        ruyicam_preprocessor** out, char* message, size_t size) {
  return guarded(message, size, [&] {
    need(out != nullptr, "out must not be NULL");
    *out = new ruyicam_preprocessor{Preprocessor({width, height, background_shift, mask_floor})};
  });
}

void ruyicam_preprocessor_free(ruyicam_preprocessor* p) { delete p; }

ruyicam_status ruyicam_preprocessor_run(ruyicam_preprocessor* p, const uint8_t* luma, int32_t width, int32_t height,
                                        ptrdiff_t stride, int8_t* out, ruyicam_backend backend) {
  return guarded([&] {
    need(p && luma && out, "no pointer may be NULL");
    p->preprocessor.process(luma, width, height, stride, out, backend_of(backend));
  });
}

ruyicam_status ruyicam_preprocessor_reset(ruyicam_preprocessor* p) {
  return guarded([&] {
    need(p != nullptr, "preprocessor must not be NULL");
    p->preprocessor.reset();
  });
}

}  // extern "C"
