// TensorRT's plugin for `ruyicam::Project` (see kernels/onnx/ops.cpp, whose attributes it takes): the ONNX parser finds it by
// the node's name once this library is loaded (`trtexec --dynamicPlugins=libruyicam-trt.so`, or dlopen before parsing).
// TensorRT 10 or newer, IPluginV3.
#include <NvInferRuntime.h>

#include <cstdint>
#include <cstring>
#include <exception>
#include <memory>
#include <string>
#include <vector>

#include "cuda_constants.hpp"
#include "ruyicam/kernels/mapping.hpp"

namespace ruyicam::kernels::tensorrt {
namespace {

using nvinfer1::DataType;
using nvinfer1::PluginField;
using nvinfer1::PluginFieldCollection;
using nvinfer1::PluginFieldType;

constexpr const char* kName = "Project";
constexpr const char* kVersion = "1";
constexpr const char* kNamespace = "";

// What the node's attributes and the engine file hold; kept whole, so that a plugin can be cloned and written.
struct Fields {
  std::vector<int32_t> weight, bias, lut;
  float input_scale = 0;
  int32_t multiplier = 0, shift = 0, clip = 0;
  int64_t round = 0;

  template <class Each>
  void visit(Each each) {
    each("weight", PluginFieldType::kINT32, weight);
    each("bias", PluginFieldType::kINT32, bias);
    each("lut", PluginFieldType::kINT32, lut);
    each("input_scale", PluginFieldType::kFLOAT32, input_scale);
    each("multiplier", PluginFieldType::kINT32, multiplier);
    each("round", PluginFieldType::kINT64, round);
    each("shift", PluginFieldType::kINT32, shift);
    each("clip", PluginFieldType::kINT32, clip);
  }

  template <class T>
  static std::vector<T> narrow(const std::vector<int32_t>& from, const char* name) {
    std::vector<T> out;
    for (const int32_t value : from) {
      if (value != int32_t(T(value))) throw std::invalid_argument(std::string(name) + " holds numbers that are too large");
      out.push_back(T(value));
    }
    return out;
  }

  // Constants for one token; how many there are, the input tells. Throws std::invalid_argument.
  MappingParams params() const {
    MappingParams p;
    if (bias.empty() || weight.size() % bias.size() != 0) throw std::invalid_argument("weight must hold d rows, bias d numbers");
    p.tokens = 1, p.out_dim = int(bias.size()), p.in_dim = int(weight.size() / bias.size());
    p.weight = narrow<int8_t>(weight, "weight"), p.bias = bias, p.lut = narrow<int16_t>(lut, "lut");
    p.noise_cdf = {0, UINT64_MAX};
    p.input_scale = input_scale, p.multiplier = multiplier, p.round = round, p.shift = shift, p.clip = clip, p.bits = 16;
    const Mapping checked(p);
    return p;
  }
};

void say(const char* what) {
  if (nvinfer1::ILogger* logger = getLogger()) logger->log(nvinfer1::ILogger::Severity::kERROR, what);
}

class Project : public nvinfer1::IPluginV3,
                public nvinfer1::IPluginV3OneCore,
                public nvinfer1::IPluginV3OneBuild,
                public nvinfer1::IPluginV3OneRuntime {
 public:
  explicit Project(Fields fields) : fields_(std::move(fields)), params_(fields_.params()) {}

  nvinfer1::IPluginCapability* getCapabilityInterface(nvinfer1::PluginCapabilityType type) noexcept override {
    switch (type) {
      case nvinfer1::PluginCapabilityType::kCORE: return static_cast<nvinfer1::IPluginV3OneCore*>(this);
      case nvinfer1::PluginCapabilityType::kBUILD: return static_cast<nvinfer1::IPluginV3OneBuild*>(this);
      case nvinfer1::PluginCapabilityType::kRUNTIME: return static_cast<nvinfer1::IPluginV3OneRuntime*>(this);
    }
    return nullptr;
  }
  nvinfer1::IPluginV3* clone() noexcept override { return copy(); }
  nvinfer1::IPluginV3* attachToContext(nvinfer1::IPluginResourceContext*) noexcept override { return copy(); }

  const char* getPluginName() const noexcept override { return kName; }
  const char* getPluginVersion() const noexcept override { return kVersion; }
  const char* getPluginNamespace() const noexcept override { return kNamespace; }

  int32_t getNbOutputs() const noexcept override { return 1; }
  int32_t getOutputDataTypes(DataType* out, int32_t, const DataType*, int32_t) const noexcept override {
    out[0] = DataType::kFLOAT;
    return 0;
  }
  int32_t getOutputShapes(const nvinfer1::DimsExprs* in, int32_t, const nvinfer1::DimsExprs*, int32_t,
                          nvinfer1::DimsExprs* out, int32_t, nvinfer1::IExprBuilder& builder) noexcept override {
    out[0].nbDims = 2;
    out[0].d[0] = in[0].d[0];
    out[0].d[1] = builder.operation(nvinfer1::DimensionOperation::kPROD, *in[0].d[1], *builder.constant(params_.out_dim));
    return 0;
  }
  bool supportsFormatCombination(int32_t at, const nvinfer1::DynamicPluginTensorDesc* tensors, int32_t, int32_t) noexcept override {
    return tensors[at].desc.type == DataType::kFLOAT && tensors[at].desc.format == nvinfer1::TensorFormat::kLINEAR;
  }
  int32_t configurePlugin(const nvinfer1::DynamicPluginTensorDesc* in, int32_t, const nvinfer1::DynamicPluginTensorDesc*,
                          int32_t) noexcept override {
    return check(in[0].desc);
  }
  int32_t onShapeChange(const nvinfer1::PluginTensorDesc* in, int32_t, const nvinfer1::PluginTensorDesc*, int32_t) noexcept override {
    return check(in[0]);
  }

  int32_t enqueue(const nvinfer1::PluginTensorDesc* in, const nvinfer1::PluginTensorDesc*, const void* const* inputs,
                  void* const* outputs, void*, cudaStream_t stream) noexcept override try {
    // On the device of this context, at its first use.
    if (!constants_) constants_ = std::make_unique<cuda::Constants>(params_);
    cuda::MappingArgs args = constants_->args();
    args.tokens = int(in[0].dims.d[1]);
    return cuda::project(args, static_cast<const float*>(inputs[0]), ptrdiff_t(args.tokens) * args.in_dim,
                         int(in[0].dims.d[0]), static_cast<float*>(outputs[0]), stream);
  } catch (const std::exception& error) {
    say(error.what());
    return 1;
  }

  const PluginFieldCollection* getFieldsToSerialize() noexcept override {
    written_.clear();
    fields_.visit([&](const char* name, PluginFieldType type, auto& value) {
      if constexpr (requires { value.data(); })
        written_.emplace_back(name, value.data(), type, int32_t(value.size()));
      else
        written_.emplace_back(name, &value, type, 1);
    });
    collection_ = {int32_t(written_.size()), written_.data()};
    return &collection_;
  }

 private:
  Project* copy() noexcept try {
    return new Project(fields_);
  } catch (const std::exception& error) {
    say(error.what());
    return nullptr;
  }

  int32_t check(const nvinfer1::PluginTensorDesc& tokens) const noexcept {
    if (tokens.dims.nbDims == 3 && (tokens.dims.d[2] == params_.in_dim || tokens.dims.d[2] < 0)) return 0;
    say("ruyicam Project: tokens must be [N, T, D] with the weight's D");
    return 1;
  }

  Fields fields_;
  MappingParams params_;
  std::unique_ptr<cuda::Constants> constants_;
  std::vector<PluginField> written_;
  PluginFieldCollection collection_{};
};

class ProjectCreator : public nvinfer1::IPluginCreatorV3One {
 public:
  ProjectCreator() {
    Fields none;
    none.visit([&](const char* name, PluginFieldType type, auto&) { names_.emplace_back(name, nullptr, type, 1); });
    collection_ = {int32_t(names_.size()), names_.data()};
  }
  const char* getPluginName() const noexcept override { return kName; }
  const char* getPluginVersion() const noexcept override { return kVersion; }
  const char* getPluginNamespace() const noexcept override { return kNamespace; }
  const PluginFieldCollection* getFieldNames() noexcept override { return &collection_; }

  nvinfer1::IPluginV3* createPlugin(const char*, const PluginFieldCollection* given, nvinfer1::TensorRTPhase) noexcept override try {
    Fields fields;
    fields.visit([&](const char* name, PluginFieldType type, auto& value) {
      for (int32_t i = 0; i < given->nbFields; ++i) {
        const PluginField& field = given->fields[i];
        if (std::strcmp(field.name, name) != 0) continue;
        if (field.type != type) throw std::invalid_argument(std::string(name) + " has another type than the plugin takes");
        if constexpr (requires { value.data(); }) {
          const auto* data = static_cast<const int32_t*>(field.data);
          value.assign(data, data + field.length);
        } else {
          std::memcpy(&value, field.data, sizeof value);
        }
        return;
      }
      throw std::invalid_argument(std::string("attribute ") + name + " is missing");
    });
    return new Project(std::move(fields));
  } catch (const std::exception& error) {
    say((std::string("ruyicam Project: ") + error.what()).c_str());
    return nullptr;
  }

 private:
  std::vector<PluginField> names_;
  PluginFieldCollection collection_{};
};

}  // namespace

REGISTER_TENSORRT_PLUGIN(ProjectCreator);

}  // namespace ruyicam::kernels::tensorrt

// What TensorRT looks for in a library of plugins.
extern "C" __attribute__((visibility("default"))) nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count) {
  static ruyicam::kernels::tensorrt::ProjectCreator creator;
  static nvinfer1::IPluginCreatorInterface* const all[] = {&creator};
  count = 1;
  return all;
}
extern "C" __attribute__((visibility("default"))) void setLoggerFinder(nvinfer1::ILoggerFinder*) {}
