#include "encoder.hpp"

#include <onnxruntime_cxx_api.h>
#include <sodium.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <utility>

#include "bundle.hpp"
#include "error.hpp"
#include "hex.hpp"
#include "ops.hpp"

namespace ruyicam::edge {

struct Model::Session {
  Ort::Env env{ORT_LOGGING_LEVEL_ERROR, "ruyicam-edge"};
  std::unique_ptr<Ort::Session> ort;
};

struct Encoder::State {
  Ort::MemoryInfo memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  size_t features = 0, history = 0;
  std::array<int64_t, 4> frame_shape{};
  std::array<int64_t, 3> history_shape{};
  std::array<int64_t, 2> valid_shape{};
  std::vector<float> past;               // [window - 1, n], oldest first
  std::vector<uint8_t> valid;            // [window - 1]
  std::vector<Ort::Value> outputs;

  ~State() { sodium_memzero(past.data(), past.size() * sizeof(float)); }
};

namespace {

constexpr const char* kInputs[] = {"frame", "history", "history_valid"};
constexpr const char* kOutputs[] = {"tokens", "probabilities"};

void require_outputs(const Ort::Session& session, const Bundle& b) {
  Ort::AllocatorWithDefaultOptions allocator;
  if (session.GetInputCount() != 3 || session.GetOutputCount() != 2)
    throw Error(Exit::kBundle, "edge.onnx has other inputs or outputs than this runtime uses");
  for (size_t i = 0; i < 3; ++i)
    if (std::strcmp(session.GetInputNameAllocated(i, allocator).get(), kInputs[i]) != 0)
      throw Error(Exit::kBundle, std::string("edge.onnx lacks the input '") + kInputs[i] + "'");
  for (size_t i = 0; i < 2; ++i)
    if (std::strcmp(session.GetOutputNameAllocated(i, allocator).get(), kOutputs[i]) != 0)
      throw Error(Exit::kBundle, std::string("edge.onnx lacks the output '") + kOutputs[i] + "'");
  const auto count = [&](size_t i) {
    int64_t n = 1;
    for (const int64_t side : session.GetOutputTypeInfo(i).GetTensorTypeAndShapeInfo().GetShape()) n *= side;
    return n;
  };
  if (count(0) != int64_t(b.mapping.tokens) * b.mapping.in_dim || count(1) != int64_t(b.labels.size()))
    throw Error(Exit::kBundle, "edge.onnx gives other shapes than the manifest says");
}

constexpr std::pair<const char*, const char*> kProviders[] = {
    {"cpu", "CPUExecutionProvider"}, {"cuda", "CUDAExecutionProvider"}, {"tensorrt", "TensorrtExecutionProvider"}};

// What it cannot run itself runs on the next one down to the CPU.
void append_provider(Ort::SessionOptions& options, const EncoderOptions& wanted, const Bundle& b) {
  if (wanted.provider == "cpu") return;
  const auto have = available_providers();
  if (std::find(have.begin(), have.end(), wanted.provider) == have.end()) {
    std::string names;
    for (const std::string& name : have) names += (names.empty() ? "" : ", ") + name;
    throw Error(Exit::kUsage, "provider is '" + wanted.provider + "', but this ONNX Runtime has " + names);
  }
  const OrtApi& api = Ort::GetApi();
  try {
    if (wanted.provider == "tensorrt") {
      const std::string folder = engine_folder(wanted.engines, b);
      std::filesystem::create_directories(folder);
      OrtTensorRTProviderOptionsV2* trt = nullptr;
      Ort::ThrowOnError(api.CreateTensorRTProviderOptions(&trt));
      const std::unique_ptr<OrtTensorRTProviderOptionsV2, decltype(api.ReleaseTensorRTProviderOptions)> hold(trt, api.ReleaseTensorRTProviderOptions);
      // Building one takes minutes; the timing cache shortens it for the next bundle.
      const char* keys[] = {"trt_engine_cache_enable", "trt_engine_cache_path", "trt_timing_cache_enable", "trt_timing_cache_path", "trt_fp16_enable"};
      const char* values[] = {"1", folder.c_str(), "1", wanted.engines.c_str(), wanted.fp16 ? "1" : "0"};
      Ort::ThrowOnError(api.UpdateTensorRTProviderOptions(trt, keys, values, std::size(keys)));
      options.AppendExecutionProvider_TensorRT_V2(*trt);
    }
    OrtCUDAProviderOptionsV2* cuda = nullptr;
    Ort::ThrowOnError(api.CreateCUDAProviderOptions(&cuda));
    const std::unique_ptr<OrtCUDAProviderOptionsV2, decltype(api.ReleaseCUDAProviderOptions)> hold(cuda, api.ReleaseCUDAProviderOptions);
    options.AppendExecutionProvider_CUDA_V2(*cuda);
  } catch (const Ort::Exception& error) {
    throw Error(Exit::kUsage, "provider '" + wanted.provider + "' cannot be used here: " + error.what());
  }
}

}  // namespace

EncoderOptions encoder_options(const Config& config) { return {int(config.threads), config.provider, config.fp16, engines_of(config)}; }

std::vector<std::string> available_providers() {
  std::vector<std::string> names;
  for (const std::string& name : Ort::GetAvailableProviders())
    for (const auto& [ours, theirs] : kProviders)
      if (name == theirs) names.push_back(ours);
  return names;
}

std::string engine_folder(const std::string& engines, const Bundle& bundle) {
  std::string driver = "unknown";
  std::ifstream("/sys/module/nvidia/version") >> driver;
  return engines + "/" + hex(bundle.id) + "-" + driver;
}

Model::Model(const Bundle& b, const EncoderOptions& wanted) : session_(std::make_unique<Session>()) {
  Session& s = *session_;
  try {
    Ort::SessionOptions options;
    options.SetIntraOpNumThreads(wanted.threads);
    options.SetInterOpNumThreads(1);
    options.SetGraphOptimizationLevel(GraphOptimizationLevel::ORT_ENABLE_ALL);
    // Spinning threads burn a core that capture and decoding need.
    options.AddConfigEntry("session.intra_op.allow_spinning", "0");
    // For bundles whose graph maps with our own operators.
    Ort::ThrowOnError(RegisterCustomOps(options, OrtGetApiBase()));
    append_provider(options, wanted, b);
    s.ort = std::make_unique<Ort::Session>(s.env, b.onnx.data(), b.onnx.size(), options);
    require_outputs(*s.ort, b);
  } catch (const Ort::Exception& error) {
    throw Error(Exit::kBundle, std::string("edge.onnx cannot be loaded: ") + error.what());
  }
}

Model::~Model() = default;

Encoder::Encoder(const Model& model, const Bundle& b) : model_(model), state_(std::make_unique<State>()) {
  State& s = *state_;
  s.features = size_t(b.mapping.tokens) * size_t(b.mapping.out_dim);
  s.history = size_t(b.window - 1);
  s.frame_shape = {1, 3, b.preprocess.height, b.preprocess.width};
  s.history_shape = {1, int64_t(s.history), int64_t(s.features)};
  s.valid_shape = {1, int64_t(s.history)};
  s.past.assign(s.history * s.features, 0.0f);
  s.valid.assign(s.history, 0);
}

Encoder::~Encoder() = default;

void Encoder::run(const int8_t* frame) {
  State& s = *state_;
  const size_t pixels = size_t(s.frame_shape[1] * s.frame_shape[2] * s.frame_shape[3]);
  std::array<Ort::Value, 3> inputs{
      Ort::Value::CreateTensor<int8_t>(s.memory, const_cast<int8_t*>(frame), pixels, s.frame_shape.data(), 4),
      Ort::Value::CreateTensor<float>(s.memory, s.past.data(), s.past.size(), s.history_shape.data(), 3),
      Ort::Value::CreateTensor<bool>(s.memory, reinterpret_cast<bool*>(s.valid.data()), s.valid.size(),
                                     s.valid_shape.data(), 2)};
  try {
    s.outputs = model_.session_->ort->Run(Ort::RunOptions{nullptr}, kInputs, inputs.data(), inputs.size(), kOutputs, 2);
  } catch (const Ort::Exception& error) {
    throw Error(Exit::kBundle, std::string("edge.onnx cannot be run: ") + error.what());
  }
}

const float* Encoder::tokens() const { return state_->outputs[0].GetTensorData<float>(); }
const float* Encoder::probabilities() const { return state_->outputs[1].GetTensorData<float>(); }

void Encoder::remember(const int16_t* features) {
  State& s = *state_;
  std::memmove(s.past.data(), s.past.data() + s.features, (s.history - 1) * s.features * sizeof(float));
  std::memmove(s.valid.data(), s.valid.data() + 1, s.history - 1);
  float* newest = s.past.data() + (s.history - 1) * s.features;
  for (size_t i = 0; i < s.features; ++i) newest[i] = float(features[i]);
  s.valid[s.history - 1] = 1;
}

}  // namespace ruyicam::edge
