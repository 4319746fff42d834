// edge.onnx in ONNX Runtime: a frame and the recent features in, tokens and the edge exit's probabilities out.
#pragma once
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

namespace ruyicam::edge {

struct Bundle;

class Encoder {
 public:
  // Throws Error(kBundle) if the graph cannot be loaded or its inputs and outputs are not those of the manifest.
  Encoder(const Bundle& bundle, int threads);
  ~Encoder();

  // frame: int8 [3, height, width]. Results stay valid until the next call.
  void run(const int8_t* frame);
  const float* tokens() const;         // [T, D]
  const float* probabilities() const;  // [K]
  // The clipped features of the tick just run, made by the mapping kernel: they become history.
  void remember(const int16_t* features);

 private:
  struct Session;
  std::unique_ptr<Session> session_;
};

}  // namespace ruyicam::edge
