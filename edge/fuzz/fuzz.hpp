// What the edge's fuzz targets share. Everything that a device reads goes through one of them: whatever the bytes are, it
// takes them or says why not in one line with a documented exit code.
#pragma once
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "error.hpp"

namespace fuzz {

inline void demand(bool ok, const char* what) {
  if (ok) return;
  std::fprintf(stderr, "fuzz: %s\n", what);
  std::abort();
}

// An empty folder in memory, emptied at every call.
inline const std::filesystem::path& folder() {
  static const std::filesystem::path path = [] {
    spdlog::set_level(spdlog::level::off);
    std::filesystem::path made = std::filesystem::path("/dev/shm") / ("ruyicam-fuzz-" + std::to_string(::getpid()));
    std::atexit([] { std::filesystem::remove_all(std::filesystem::path("/dev/shm") / ("ruyicam-fuzz-" + std::to_string(::getpid()))); });
    return made;
  }();
  std::filesystem::remove_all(path);
  std::filesystem::create_directories(path);
  return path;
}

inline void write(const std::filesystem::path& path, std::string_view bytes) {
  std::ofstream(path, std::ios::binary).write(bytes.data(), std::streamsize(bytes.size()));
}

// The input in at most `count` parts, divided by a byte that no text of ours holds.
inline std::vector<std::string> parts(const uint8_t* data, size_t size, size_t count) {
  std::vector<std::string> out(1);
  for (size_t i = 0; i < size; ++i) {
    if (data[i] == 0xff && out.size() < count)
      out.emplace_back();
    else
      out.back() += char(data[i]);
  }
  out.resize(count);
  return out;
}

// Runs `body`; an Error must be one line of one of these codes, and nothing else may be thrown.
template <class Body>
bool refused(Body body, std::initializer_list<ruyicam::edge::Exit> codes) {
  try {
    body();
    return false;
  } catch (const ruyicam::edge::Error& error) {
    bool known = false;
    for (const auto code : codes) known = known || code == error.code();
    demand(known, "another exit code than is documented");
    demand(*error.what() != 0, "nothing said");
    return true;
  }
}

}  // namespace fuzz
