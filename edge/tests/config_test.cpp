#include "config.hpp"

#include <gtest/gtest.h>

#include <fstream>

#include "error.hpp"
#include "temporary.hpp"

using namespace ruyicam::edge;

namespace {

const std::string kGood = R"(
source = "clip.mp4"
camera_id = "ward-3"
bundle = "b"
public_key = "p"
server = "localhost:1"
ca = "a"
cert = "c"
key = "k"
)";

struct Parsed {
  Action action = Action::kRun;
  Config config;
  EnrolOptions enrolment;
  std::string error;
};

Parsed parse(const std::string& toml, std::vector<std::string> flags = {}) {
  TemporaryFolder folder;
  const std::string path = folder.path / "edge.toml";
  std::ofstream(path) << toml;
  flags.insert(flags.begin(), {"ruyicam-edge", "--config", path});
  std::vector<char*> argv;
  for (auto& f : flags) argv.push_back(f.data());
  Parsed p;
  try {
    p.action = parse_command_line(int(argv.size()), argv.data(), p.config, p.enrolment);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Exit::kUsage);
    p.error = error.what();
  }
  return p;
}

}  // namespace

TEST(Config, FlagsWinOverTheFile) {
  const auto p = parse(kGood, {"--camera_id", "hall", "--realtime", "--drain_timeout_s=5"});
  EXPECT_EQ(p.error, "");
  EXPECT_EQ(p.config.source, "clip.mp4");
  EXPECT_EQ(p.config.camera_id, "hall");
  EXPECT_TRUE(p.config.realtime);
  EXPECT_EQ(p.config.drain_timeout_s, 5);
}

TEST(Config, PrintedConfigReadsBack) {
  const auto p = parse(kGood, {"--bits_per_day", "12.5"});
  const auto again = parse(to_toml(p.config));
  EXPECT_EQ(again.error, "");
  EXPECT_EQ(to_toml(again.config), to_toml(p.config));
}

TEST(Config, OneClearLineForBadInput) {
  EXPECT_NE(parse(kGood + "colour = 1\n").error.find("unknown key 'colour'"), std::string::npos);
  EXPECT_NE(parse(kGood + "threads = \"two\"\n").error.find("'threads' must be a whole number"), std::string::npos);
  EXPECT_NE(parse(kGood + "threads = 0\n").error.find("expected 1 to 256"), std::string::npos);
  EXPECT_NE(parse(kGood + "realtime = 1\n").error.find("true or false"), std::string::npos);
  EXPECT_NE(parse("source = \"x\"\n").error.find("'camera_id' is missing"), std::string::npos);
  EXPECT_NE(parse("source = \n").error.find("edge.toml:1"), std::string::npos);
  EXPECT_NE(parse(kGood, {"--camera_id", "a b"}).error.find("camera_id"), std::string::npos);
}

namespace {

const std::string kDevice = "bundle = \"b\"\npublic_key = \"p\"\nserver = \"localhost:1\"\nca = \"a\"\ncert = \"c\"\nkey = \"k\"\n";
const std::string kCamera = "[[cameras]]\nsource = \"rtsp://x/y\"\ncamera_id = ";

}  // namespace

TEST(Config, CamerasTakeWhatTheyDoNotSayFromTheDevice) {
  const auto p = parse(kDevice + "bits_per_day = 5\n" + kCamera + "\"east\"\n" + kCamera + "\"west\"\nbits_per_day = 7\nsource_retry = \"seen\"\n",
                       {"--state_dir", "s", "--source_timeout_s", "3"});
  ASSERT_EQ(p.error, "");
  const auto cameras = each_camera(p.config);
  ASSERT_EQ(cameras.size(), 2u);
  EXPECT_EQ(cameras[0].bits_per_day, 5);
  EXPECT_EQ(cameras[1].bits_per_day, 7);
  EXPECT_EQ(cameras[0].state_dir, "s/east");
  EXPECT_EQ(cameras[1].source_timeout_s, 3);
  EXPECT_EQ(cameras[0].source_retry, "always");
  EXPECT_EQ(cameras[1].source_retry, "seen");
  EXPECT_EQ(parse(kGood).config.source_retry, "seen");
  const auto again = parse(to_toml(p.config));
  EXPECT_EQ(again.error, "");
  EXPECT_EQ(to_toml(again.config), to_toml(p.config));
}

TEST(Config, OneClearLineForBadCameras) {
  const std::string one = kCamera + "\"east\"\n";
  EXPECT_NE(parse(kDevice + one + one).error.find("two cameras 'east'"), std::string::npos);
  EXPECT_NE(parse(kGood + one).error.find("'source' is given for the whole device"), std::string::npos);
  EXPECT_NE(parse(kDevice + one + "server = \"x:1\"\n").error.find("put it above [[cameras]]"), std::string::npos);
  EXPECT_NE(parse(kDevice + "[[cameras]]\nsource = \"x\"\n").error.find("edge.toml:7: a camera has no 'camera_id'"), std::string::npos);
  EXPECT_NE(parse(kDevice + "cameras = 3\n").error.find("[[cameras]]"), std::string::npos);
  EXPECT_NE(parse(kDevice + kCamera + "\"..\"\n").error.find("not '.' first"), std::string::npos);
}
