// ONNX Runtime operators of the domain "ruyicam": the mapping inside a graph.
//   Project: tokens float [N, T, D] -> clipped features, whole numbers in float [N, T * d]
//            attributes weight, bias, lut (ints: [d, D] row-major, [d], [L]), input_scale (float), multiplier, round, shift,
//            clip (int). All are attributes, and the output is float, because TensorRT has neither int16 nor other constants.
//   Release: clipped float [N, n] as Project gives it, key uint8 [32], release int64 [N] -> uint8 [N, ceil(n * bits / 8)]
//            attributes noise_cdf (ints [2m], the unsigned numbers' bits), bits (int); frame i is release number release[i],
//            never to be used twice with one key
// Formulas: ruyicam/kernels/mapping.hpp.
#include "ops.hpp"

#ifdef RUYICAM_ORT_SHARED
#define ORT_API_MANUAL_INIT
#endif
#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <memory>
#include <mutex>
#include <string>

#include "ruyicam/kernels/mapping.hpp"
#ifdef RUYICAM_HAVE_CUDA
#include "cuda_constants.hpp"
#endif

namespace ruyicam::kernels::onnx {
namespace {

using Shape = std::vector<int64_t>;

[[noreturn]] void refuse(const std::string& message) { throw Ort::Exception("ruyicam: " + message, ORT_INVALID_ARGUMENT); }

// An attribute of whole numbers, each of which must fit T.
template <class T>
std::vector<T> numbers(const Ort::ConstKernelInfo& info, const char* name) {
  std::vector<T> out;
  for (const int64_t value : info.GetAttributes<int64_t>(name)) {
    if (sizeof(T) < sizeof value && (value < int64_t(std::numeric_limits<T>::min()) || value > int64_t(std::numeric_limits<T>::max())))
      refuse(std::string(name) + " holds " + std::to_string(value) + ", beyond " + std::to_string(8 * sizeof(T)) + " bits");
    out.push_back(T(value));
  }
  return out;
}

int64_t whole(const Ort::ConstKernelInfo& info, const char* name) { return info.GetAttribute<int64_t>(name); }

int32_t narrow(const Ort::ConstKernelInfo& info, const char* name) {
  const int64_t value = whole(info, name);
  if (value < INT32_MIN || value > INT32_MAX) refuse(std::string(name) + " is " + std::to_string(value) + ", beyond 32 bits");
  return int32_t(value);
}

// The constants of Project for one token; how many there are, the input tells.
MappingParams project_params(const Ort::ConstKernelInfo& info) {
  MappingParams p;
  p.weight = numbers<int8_t>(info, "weight"), p.bias = numbers<int32_t>(info, "bias"), p.lut = numbers<int16_t>(info, "lut");
  if (p.bias.empty() || p.bias.size() > 1024 || p.weight.size() % p.bias.size() != 0 || p.weight.size() / p.bias.size() > 1024)
    refuse("weight must hold d rows of D numbers and bias d, 1 to 1024 each");
  p.tokens = 1, p.out_dim = int(p.bias.size()), p.in_dim = int(p.weight.size() / p.bias.size());
  p.noise_cdf = {0, UINT64_MAX};
  p.input_scale = info.GetAttribute<float>("input_scale");
  p.multiplier = narrow(info, "multiplier"), p.round = whole(info, "round"), p.shift = narrow(info, "shift");
  p.clip = narrow(info, "clip"), p.bits = 16;
  const Mapping checked(p);
  return p;
}

int tokens_of(const Shape& shape, const MappingParams& p) {
  if (shape.size() != 3 || shape[1] < 1 || shape[1] > 4096 || shape[2] != p.in_dim)
    refuse("tokens must be [N, T, " + std::to_string(p.in_dim) + "] with T from 1 to 4096");
  return int(shape[1]);
}

// Mappings that are not in use, each with room for a frame's features: a session may run in several threads, a mapping in one.
class Pool {
 public:
  explicit Pool(MappingParams params) : params_(std::move(params)) {}
  const MappingParams& params() const { return params_; }

  template <class Work>
  void with(int tokens, int out_dim, Work work) {
    std::unique_ptr<Entry> entry;
    {
      const std::lock_guard lock(mutex_);
      if (!free_.empty()) entry = std::move(free_.back()), free_.pop_back();
    }
    if (!entry || entry->mapping.params().tokens != tokens || entry->mapping.params().out_dim != out_dim) {
      MappingParams p = params_;
      p.tokens = tokens;
      if (p.out_dim != out_dim)  // Release: sizes alone matter
        p.out_dim = out_dim, p.weight.assign(size_t(out_dim), 0), p.bias.assign(size_t(out_dim), 0);
      entry = std::make_unique<Entry>(std::move(p));
    }
    work(entry->mapping, entry->features);
    const std::lock_guard lock(mutex_);
    free_.push_back(std::move(entry));
  }

 private:
  struct Entry {
    explicit Entry(MappingParams p) : mapping(std::move(p)), features(mapping.features()) {}
    Mapping mapping;
    std::vector<int16_t> features;
  };

  MappingParams params_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<Entry>> free_;
};

// What is thrown becomes a status: nothing may leave a C function.
template <class Work>
Ort::Status guarded(Work work) {
  try {
    work();
    return Ort::Status{nullptr};
  } catch (const Ort::Exception& error) {
    return Ort::Status(error.what(), error.GetOrtErrorCode());
  } catch (const std::exception& error) {
    return Ort::Status((std::string("ruyicam: ") + error.what()).c_str(), ORT_INVALID_ARGUMENT);
  }
}

class ProjectKernel {
 public:
  explicit ProjectKernel(const OrtKernelInfo* info) : pool_(project_params(Ort::ConstKernelInfo(info))) {}

  OrtStatusPtr ComputeV2(OrtKernelContext* raw) {
    return guarded([&] {
             Ort::KernelContext context(raw);
             const Ort::ConstValue tokens = context.GetInput(0);
             const Shape shape = tokens.GetTensorTypeAndShapeInfo().GetShape();
             const int t = tokens_of(shape, pool_.params()), d = pool_.params().out_dim;
             Ort::UnownedValue out = context.GetOutput(0, {shape[0], int64_t(t) * d});
             const float* from = tokens.GetTensorData<float>();
             float* to = out.GetTensorMutableData<float>();
             pool_.with(t, d, [&](Mapping& m, std::vector<int16_t>& u) {
               for (int64_t i = 0; i < shape[0]; ++i, from += shape[1] * shape[2]) {
                 m.project(from, shape[2], u.data(), Backend::kSimd);
                 to = std::copy(u.begin(), u.end(), to);
               }
             });
           })
        .release();
  }

 private:
  Pool pool_;
};

class ReleaseKernel {
 public:
  explicit ReleaseKernel(const OrtKernelInfo* info) : pool_(params(Ort::ConstKernelInfo(info))) {}

  OrtStatusPtr ComputeV2(OrtKernelContext* raw) {
    return guarded([&] {
             Ort::KernelContext context(raw);
             const Ort::ConstValue clipped = context.GetInput(0), key = context.GetInput(1), number = context.GetInput(2);
             const Shape shape = clipped.GetTensorTypeAndShapeInfo().GetShape();
             if (shape.size() != 2 || shape[1] < 1) refuse("clipped must be [N, n]");
             if (key.GetTensorTypeAndShapeInfo().GetElementCount() != 32) refuse("key must be 32 bytes");
             if (int64_t(number.GetTensorTypeAndShapeInfo().GetElementCount()) != shape[0])
               refuse("release must have a number for each of the " + std::to_string(shape[0]) + " frames");
             int64_t out_dim = std::min<int64_t>(shape[1], 1024);
             while (shape[1] % out_dim != 0) --out_dim;
             pool_.with(int(shape[1] / out_dim), int(out_dim), [&](Mapping& m, std::vector<int16_t>& u) {
               Ort::UnownedValue out = context.GetOutput(0, {shape[0], int64_t(m.packed_bytes())});
               const float* from = clipped.GetTensorData<float>();
               uint8_t* to = out.GetTensorMutableData<uint8_t>();
               for (int64_t i = 0; i < shape[0]; ++i, to += m.packed_bytes()) {
                 for (int16_t& x : u) x = feature(*from++);
                 m.release(u.data(), key.GetTensorData<uint8_t>(), uint64_t(number.GetTensorData<int64_t>()[i]), to,
                           Backend::kSimd);
               }
             });
           })
        .release();
  }

 private:
  static int16_t feature(float x) {
    if (!(x >= -32768 && x <= 32767)) refuse("clipped holds " + std::to_string(x) + ", which is no feature");
    return int16_t(x);
  }

  static MappingParams params(const Ort::ConstKernelInfo& info) {
    MappingParams p;
    p.tokens = p.in_dim = p.out_dim = 1;
    p.weight = {0}, p.bias = {0}, p.lut = {0, 0};
    p.noise_cdf = numbers<uint64_t>(info, "noise_cdf");
    p.input_scale = 1, p.clip = 1, p.bits = narrow(info, "bits");
    const Mapping checked(p);
    return p;
  }

  Pool pool_;
};

constexpr auto kFloat = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
constexpr auto kUint8 = ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;
constexpr auto kInt64 = ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;

template <class Op, class Kernel>
struct OpBase : Ort::CustomOpBase<Op, Kernel, true> {
  OrtStatusPtr CreateKernelV2(const OrtApi&, const OrtKernelInfo* info, void** kernel) const {
    return guarded([&] { *kernel = new Kernel(info); }).release();
  }
  const char* GetExecutionProviderType() const { return "CPUExecutionProvider"; }
  size_t GetOutputTypeCount() const { return 1; }
};

struct ProjectOp : OpBase<ProjectOp, ProjectKernel> {
  const char* GetName() const { return "Project"; }
  size_t GetInputTypeCount() const { return 1; }
  ONNXTensorElementDataType GetInputType(size_t) const { return kFloat; }
  ONNXTensorElementDataType GetOutputType(size_t) const { return kFloat; }
};

struct ReleaseOp : OpBase<ReleaseOp, ReleaseKernel> {
  const char* GetName() const { return "Release"; }
  size_t GetInputTypeCount() const { return 3; }
  ONNXTensorElementDataType GetInputType(size_t i) const { return std::array{kFloat, kUint8, kInt64}[i]; }
  ONNXTensorElementDataType GetOutputType(size_t) const { return kUint8; }
};

#ifdef RUYICAM_HAVE_CUDA
class CudaProjectKernel {
 public:
  explicit CudaProjectKernel(const OrtKernelInfo* info) : params_(project_params(Ort::ConstKernelInfo(info))), constants_(params_) {}

  OrtStatusPtr ComputeV2(OrtKernelContext* raw) {
    return guarded([&] {
             Ort::KernelContext context(raw);
             const Ort::ConstValue tokens = context.GetInput(0);
             const Shape shape = tokens.GetTensorTypeAndShapeInfo().GetShape();
             cuda::MappingArgs args = constants_.args();
             args.tokens = tokens_of(shape, params_);
             Ort::UnownedValue out = context.GetOutput(0, {shape[0], int64_t(args.tokens) * args.out_dim});
             const int status = cuda::project(args, tokens.GetTensorData<float>(), shape[1] * shape[2], int(shape[0]),
                                              out.GetTensorMutableData<float>(), context.GetGPUComputeStream());
             if (status != 0) refuse("CUDA error " + std::to_string(status) + " in Project");
           })
        .release();
  }

 private:
  MappingParams params_;
  cuda::Constants constants_;
};

struct CudaProjectOp : OpBase<CudaProjectOp, CudaProjectKernel> {
  const char* GetName() const { return "Project"; }
  const char* GetExecutionProviderType() const { return "CUDAExecutionProvider"; }
  size_t GetInputTypeCount() const { return 1; }
  ONNXTensorElementDataType GetInputType(size_t) const { return kFloat; }
  ONNXTensorElementDataType GetOutputType(size_t) const { return kFloat; }
};
#endif

}  // namespace
}  // namespace ruyicam::kernels::onnx

extern "C" OrtStatus* RegisterCustomOps(OrtSessionOptions* options, const OrtApiBase* base) {
#ifdef RUYICAM_ORT_SHARED
  Ort::InitApi(base->GetApi(ORT_API_VERSION));
#else
  (void)base;
#endif
  using namespace ruyicam::kernels::onnx;
  return guarded([&] {
           // They must outlive every session.
           static const ProjectOp project;
           static const ReleaseOp release;
           static const Ort::CustomOpDomain domain = [] {
             Ort::CustomOpDomain d("ruyicam");
             d.Add(&project), d.Add(&release);
#ifdef RUYICAM_HAVE_CUDA
             static const CudaProjectOp on_gpu;
             d.Add(&on_gpu);
#endif
             return d;
           }();
           Ort::UnownedSessionOptions(options).Add(domain);
         })
      .release();
}
