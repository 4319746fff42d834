#include "capture.hpp"

#include <gtest/gtest.h>

using namespace ruyicam::edge;

TEST(Capture, ASourceIsShownWithoutItsPassword) {
  EXPECT_EQ(shown_source("rtsp://user:secret@camera/stream"), "rtsp://camera/stream");
  EXPECT_EQ(shown_source("rtsp://user:secret@camera"), "rtsp://camera");
  EXPECT_EQ(shown_source("rtsp://camera/a@b"), "rtsp://camera/a@b");
  EXPECT_EQ(shown_source("clip.mp4"), "clip.mp4");
}
