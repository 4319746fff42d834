// ledger.json, sealed or not, and witness.json: it opens with what was sealed, or fails closed.
#include "ledger.hpp"

#include <nlohmann/json.hpp>

#include "fuzz.hpp"

using namespace ruyicam::edge;
using nlohmann::json;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto parts = fuzz::parts(data, size, 2);
  const auto& folder = fuzz::folder();
  const auto ledger = folder / "ledger.json", witness = folder / "witness.json";
  if (!parts[1].empty()) fuzz::write(witness, parts[1]);
  fuzz::refused(
      [&] {
        Witness w(witness);
        // What is JSON is sealed as the device would, so that more than the seal is read.
        const json inner = json::parse(parts[0], nullptr, false);
        if (inner.is_discarded())
          fuzz::write(ledger, parts[0]);
        else
          fuzz::write(ledger, json{{"schema", 2}, {"ledger", inner}, {"mac", w.seal(inner.dump(-1, ' ', false, json::error_handler_t::replace))}}.dump(-1, ' ', false, json::error_handler_t::replace));
        Ledger l(ledger, "camera", {.bits_per_second = 100, .bits_per_day = 1000}, w);
        const double before = l.totals().feature_bits;
        fuzz::demand(before >= 0, "negative totals");
        if (l.charge({.time_us = 1700000000000000, .releases = 1, .feature_bits = 10, .mu_squared = 0.1}))
          fuzz::demand(l.totals().feature_bits >= before && l.totals().day_bits <= 1000 * (1 + 1e-6), "above the budget");
      },
      {Exit::kStorage});
  return 0;
}
