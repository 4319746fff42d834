// What a ledger is checked against at start: a secret key and a count that only rises, kept apart from it.
#pragma once
#include <array>
#include <cstdint>
#include <filesystem>
#include <string>

namespace ruyicam::edge {

// A file of its own; put it where a copy of the state folder does not reach (another partition, replay-protected memory).
class Witness {
 public:
  // Reads or creates `path`. Throws Error(kStorage) if it is damaged or cannot be written.
  explicit Witness(std::filesystem::path path);
  // HMAC-SHA-512-256 of the bytes under the witness's key (libsodium crypto_auth), 64 hex digits.
  std::string seal(const std::string& bytes) const;
  // The last count that was raised to; 0 for a witness that is new.
  uint64_t count() const { return count_; }
  // Durable when it returns. Throws Error(kStorage); the count is then what it was.
  void raise_to(uint64_t count);
  const std::filesystem::path& path() const { return path_; }
  ~Witness();
  Witness(const Witness&) = delete;
  Witness& operator=(const Witness&) = delete;

 private:
  void write(uint64_t count);

  std::filesystem::path path_;
  std::array<uint8_t, 32> key_{};
  uint64_t count_ = 0;
};

}  // namespace ruyicam::edge
