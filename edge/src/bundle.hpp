// A signed bundle, verified whole before anything in it is used.
#pragma once
#include <array>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "budget.hpp"
#include "ruyicam/kernels/mapping.hpp"
#include "ruyicam/kernels/preprocess.hpp"

namespace ruyicam::edge {

constexpr int kBundleSchema = 2;

struct Bundle {
  std::string name, version;
  uint64_t serial = 0, floor = 0;  // its place in the row of releases, and the least one that may follow it
  std::array<uint8_t, 16> id{};  // first half of the manifest's SHA-256
  std::vector<std::string> labels, alphabet;
  std::vector<double> token_bits;  // surprisal of each token under the public prior
  int rate_hz = 0, window = 0;
  kernels::PreprocessParams preprocess;
  kernels::MappingParams mapping;  // what the edge exit reads
  kernels::MappingParams release;  // what leaves: the same, clipped to the profile's C and with its noise
  double look_threshold = 0;
  int around_ticks = 0, heartbeat_ticks = 0;
  std::string profile;
  int block_ticks = 1;  // one token, and under a certified profile one feature release, per so many ticks
  double sigma = 0, bits_per_release = 0;
  double visit_s = 0;  // 0: no budget per visit
  LedgerBudget budget;
  std::array<uint8_t, 32> noise_hash{}, prior_hash{};  // SHA-256 of the table's uint64 and the prior's double, little-endian
  std::string onnx;  // edge.onnx, the verified bytes

  bool certified() const { return visit_s > 0; }
  double worst_token_bits() const;
};

// public_key: PEM file of an Ed25519 key. Throws Error(kBundle) with one line for anything unsigned, altered,
// malformed or of another schema; Error(kCredentials) for an unreadable key.
Bundle load_bundle(const std::filesystem::path& folder, const std::filesystem::path& public_key);

// What load_bundle makes of a manifest whose signature holds. part: gives the bytes of a file whose SHA-256 is given, in hex.
// Throws std::invalid_argument with one line for anything malformed, and what `part` throws.
Bundle parse_bundle(const std::string& manifest, const std::function<std::string(const std::string& name, const std::string& digest)>& part);

// (n / 2) * log2(1 + C^2 / (n sigma^2)): bound on the bits about the picture in one release (design page).
double bits_per_release(size_t features, double clip, double sigma);

}  // namespace ruyicam::edge
