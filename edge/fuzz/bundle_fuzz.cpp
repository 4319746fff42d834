// manifest.json and mapping.safetensors whose signature holds, as a vendor's slip might have signed them.
#include "bundle.hpp"

#include "fuzz.hpp"
#include "safetensors.hpp"

using namespace ruyicam::edge;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // Of what is not JSON before the bar, the tensors alone are still read.
  const auto bar = std::string_view(reinterpret_cast<const char*>(data), size).find("\n\xff\n");
  const std::string manifest(reinterpret_cast<const char*>(data), std::min(bar, size));
  const std::string tensors(bar == std::string_view::npos ? "" : std::string(reinterpret_cast<const char*>(data) + bar + 3, size - bar - 3));
  try {
    parse_safetensors(tensors);
  } catch (const std::invalid_argument&) {
  }
  try {
    const Bundle b = parse_bundle(manifest, [&](const std::string& name, const std::string&) { return name == "edge.onnx" ? "" : tensors; });
    fuzz::demand(b.sigma > 0 && b.bits_per_release > 0 && b.rate_hz > 0 && b.token_bits.size() == b.alphabet.size(), "a bundle without bounds");
    fuzz::demand(!b.certified() || (b.budget.visit_mu <= 1 && b.budget.visit_token_bits <= 3), "a certified bundle above its promise");
  } catch (const std::invalid_argument& error) {
    fuzz::demand(*error.what() != 0, "nothing said");
  }
  return 0;
}
