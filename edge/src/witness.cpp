#include "witness.hpp"

#include <sodium.h>

#include <nlohmann/json.hpp>

#include "files.hpp"
#include "hex.hpp"
#include "json.hpp"

namespace ruyicam::edge {

Witness::Witness(std::filesystem::path path) : path_(std::move(path)) {
  static_assert(crypto_auth_KEYBYTES == 32);
  if (sodium_init() < 0) throw Error(Exit::kInternal, "libsodium cannot be initialised");
  if (!std::filesystem::exists(path_)) {
    crypto_auth_keygen(key_.data());
    write(0);
    return;
  }
  try {
    const auto j = nlohmann::json::parse(read_file(path_, Exit::kStorage, 4096));
    if (whole_at<int>(j, "schema") != 1) throw std::invalid_argument("unknown schema");
    const auto digits = j.at("key").get<std::string>();
    size_t length = 0;
    if (sodium_hex2bin(key_.data(), key_.size(), digits.data(), digits.size(), nullptr, &length, nullptr) != 0 || length != key_.size())
      throw std::invalid_argument("key");
    count_ = whole_at<uint64_t>(j, "count");
  } catch (const Error&) {
    throw;
  } catch (const std::exception&) {
    throw Error(Exit::kStorage, "witness " + path_.string() + ": damaged, refusing to release features");
  }
}

Witness::~Witness() { sodium_memzero(key_.data(), key_.size()); }

void Witness::write(uint64_t count) {
  write_file_atomic(path_, nlohmann::json{{"schema", 1}, {"key", hex(key_)}, {"count", count}}.dump() + "\n");
  count_ = count;
}

std::string Witness::seal(const std::string& bytes) const {
  std::array<uint8_t, crypto_auth_BYTES> mac;
  crypto_auth(mac.data(), reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size(), key_.data());
  return hex(mac);
}

void Witness::raise_to(uint64_t count) { write(count); }

}  // namespace ruyicam::edge
