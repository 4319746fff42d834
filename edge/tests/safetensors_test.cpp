#include "safetensors.hpp"

#include <gtest/gtest.h>

#include <stdexcept>

using namespace ruyicam::edge;

namespace {

std::string file(const std::string& header, const std::string& data) {
  std::string bytes(8, '\0');
  for (int i = 0; i < 8; ++i) bytes[size_t(i)] = char(uint64_t(header.size()) >> (8 * i));
  return bytes + header + data;
}

}  // namespace

TEST(Safetensors, ReadsWhatItShould) {
  const auto bytes = file(R"({"a":{"dtype":"I16","shape":[2],"data_offsets":[0,4]},"__metadata__":{"x":"y"}})",
                          std::string("\x01\x00\xff\xff", 4));
  const auto tensors = parse_safetensors(bytes);
  EXPECT_EQ(tensors.at("a").values<int16_t>("a", "I16", {2}), (std::vector<int16_t>{1, -1}));
  EXPECT_THROW(tensors.at("a").values<int16_t>("a", "I16", {1}), std::invalid_argument);
  EXPECT_THROW(tensors.at("a").values<int8_t>("a", "I8", {2}), std::invalid_argument);
}

TEST(Safetensors, RefusesMaliciousFiles) {
  const std::string four(4, 'x');
  const std::string bad[] = {
      "", "1234567", std::string(8, '\xff') + "{}", file("not json", ""), file("[]", ""), file(R"({"a":1})", ""),
      file(R"({"a":{"dtype":"I16","shape":[2],"data_offsets":[0,5]}})", four),
      file(R"({"a":{"dtype":"I16","shape":[2],"data_offsets":[4,0]}})", four),
      file(R"({"a":{"dtype":"I16","shape":[-2],"data_offsets":[0,4]}})", four),
      file(R"({"a":{"dtype":"F99","shape":[2],"data_offsets":[0,4]}})", four),
      file(R"({"a":{"dtype":"I64","shape":[4294967296,4294967296],"data_offsets":[0,0]}})", ""),
      file(R"({"a":{"dtype":"I16","shape":[2],"data_offsets":[0,4]},"b":{"dtype":"I16","shape":[2],"data_offsets":[2,6]}})", "xxxxxx"),
      file(R"({"a":{"dtype":"I16","shape":[2],"data_offsets":[0,4]}})", "xxxxhidden"),
      file(R"({"a":{"dtype":"I16","shape":[1],"data_offsets":[1.5,3]}})", four),
  };
  for (const auto& bytes : bad) EXPECT_THROW(parse_safetensors(bytes), std::invalid_argument) << bytes;
}
