#include "certificate.hpp"

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>

#include "bundle.hpp"
#include "credentials.hpp"
#include "error.hpp"
#include "files.hpp"
#include "hex.hpp"
#include "ledger.hpp"

namespace ruyicam::edge {
namespace {

using nlohmann::json;

constexpr const char* kSent = ".sent.json";
constexpr size_t kKept = 100, kMost = 1 << 16;

// Between the thread that writes certificates and the one that sends them.
std::mutex files;

bool is_sent(const std::string& name) { return name.size() > std::strlen(kSent) && name.ends_with(kSent); }

template <class Wanted>
std::vector<std::filesystem::path> newest_last(const std::filesystem::path& folder, Wanted wanted) {
  std::vector<std::pair<std::filesystem::file_time_type, std::filesystem::path>> found;
  std::error_code problem;
  for (const auto& entry : std::filesystem::directory_iterator(folder, problem))
    if (entry.path().extension() == ".json" && wanted(entry.path().filename().string()))
      found.emplace_back(entry.last_write_time(problem), entry.path());
  std::sort(found.begin(), found.end());
  std::vector<std::filesystem::path> paths;
  for (auto& [time, path] : found) paths.push_back(std::move(path));
  return paths;
}

json or_null(double ceiling) { return std::isfinite(ceiling) ? json(ceiling) : json(nullptr); }

}  // namespace

std::string session_statement(const Bundle& b, const std::string& camera_id, const std::string& boot_hex, uint64_t begin_us,
                              uint64_t end_us, bool final, const LedgerTotals& before, const LedgerTotals& now) {
  const LedgerBudget& budget = b.budget;
  json visit = nullptr;
  if (b.certified()) visit = {{"seconds", b.visit_s}, {"mu", budget.visit_mu}, {"token_bits", budget.visit_token_bits}};
  return json{{"schema", 1},
              {"camera_id", camera_id},
              {"boot_id", boot_hex},
              {"begin_us", begin_us},
              {"end_us", end_us},
              {"final", final},
              {"bundle", {{"id", hex(b.id)}, {"name", b.name}, {"version", b.version}}},
              {"noise_sha256", hex(b.noise_hash)},
              {"prior_sha256", hex(b.prior_hash)},
              {"profile", b.profile},
              {"clip", b.release.clip},
              {"sigma", b.sigma},
              {"features", b.release.tokens * b.release.out_dim},
              {"bits_per_release", b.bits_per_release},
              {"budget",
               {{"bits_per_second", or_null(budget.bits_per_second)},
                {"bits_per_day", or_null(budget.bits_per_day)},
                {"mu_per_day", or_null(budget.mu_per_day)},
                {"token_bits_per_day", or_null(budget.token_bits_per_day)},
                {"visit", visit}}},
              {"spent",
               {{"releases", now.releases - before.releases},
                {"feature_bits", now.feature_bits - before.feature_bits},
                {"token_bits", now.token_bits - before.token_bits},
                {"mu", std::sqrt(std::max(0.0, now.mu_squared - before.mu_squared))}}},
              {"camera_total", {{"releases", now.releases}, {"bits", now.bits()}, {"mu", std::sqrt(now.mu_squared)}}}}
      .dump();
}

std::string sign(const Credentials& credentials, const std::string& bytes) {
  const std::unique_ptr<BIO, decltype(&BIO_free)> memory(BIO_new_mem_buf(credentials.key.data(), int(credentials.key.size())), BIO_free);
  const std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> key(PEM_read_bio_PrivateKey(memory.get(), nullptr, nullptr, nullptr), EVP_PKEY_free);
  const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(EVP_MD_CTX_new(), EVP_MD_CTX_free);
  size_t size = 0;
  const auto* data = reinterpret_cast<const unsigned char*>(bytes.data());
  std::string signature;
  bool good = key && context;
  const EVP_MD* digest = good && EVP_PKEY_base_id(key.get()) == EVP_PKEY_ED25519 ? nullptr : EVP_sha256();
  good = good && EVP_DigestSignInit(context.get(), nullptr, digest, nullptr, key.get()) == 1 &&
         EVP_DigestSign(context.get(), nullptr, &size, data, bytes.size()) == 1;
  if (good) {
    signature.resize(size);
    good = EVP_DigestSign(context.get(), reinterpret_cast<unsigned char*>(signature.data()), &size, data, bytes.size()) == 1;
    signature.resize(size);
  }
  if (!good) throw Error(Exit::kCredentials, "the device's private key cannot sign a certificate");
  return signature;
}

void write_certificate(const std::filesystem::path& folder, const std::string& boot_hex, const Credentials& credentials,
                       const std::string& statement) {
  const std::lock_guard lock(files);
  const json file = {{"statement", statement}, {"signature", hex(sign(credentials, statement))}, {"certificate", credentials.cert}};
  write_file_atomic(folder / (boot_hex + ".json"), file.dump(2) + "\n");
}

std::vector<SessionCertificate> waiting_certificates(const std::filesystem::path& folder) {
  std::vector<SessionCertificate> found;
  for (const auto& path : newest_last(folder, [](const std::string& name) { return !is_sent(name); })) {
    try {
      const json file = json::parse(read_file(path, Exit::kStorage, kMost));
      const std::string digits = file.at("signature");
      SessionCertificate c{path, file.at("statement"), std::string(digits.size() / 2, '\0'), file.at("certificate")};
      if (sodium_hex2bin(reinterpret_cast<unsigned char*>(c.signature.data()), c.signature.size(), digits.data(), digits.size(), nullptr,
                         nullptr, nullptr) == 0)
        found.push_back(std::move(c));
    } catch (const std::exception&) {
      // Not ours, or half a disk: the ledger has what counts.
    }
  }
  return found;
}

void put_away(const SessionCertificate& certificate) {
  const std::lock_guard lock(files);
  // A later one of the same boot may have come meanwhile, and is still to be sent.
  try {
    if (json::parse(read_file(certificate.path, Exit::kStorage, kMost)).at("statement") != certificate.statement) return;
  } catch (const std::exception&) {
    return;
  }
  std::filesystem::path sent = certificate.path;
  sent.replace_extension(kSent);
  std::error_code ignored;
  std::filesystem::rename(certificate.path, sent, ignored);
  const auto all = newest_last(certificate.path.parent_path(), is_sent);
  for (size_t i = 0; i + kKept < all.size(); ++i) std::filesystem::remove(all[i], ignored);
}

}  // namespace ruyicam::edge
