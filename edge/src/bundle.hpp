// A signed bundle, verified whole before anything in it is used.
#pragma once
#include <array>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "ruyicam/kernels/mapping.hpp"
#include "ruyicam/kernels/preprocess.hpp"

namespace ruyicam::edge {

constexpr int kBundleSchema = 1;

struct Bundle {
  std::string name, version;
  std::array<uint8_t, 16> id{};  // first half of the manifest's SHA-256
  std::vector<std::string> labels, alphabet;
  std::vector<double> token_bits;  // surprisal of each token under the public prior
  int rate_hz = 0, window = 0;
  kernels::PreprocessParams preprocess;
  kernels::MappingParams mapping;
  double look_threshold = 0;
  int around_ticks = 0, heartbeat_ticks = 0;
  double sigma = 0, bits_per_release = 0, bits_per_second = 0, bits_per_day = 0;
  std::string profile;
  std::string onnx;  // edge.onnx, the verified bytes
};

// public_key: PEM file of an Ed25519 key. Throws Error(kBundle) with one line for anything unsigned, altered,
// malformed or of another schema; Error(kCredentials) for an unreadable key.
Bundle load_bundle(const std::filesystem::path& folder, const std::filesystem::path& public_key);

// (n / 2) * log2(1 + C^2 / (n sigma^2)): bound on the bits about the picture in one release (design page).
double bits_per_release(size_t features, double clip, double sigma);

}  // namespace ruyicam::edge
