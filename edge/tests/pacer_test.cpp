#include "pacer.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <vector>

using namespace ruyicam::edge;

namespace {

uint64_t now_ns() { return uint64_t(std::chrono::steady_clock::now().time_since_epoch().count()); }

Record tick(uint64_t number, uint64_t first_ns) {
  Record r;
  r.head = {.kind = kFeatures, .number = number, .time_us = 1000000 + number * 10000, .first_ns = first_ns};
  r.payload.assign(4, uint8_t(number));
  return r;
}

}  // namespace

TEST(Pacer, FillsWhatIsMissingAndDropsWhatIsLate) {
  std::vector<Record> out;
  std::vector<uint64_t> when;
  const uint64_t first = now_ns();
  Pacer pacer(100, 50, 4, [&](const Record& r) {
    out.push_back(r);
    when.push_back(now_ns());
  });
  for (uint64_t n : {0, 1, 2, 5}) pacer.put(tick(n, first));
  std::this_thread::sleep_for(std::chrono::milliseconds(140));
  pacer.put(tick(3, first));
  pacer.finish();
  ASSERT_GE(out.size(), 6u);
  for (size_t i = 0; i < out.size(); ++i) {
    EXPECT_EQ(out[i].head.number, i);
    EXPECT_EQ(out[i].head.kind, i < 3 || i == 5 ? kFeatures : kWithheldByGate);
    EXPECT_EQ(out[i].head.time_us, 1000000 + i * 10000);
    EXPECT_EQ(out[i].payload.size(), 4u);
    // Never before its time, whenever it came.
    EXPECT_GE(when[i], first + i * 10000000 + 50000000);
  }
  EXPECT_EQ(pacer.late(), 1u);
  EXPECT_EQ(pacer.filled(), out.size() - 4);
}

TEST(Pacer, FinishSendsWhatIsHeldAndLeavesNoHole) {
  std::vector<uint64_t> out;
  Pacer pacer(100, 10, 4, [&](const Record& r) { out.push_back(r.head.number); });
  const uint64_t first = now_ns();
  for (uint64_t n : {0, 1, 4}) pacer.put(tick(n, first));
  pacer.finish();
  EXPECT_EQ(out, (std::vector<uint64_t>{0, 1, 2, 3, 4}));
  EXPECT_EQ(pacer.filled(), 2u);
  EXPECT_EQ(pacer.late(), 0u);
}

TEST(Pacer, AFailureEndsIt) {
  Pacer pacer(100, 10, 4, [](const Record&) { throw std::runtime_error("disk full"); });
  pacer.put(tick(0, now_ns()));
  pacer.finish();
  EXPECT_EQ(pacer.problem(), "disk full");
}
