// Segments left by an earlier run, damaged in any way: what is whole comes out, what is appended comes out after it.
#include "spool.hpp"

#include "fuzz.hpp"

using namespace ruyicam::edge;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto& folder = fuzz::folder();
  const size_t half = size > 0 ? data[0] * size / 256 : 0;
  fuzz::write(folder / "0000000000000001.seg", {reinterpret_cast<const char*>(data), half});
  fuzz::write(folder / "0000000000000002.seg", {reinterpret_cast<const char*>(data) + half, size - half});
  fuzz::write(folder / "not-a-segment", "x");
  const auto drain = [](Spool& spool) {
    std::vector<std::string> out;
    while (auto packet = spool.next(0)) out.push_back(std::move(*packet));
    return out;
  };
  fuzz::refused(
      [&] {
        std::vector<std::string> first;
        {
          Spool spool(folder, 1 << 20);
          spool.append("appended");
          first = drain(spool);
          fuzz::demand(!first.empty() && first.back() == "appended", "the last packet is not the one appended");
          fuzz::demand(spool.pending() == first.size(), "pending differs from what comes out");
        }
        Spool spool(folder, 1 << 20);
        fuzz::demand(drain(spool) == first, "a second start finds something else");
        spool.acknowledge(first.size());
        fuzz::demand(spool.empty(), "acknowledged, and not empty");
      },
      {Exit::kStorage});
  return 0;
}
