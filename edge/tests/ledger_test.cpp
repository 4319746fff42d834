#include "ledger.hpp"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <random>

#include "files.hpp"
#include "temporary.hpp"

using namespace ruyicam::edge;

namespace {

constexpr uint64_t kSecond = 1000000, kDay = 86400 * kSecond;
constexpr double kNone = kUnlimited;

Charge features(uint64_t time_us, double bits, double mu_squared = 1) {
  return {.time_us = time_us, .releases = 1, .feature_bits = bits, .mu_squared = mu_squared};
}

Charge token(uint64_t time_us, double bits, double worst = 0) { return {.time_us = time_us, .token_bits = bits, .worst_token_bits = worst}; }

struct Files {
  TemporaryFolder folder;
  std::filesystem::path ledger = folder.path / "l.json", other = folder.path / "elsewhere.json";
  Witness witness{other};
};

}  // namespace

TEST(Ledger, ShutsWhenTheSecondOrTheDayIsSpent) {
  Files f;
  Ledger ledger(f.ledger, "a", {250, 500}, f.witness);
  EXPECT_TRUE(ledger.charge(features(0, 100)));
  EXPECT_TRUE(ledger.charge(features(0, 100)));
  EXPECT_FALSE(ledger.charge(features(0, 100)));
  EXPECT_TRUE(ledger.charge(features(kSecond, 100)));
  EXPECT_TRUE(ledger.charge(features(2 * kSecond, 100)));
  EXPECT_TRUE(ledger.charge(features(3 * kSecond, 100)));
  EXPECT_FALSE(ledger.charge(features(4 * kSecond, 100)));
  EXPECT_TRUE(ledger.charge(features(kDay, 100)));
  // A clock set back opens nothing.
  EXPECT_EQ(ledger.totals().day_bits, 100);
  EXPECT_TRUE(ledger.charge(features(5 * kSecond, 100)));
  EXPECT_EQ(ledger.totals().day_bits, 200);
}

TEST(Ledger, ShutsWhenTheDaysMuOrTokensAreSpent) {
  Files f;
  Ledger ledger(f.ledger, "a", {kNone, kNone, 2, 3}, f.witness);
  for (int i = 0; i < 4; ++i) EXPECT_TRUE(ledger.charge(features(uint64_t(i) * kSecond, 1)));
  EXPECT_FALSE(ledger.charge(features(4 * kSecond, 1)));
  EXPECT_TRUE(ledger.charge(token(4 * kSecond, 2.5)));
  EXPECT_FALSE(ledger.charge(token(5 * kSecond, 1)));
  EXPECT_TRUE(ledger.charge(token(6 * kSecond, 0.5)));
  EXPECT_TRUE(ledger.charge(features(kDay, 1)));
}

TEST(Ledger, BoundsEveryVisitWhereverItBegins) {
  Files f;
  LedgerBudget budget;
  budget.visit_us = 10 * kSecond;
  budget.visit_mu = 1;
  budget.visit_token_bits = 2;
  std::mt19937 random(1);
  std::vector<std::pair<uint64_t, Charge>> granted;
  {
    Ledger ledger(f.ledger, "a", budget, f.witness);
    uint64_t now = 0;
    for (int i = 0; i < 300; ++i) {
      now += random() % (3 * kSecond);
      const Charge c = random() % 2 ? features(now, 0.1, 0.3) : token(now, 0.4, 0.7);
      if (ledger.charge(c)) granted.emplace_back(now, c);
    }
  }
  ASSERT_GT(granted.size(), 60u);
  for (const auto& [begin, unused] : granted) {
    double mu_squared = 0, bits = 0;
    for (const auto& [time, c] : granted)
      if (time >= begin && time < begin + budget.visit_us) mu_squared += c.mu_squared, bits += c.token_bits;
    EXPECT_LE(std::sqrt(mu_squared), 1 + 1e-9);
    EXPECT_LE(bits, 2 + 1e-9);
  }
}

TEST(Ledger, ARestartDoesNotOpenAVisitAnew) {
  Files f;
  LedgerBudget budget;
  budget.visit_us = 10 * kSecond;
  budget.visit_token_bits = 2;
  const uint64_t now = 100 * kSecond;
  {
    Ledger ledger(f.ledger, "a", budget, f.witness);
    EXPECT_TRUE(ledger.charge(token(now, 2)));
  }
  Ledger ledger(f.ledger, "a", budget, f.witness);
  EXPECT_FALSE(ledger.charge(token(now + 9 * kSecond, 0.5)));
  EXPECT_TRUE(ledger.charge(token(now + 10 * kSecond, 0.5)));
}

TEST(Ledger, ARefusalDoesNotDependOnTheToken) {
  Files f;
  Ledger ledger(f.ledger, "a", {kNone, kNone, kNone, 5}, f.witness);
  EXPECT_TRUE(ledger.charge(token(0, 0.1, 4)));
  EXPECT_TRUE(ledger.charge(token(0, 1, 4)));
  // There would be room for this one, but not for every one that it might have been.
  EXPECT_FALSE(ledger.charge(token(0, 0.1, 4)));
}

TEST(Ledger, SurvivesARestart) {
  Files f;
  {
    Ledger ledger(f.ledger, "a", {1e9, 1e9}, f.witness);
    for (int i = 0; i < 7; ++i) {
      ASSERT_TRUE(ledger.charge(features(0, 10, 2)));
      ASSERT_TRUE(ledger.charge(token(0, 0.5)));
    }
  }
  Ledger again(f.ledger, "a", {1e9, 1e9}, f.witness);
  EXPECT_EQ(again.totals().releases, 7u);
  EXPECT_DOUBLE_EQ(again.totals().feature_bits, 70);
  EXPECT_DOUBLE_EQ(again.totals().token_bits, 3.5);
  EXPECT_DOUBLE_EQ(again.totals().mu_squared, 14);
}

// A process charges and says so; it is killed at a random moment, a thousand times over.
TEST(Ledger, AThousandKillsNeverUndercharge) {
  TemporaryFolder folder;
  const auto path = folder.path / "l.json", other = folder.path / "elsewhere.json";
  std::mt19937 random(2);
  uint64_t released = 0;
  for (int kill = 0; kill < 1000; ++kill) {
    int ends[2];
    ASSERT_EQ(::pipe(ends), 0);
    const pid_t child = ::fork();
    if (child == 0) {
      // Visits write at every charge, which is the harder case.
      LedgerBudget budget;
      if (kill % 2) budget.visit_us = 1;
      Witness witness(other);
      Ledger ledger(path, "a", budget, witness);
      for (uint64_t time = uint64_t(kill) * kSecond;; ++time) {
        if (!ledger.charge(features(time, 3, 0.5))) ::_exit(2);
        if (::write(ends[1], "r", 1) != 1) ::_exit(3);
      }
    }
    ::close(ends[1]);
    // At any moment: before the first charge, between two, or within one.
    char bytes[4096];
    for (uint32_t seen = random() % 5; seen > 0 && ::read(ends[0], bytes, 1) == 1; --seen) ++released;
    ::usleep(useconds_t(random() % 3000));
    ::kill(child, SIGKILL);
    int status = 0;
    ::waitpid(child, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status)) << "round " << kill << " ended by itself with status " << status;
    for (ssize_t got; (got = ::read(ends[0], bytes, sizeof bytes)) > 0;) released += uint64_t(got);
    ::close(ends[0]);
    Witness witness(other);
    Ledger ledger(path, "a", {}, witness);
    ASSERT_GE(ledger.totals().releases, released) << "round " << kill;
    ASSERT_GE(ledger.totals().feature_bits, 3 * double(released) - 1e-6);
    ASSERT_GE(ledger.totals().mu_squared, 0.5 * double(released) - 1e-6);
  }
  EXPECT_GT(released, 1000u);
}

TEST(Ledger, LateChargesCountForTheSecondOfTheirCapture) {
  Files f;
  Ledger ledger(f.ledger, "a", {250, 1e9}, f.witness);
  for (uint64_t s = 0; s < 5; ++s) {
    EXPECT_TRUE(ledger.charge(token((s + 1) * kSecond, 20)));
    EXPECT_TRUE(ledger.charge(features(s * kSecond, 200)));
    EXPECT_FALSE(ledger.charge(features(s * kSecond, 200)));
  }
}

TEST(Ledger, AClockThatWasAYearAheadDelaysABudgetByADayAtMost) {
  constexpr uint64_t kToday = 20000 * kDay + 3600 * kSecond;
  Files f;
  const LedgerBudget budget{.bits_per_day = 10};
  {
    Ledger ahead(f.ledger, "camera", budget, f.witness);
    ASSERT_TRUE(ahead.charge({.time_us = kToday + 365 * kDay, .feature_bits = 10}));
  }
  Ledger ledger(f.ledger, "camera", budget, f.witness);
  EXPECT_FALSE(ledger.charge({.time_us = kToday, .feature_bits = 10}));
  EXPECT_FALSE(ledger.charge({.time_us = kToday + kDay - 1, .feature_bits = 10}));
  EXPECT_TRUE(ledger.charge({.time_us = kToday + kDay, .feature_bits = 10}));
  EXPECT_FALSE(ledger.charge({.time_us = kToday + 2 * kDay - 1, .feature_bits = 10}));
  EXPECT_TRUE(ledger.charge({.time_us = kToday + 2 * kDay, .feature_bits = 10}));
}

TEST(Ledger, AClockThatWasAYearAheadDoesNotShutVisitsForEver) {
  constexpr uint64_t kNow = 20000 * kDay;
  Files f;
  const LedgerBudget budget{.visit_us = 60 * kSecond, .visit_mu = 1};
  {
    Ledger ahead(f.ledger, "camera", budget, f.witness);
    ASSERT_TRUE(ahead.charge({.time_us = kNow + 365 * kDay, .mu_squared = 1}));
  }
  Ledger ledger(f.ledger, "camera", budget, f.witness);
  EXPECT_FALSE(ledger.charge({.time_us = kNow, .mu_squared = 1}));
  EXPECT_FALSE(ledger.charge({.time_us = kNow + 59 * kSecond, .mu_squared = 1}));
  EXPECT_TRUE(ledger.charge({.time_us = kNow + 61 * kSecond, .mu_squared = 1}));
}

TEST(Ledger, TimesThatGoToAndFroDoNotMakeTimeRun) {
  constexpr uint64_t kNow = 20000 * kDay;
  Files f;
  Ledger ledger(f.ledger, "camera", {.bits_per_day = 10, .visit_us = 3600 * kSecond, .visit_mu = 1}, f.witness);
  ASSERT_TRUE(ledger.charge({.time_us = kNow, .feature_bits = 10, .mu_squared = 1}));
  for (int i = 0; i < 3000; ++i) {
    EXPECT_FALSE(ledger.charge({.time_us = kNow - 100 * kSecond, .feature_bits = 10, .mu_squared = 1}));
    EXPECT_FALSE(ledger.charge({.time_us = kNow, .feature_bits = 10, .mu_squared = 1}));
    ASSERT_TRUE(ledger.charge({.time_us = i % 2 ? kNow : kNow - 100 * kSecond}));
  }
}

TEST(Ledger, WhatCannotBeWrittenIsNotCharged) {
  Files f;
  {
    Ledger ledger(f.ledger, "camera", {.bits_per_second = 10}, f.witness);
    // A folder in the place of the file that is written first.
    std::filesystem::create_directory(f.folder.path / "l.json.partial");
    EXPECT_THROW(ledger.charge({.time_us = 1, .feature_bits = 10}), Error);
    EXPECT_EQ(ledger.totals().feature_bits, 0);
    std::filesystem::remove(f.folder.path / "l.json.partial");
    // The witness cannot be written, though the ledger could.
    std::filesystem::create_directory(f.folder.path / "elsewhere.json.partial");
    EXPECT_THROW(ledger.charge({.time_us = 1, .feature_bits = 10}), Error);
    EXPECT_THROW(ledger.charge({.time_us = 1, .feature_bits = 10}), Error);
    std::filesystem::remove(f.folder.path / "elsewhere.json.partial");
    EXPECT_TRUE(ledger.charge({.time_us = 1, .feature_bits = 10}));
    EXPECT_FALSE(ledger.charge({.time_us = 1, .feature_bits = 10}));
  }
  Ledger again(f.ledger, "camera", {}, f.witness);
  EXPECT_EQ(again.totals().feature_bits, 10);
}

TEST(Ledger, MixedChargesKeepWhatIsWrittenAhead) {
  Files f;
  Ledger ledger(f.ledger, "a", {1e9, 1e9}, f.witness);
  int writes = 0;
  std::string before;
  for (int i = 0; i < 90; ++i) {
    ASSERT_TRUE(ledger.charge(token(0, 0.5)));
    ASSERT_TRUE(ledger.charge(features(0, 10, 2)));
    const std::string now = read_file(f.ledger, Exit::kStorage);
    writes += now != before;
    before = now;
  }
  EXPECT_LE(writes, 4);
}

TEST(Ledger, FailsClosedOnDamageAndOnAnotherCamera) {
  Files f;
  { Ledger ledger(f.ledger, "a", {1, 1}, f.witness); }
  EXPECT_THROW(Ledger(f.ledger, "b", {1, 1}, f.witness), Error);
  const std::string good = read_file(f.ledger, Exit::kStorage);
  for (const size_t cut : {size_t(0), size_t(1), good.size() / 2}) {
    write_file_atomic(f.ledger, good.substr(0, cut));
    EXPECT_THROW(Ledger(f.ledger, "a", {1, 1}, f.witness), Error) << cut;
  }
  // A total that someone has changed.
  std::string forged = good;
  forged.replace(forged.find("\"releases\": 0"), 13, "\"releases\": 9");
  write_file_atomic(f.ledger, forged);
  EXPECT_THROW(Ledger(f.ledger, "a", {1, 1}, f.witness), Error);
  write_file_atomic(f.ledger, good);
  Ledger(f.ledger, "a", {1, 1}, f.witness);
}

TEST(Ledger, KnowsAnOldCopyAndALostFile) {
  Files f;
  { Ledger ledger(f.ledger, "a", {}, f.witness); }
  const std::string old = read_file(f.ledger, Exit::kStorage);
  {
    Ledger ledger(f.ledger, "a", {}, f.witness);
    ASSERT_TRUE(ledger.charge(features(0, 10)));
  }
  const std::string good = read_file(f.ledger, Exit::kStorage);
  write_file_atomic(f.ledger, old);
  try {
    Ledger ledger(f.ledger, "a", {}, f.witness);
    FAIL() << "an old copy was taken";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Exit::kStorage);
    EXPECT_NE(std::string(error.what()).find("an old copy"), std::string::npos);
  }
  std::filesystem::remove(f.ledger);
  EXPECT_THROW(Ledger(f.ledger, "a", {}, f.witness), Error);
  // One of another device, whose key is another.
  Witness foreign(f.folder.path / "foreign.json");
  write_file_atomic(f.ledger, good);
  EXPECT_THROW(Ledger(f.ledger, "a", {}, foreign), Error);
  Ledger(f.ledger, "a", {}, f.witness);
}
