#include "gate.hpp"

#include <gtest/gtest.h>

using namespace ruyicam::edge;

namespace {

// Which ticks of a token sequence leave.
std::vector<bool> opened(const std::vector<uint32_t>& tokens, int around, int heartbeat) {
  Gate gate(around, heartbeat);
  std::vector<bool> open;
  const auto take = [&](std::optional<Decision> d) {
    if (!d) return false;
    EXPECT_EQ(d->tick.number, open.size());
    open.push_back(d->open);
    return true;
  };
  for (size_t i = 0; i < tokens.size(); ++i) {
    Tick tick;
    tick.number = i;
    tick.token = tokens[i];
    take(gate.push(std::move(tick)));
  }
  while (take(gate.flush())) {
  }
  return open;
}

}  // namespace

TEST(Gate, OpensAroundALookAndAtHeartbeats) {
  std::vector<uint32_t> tokens(30, 0);
  tokens[14] = 1;
  const auto open = opened(tokens, 3, 10);
  ASSERT_EQ(open.size(), tokens.size());
  for (size_t i = 0; i < open.size(); ++i) EXPECT_EQ(open[i], (i >= 11 && i <= 17) || i % 10 == 0) << i;
}

TEST(Gate, StaysShutWhenNothingHappens) {
  const auto open = opened(std::vector<uint32_t>(25, 0), 5, 1000);
  EXPECT_EQ(std::count(open.begin(), open.end(), true), 1);
}

TEST(Gate, TokenIsTheLabelOrALook) {
  const float sure[] = {0.9f, 0.05f, 0.05f}, unsure[] = {0.6f, 0.3f, 0.1f}, fall[] = {0.2f, 0.3f, 0.5f};
  EXPECT_EQ(behaviour_token(sure, 3, 0.25), 0u);
  EXPECT_EQ(behaviour_token(unsure, 3, 0.25), 1u);
  EXPECT_EQ(behaviour_token(fall, 3, 0.25), 3u);
}
