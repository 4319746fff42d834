// edge.onnx in ONNX Runtime: a frame and the recent features in, tokens and the edge exit's probabilities out.
#pragma once
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "config.hpp"

namespace ruyicam::edge {

struct Bundle;

struct EncoderOptions {
  int threads = 1;
  std::string provider = "cpu";  // cpu, cuda or tensorrt
  bool fp16 = false;             // tensorrt: half precision where it is faster
  std::string engines;           // tensorrt: folder of built engines
};

EncoderOptions encoder_options(const Config& config);

// Those of this ONNX Runtime, by our names.
std::vector<std::string> available_providers();

// Folder for the engines of one bundle under one driver; those of other GPUs and versions lie in it under other names.
std::string engine_folder(const std::string& engines, const Bundle& bundle);

// edge.onnx, loaded once for all cameras. run() of encoders on several threads at once is safe.
class Model {
 public:
  // Throws Error(kBundle) if the graph cannot be loaded or its inputs and outputs are not those of the manifest,
  // Error(kUsage) if this ONNX Runtime or machine has not got the provider.
  Model(const Bundle& bundle, const EncoderOptions& options);
  ~Model();

 private:
  friend class Encoder;
  struct Session;
  std::unique_ptr<Session> session_;
};

// One camera's frames through it, and what it remembers of them. Not thread-safe.
class Encoder {
 public:
  Encoder(const Model& model, const Bundle& bundle);
  ~Encoder();

  // frame: int8 [3, height, width]. Results stay valid until the next call. Throws Error(kBundle) if the graph cannot be run.
  void run(const int8_t* frame);
  const float* tokens() const;         // [T, D]
  const float* probabilities() const;  // [K]
  // The clipped features of the tick just run, made by the mapping kernel: they become history.
  void remember(const int16_t* features);

 private:
  struct State;
  const Model& model_;
  std::unique_ptr<State> state_;
};

}  // namespace ruyicam::edge
