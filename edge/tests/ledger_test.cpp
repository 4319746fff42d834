#include "ledger.hpp"

#include <gtest/gtest.h>

#include "files.hpp"
#include "temporary.hpp"

using namespace ruyicam::edge;

namespace {
constexpr uint64_t kSecond = 1000000, kDay = 86400 * kSecond;
}

TEST(Ledger, ShutsWhenTheSecondOrTheDayIsSpent) {
  TemporaryFolder folder;
  Ledger ledger(folder.path / "l.json", "a", {250, 500});
  EXPECT_TRUE(ledger.charge(0, 1, 100, 0, 1));
  EXPECT_TRUE(ledger.charge(0, 1, 100, 0, 1));
  EXPECT_FALSE(ledger.charge(0, 1, 100, 0, 1));
  EXPECT_TRUE(ledger.charge(kSecond, 1, 100, 0, 1));
  EXPECT_TRUE(ledger.charge(2 * kSecond, 1, 100, 0, 1));
  EXPECT_TRUE(ledger.charge(3 * kSecond, 1, 100, 0, 1));
  EXPECT_FALSE(ledger.charge(4 * kSecond, 1, 100, 0, 1));
  EXPECT_TRUE(ledger.charge(kDay, 1, 100, 0, 1));
  // A clock set back opens nothing.
  EXPECT_EQ(ledger.totals().day_bits, 100);
  EXPECT_TRUE(ledger.charge(5 * kSecond, 1, 100, 0, 1));
  EXPECT_EQ(ledger.totals().day_bits, 200);
}

TEST(Ledger, SurvivesARestartAndACrashNeverUndercharges) {
  TemporaryFolder folder;
  const auto path = folder.path / "l.json";
  std::string during;
  {
    Ledger ledger(path, "a", {1e9, 1e9});
    for (int i = 0; i < 7; ++i) ASSERT_TRUE(ledger.charge(0, 1, 10, 0.5, 2));
    during = read_file(path, Exit::kStorage);
  }
  {
    Ledger again(path, "a", {1e9, 1e9});
    EXPECT_EQ(again.totals().releases, 7u);
    EXPECT_DOUBLE_EQ(again.totals().feature_bits, 70);
    EXPECT_DOUBLE_EQ(again.totals().token_bits, 3.5);
    EXPECT_DOUBLE_EQ(again.totals().mu_squared, 14);
  }
  write_file_atomic(path, during);  // as after a power cut
  Ledger crashed(path, "a", {1e9, 1e9});
  EXPECT_GE(crashed.totals().releases, 7u);
  EXPECT_GE(crashed.totals().bits(), 73.5);
}

TEST(Ledger, LateChargesCountForTheSecondOfTheirCapture) {
  TemporaryFolder folder;
  Ledger ledger(folder.path / "l.json", "a", {250, 1e9});
  for (uint64_t s = 0; s < 5; ++s) {
    EXPECT_TRUE(ledger.charge((s + 1) * kSecond, 0, 0, 20, 0));
    EXPECT_TRUE(ledger.charge(s * kSecond, 1, 200, 0, 1));
    EXPECT_FALSE(ledger.charge(s * kSecond, 1, 200, 0, 1));
  }
}

TEST(Ledger, MixedChargesKeepWhatIsWrittenAhead) {
  TemporaryFolder folder;
  const auto path = folder.path / "l.json";
  Ledger ledger(path, "a", {1e9, 1e9});
  int writes = 0;
  std::string before;
  for (int i = 0; i < 90; ++i) {
    ASSERT_TRUE(ledger.charge(0, 0, 0, 0.5, 0));
    ASSERT_TRUE(ledger.charge(0, 1, 10, 0, 2));
    const std::string now = read_file(path, Exit::kStorage);
    writes += now != before;
    before = now;
  }
  EXPECT_LE(writes, 4);
}

TEST(Ledger, FailsClosedOnDamageAndOnAnotherCamera) {
  TemporaryFolder folder;
  const auto path = folder.path / "l.json";
  { Ledger ledger(path, "a", {1, 1}); }
  EXPECT_THROW(Ledger(path, "b", {1, 1}), Error);
  const std::string good = read_file(path, Exit::kStorage);
  for (const size_t cut : {size_t(0), size_t(1), good.size() / 2}) {
    write_file_atomic(path, good.substr(0, cut));
    EXPECT_THROW(Ledger(path, "a", {1, 1}), Error) << cut;
  }
}
