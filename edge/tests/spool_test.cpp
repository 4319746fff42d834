#include "spool.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <thread>
#include <vector>

#include "temporary.hpp"

using namespace ruyicam::edge;

namespace {

std::string packet(int i) { return std::to_string(i) + std::string(200, 'x'); }

std::vector<int> take_all(Spool& spool) {
  std::vector<int> got;
  while (const auto p = spool.next(0)) got.push_back(std::stoi(*p));
  return got;
}

std::vector<int> range(int from, int to) {
  std::vector<int> v;
  for (int i = from; i < to; ++i) v.push_back(i);
  return v;
}

std::filesystem::path last_segment(const std::filesystem::path& folder) {
  std::filesystem::path last;
  for (const auto& e : std::filesystem::directory_iterator(folder))
    if (last < e.path()) last = e.path();
  return last;
}

// A spool of an earlier run.
void leave_ten(const std::filesystem::path& folder) {
  Spool spool(folder, 1 << 24);
  for (int i = 0; i < 10; ++i) spool.append(packet(i));
}

}  // namespace

TEST(Spool, GivesBackInOrderAcrossSegmentsAndForgetsWhatIsAcknowledged) {
  TemporaryFolder folder;
  Spool spool(folder.path, 1 << 24);
  for (int i = 0; i < 1000; ++i) spool.append(packet(i));
  EXPECT_EQ(take_all(spool), range(0, 1000));
  spool.acknowledge(400);
  spool.rewind();
  EXPECT_EQ(take_all(spool), range(400, 1000));
  spool.acknowledge(600);
  EXPECT_TRUE(spool.empty());
}

TEST(Spool, ARestartLosesNothingUnacknowledged) {
  TemporaryFolder folder;
  {
    Spool spool(folder.path, 1 << 24);
    for (int i = 0; i < 900; ++i) spool.append(packet(i));
    take_all(spool);
    spool.acknowledge(500);
  }
  Spool again(folder.path, 1 << 24);
  again.append(packet(900));
  const auto got = take_all(again);
  ASSERT_FALSE(got.empty());
  EXPECT_LE(got.front(), 500);
  EXPECT_EQ(got, range(got.front(), 901));
}

TEST(Spool, CutsOffATornTail) {
  TemporaryFolder folder;
  leave_ten(folder.path);
  const auto segment = last_segment(folder.path);
  std::filesystem::resize_file(segment, std::filesystem::file_size(segment) - 3);
  Spool again(folder.path, 1 << 24);
  EXPECT_EQ(take_all(again), range(0, 9));
  EXPECT_GT(again.stats().torn, 0u);
}

TEST(Spool, StopsAtADamagedRecord) {
  TemporaryFolder folder;
  leave_ten(folder.path);
  std::fstream file(last_segment(folder.path), std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(-5, std::ios::end);
  file.put('y');
  file.close();
  Spool again(folder.path, 1 << 24);
  EXPECT_EQ(take_all(again), range(0, 9));
}

TEST(Spool, PassesOverADamagedRecordAmongOthers) {
  TemporaryFolder folder;
  leave_ten(folder.path);
  std::fstream file(last_segment(folder.path), std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(100);
  file.put('y');
  file.close();
  Spool again(folder.path, 1 << 24);
  EXPECT_EQ(again.pending(), 9u);
  EXPECT_EQ(take_all(again), range(1, 10));
  EXPECT_EQ(again.stats().damaged, 1u);
  EXPECT_EQ(again.stats().torn, 0u);
  again.acknowledge(9);
  EXPECT_TRUE(again.empty());
}

TEST(Spool, DropsWhatIsNotEssentialFirst) {
  TemporaryFolder folder;
  const auto essential = [](const std::string& p) { return std::stoi(p) % 10 == 0; };
  Spool spool(folder.path, 1 << 18, {}, essential);
  // One is on its way: its segment stays as it is.
  spool.append(packet(0));
  ASSERT_TRUE(spool.next(0));
  for (int i = 1; i < 5000; ++i) spool.append(packet(i));
  spool.rewind();
  const auto got = take_all(spool);
  std::vector<int> missing;
  for (int i = 0; i < 5000; i += 10)
    if (std::find(got.begin(), got.end(), i) == got.end()) missing.push_back(i);
  EXPECT_TRUE(missing.empty()) << missing.size() << " from " << missing.front();
  EXPECT_TRUE(std::is_sorted(got.begin(), got.end()));
  EXPECT_EQ(spool.stats().dropped, 5000 - got.size());
  EXPECT_EQ(got.back(), 4999);
  spool.acknowledge(got.size());
  EXPECT_TRUE(spool.empty());
  // A thinned spool is read again as it is.
  for (int i = 0; i < 3000; ++i) spool.append(packet(i));
  Spool again(folder.path, 1 << 18, {}, essential);
  EXPECT_GE(take_all(again).size(), spool.pending());
}

TEST(Spool, DropsWhatIsTooOld) {
  TemporaryFolder folder;
  Spool spool(folder.path, 1 << 24, std::chrono::seconds(1));
  for (int i = 0; i < 1000; ++i) spool.append(packet(i));
  std::this_thread::sleep_for(std::chrono::milliseconds(1200));
  spool.append(packet(1000));
  const auto got = take_all(spool);
  // The segment that is being written stays whole.
  EXPECT_GT(got.front(), 500);
  EXPECT_EQ(got, range(got.front(), 1001));
}

TEST(Spool, AcknowledgementsOfWhatWasDroppedCountForNothingElse) {
  TemporaryFolder folder;
  Spool spool(folder.path, 1 << 18);
  for (int i = 0; i < 300; ++i) spool.append(packet(i));
  ASSERT_EQ(take_all(spool), range(0, 300));
  for (int i = 300; i < 5000; ++i) spool.append(packet(i));
  spool.acknowledge(300);
  const auto got = take_all(spool);
  EXPECT_EQ(got, range(5000 - int(got.size()), 5000));
  spool.rewind();
  EXPECT_EQ(take_all(spool), got);
}

TEST(Spool, DropsTheOldestWhenFull) {
  TemporaryFolder folder;
  Spool spool(folder.path, 1 << 18);
  for (int i = 0; i < 5000; ++i) spool.append(packet(i));
  const auto got = take_all(spool);
  EXPECT_EQ(got, range(5000 - int(got.size()), 5000));
  EXPECT_EQ(spool.stats().dropped, 5000 - got.size());
}

TEST(Spool, InterleavedReadingAndWriting) {
  TemporaryFolder folder;
  Spool spool(folder.path, 1 << 24);
  int want = 0;
  for (int i = 0; i < 3000; ++i) {
    spool.append(packet(i));
    if (i % 3 == 0) continue;
    while (const auto p = spool.next(0)) ASSERT_EQ(std::stoi(*p), want++);
    spool.acknowledge(size_t(i % 5));
  }
}
