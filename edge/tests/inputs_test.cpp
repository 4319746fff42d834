#include "inputs.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <thread>
#include <vector>

#include "error.hpp"

using namespace ruyicam::edge;

TEST(Inputs, MessagesArriveWholeAndInOrder) {
  const std::vector<uint8_t> input(30000, 7);
  const InputPair pair(input.size());
  std::thread writer([&] {
    InputWriter out(pair.write);
    for (uint64_t tick = 0; tick < 100; ++tick) ASSERT_TRUE(out.write({.type = RecordType::kInput, .number = tick}, input.data(), input.size()));
    ASSERT_TRUE(out.write_text({.type = RecordType::kNotice}, "a line"));
  });
  InputReader reader(pair.read, input.size());
  for (uint64_t tick = 0; tick < 100; ++tick)
    ASSERT_TRUE(reader.read([&](const RecordHead& head, const uint8_t* bytes, size_t size) {
      ASSERT_EQ(head.number, tick);
      ASSERT_EQ(size, input.size());
      ASSERT_EQ(std::memcmp(bytes, input.data(), size), 0);
    }));
  ASSERT_TRUE(reader.read([&](const RecordHead& head, const uint8_t* bytes, size_t size) {
    EXPECT_EQ(head.type, RecordType::kNotice);
    EXPECT_EQ(std::string(reinterpret_cast<const char*>(bytes), size), "a line");
  }));
  writer.join();
}

TEST(Inputs, FewTicksWait) {
  const std::vector<uint8_t> input(30000, 7);
  const InputPair pair(input.size());
  InputWriter out(pair.write);
  int taken = 0;
  const std::string line(input.begin(), input.end());
  while (taken < 10 && out.try_write({.type = RecordType::kInput}, line)) ++taken;
  EXPECT_GE(taken, 1);
  EXPECT_LE(taken, 3);
  // What waits can be given up, and then there is room again.
  drain(pair.read);
  EXPECT_TRUE(out.try_write({.type = RecordType::kInput}, line));
}

TEST(Inputs, NothingGoesBack) {
  std::signal(SIGPIPE, SIG_IGN);
  const InputPair pair(100);
  EXPECT_LT(::write(pair.read, "x", 1), 0);
}

TEST(Inputs, TheBytesOfATickAreWipedAfterUse) {
  const InputPair pair(100);
  const std::string picture(100, 'x');
  ASSERT_TRUE(InputWriter(pair.write).write_text({.type = RecordType::kInput}, picture));
  InputReader reader(pair.read, 100);
  const uint8_t* where = nullptr;
  ASSERT_TRUE(reader.read([&](const RecordHead&, const uint8_t* bytes, size_t) { where = bytes; }));
  for (size_t i = 0; i < picture.size(); ++i) ASSERT_EQ(where[i], 0);
}

TEST(Inputs, AnInputThatIsTooLargeIsRefused) { EXPECT_THROW(InputPair(1 << 20), Error); }
