// What a signed bundle must satisfy is tested on a real one in tests/test_bundle.py; here the arithmetic and the
// refusals that need no bundle.
#include "bundle.hpp"

#include <gtest/gtest.h>

#include <fstream>

#include "error.hpp"
#include "temporary.hpp"

using namespace ruyicam::edge;

TEST(Bundle, BitsPerReleaseIsTheGaussianChannelBound) {
  EXPECT_NEAR(bits_per_release(96, 136, 8), 96.18010247333314, 1e-9);
  EXPECT_NEAR(bits_per_release(1, 1, 1), 0.5, 1e-12);
}

TEST(Bundle, RefusesAKeyThatIsNone) {
  TemporaryFolder folder;
  const auto key = folder.path / "k.pub";
  std::ofstream(key) << "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n";
  try {
    load_bundle(folder.path, key);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Exit::kCredentials);
  }
}
