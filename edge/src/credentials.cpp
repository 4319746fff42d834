#include "credentials.hpp"

#include <openssl/bio.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <spdlog/spdlog.h>

#include <ctime>
#include <memory>

#include "files.hpp"

namespace ruyicam::edge {
namespace {

template <class T, void (*Free)(T*)>
struct Deleter {
  void operator()(T* p) const { Free(p); }
};
using Cert = std::unique_ptr<X509, Deleter<X509, X509_free>>;
using Key = std::unique_ptr<EVP_PKEY, Deleter<EVP_PKEY, EVP_PKEY_free>>;
struct FreeBio {
  void operator()(BIO* b) const { BIO_free(b); }
};
using Bio = std::unique_ptr<BIO, FreeBio>;

Bio memory(const std::string& pem) { return Bio(BIO_new_mem_buf(pem.data(), int(pem.size()))); }

Error fail(const std::string& path, const std::string& why) { return Error(Exit::kCredentials, path + ": " + why); }

std::string date_of(const ASN1_TIME* time) {
  std::tm tm{};
  if (!ASN1_TIME_to_tm(time, &tm)) return "?";
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S UTC", &tm);
  return text;
}

Cert read_certificate(const std::string& path, const std::string& pem) {
  Cert cert(PEM_read_bio_X509(memory(pem).get(), nullptr, nullptr, nullptr));
  if (!cert) throw fail(path, "not a certificate in PEM form");
  if (X509_cmp_current_time(X509_get0_notAfter(cert.get())) < 0)
    throw fail(path, "certificate expired on " + date_of(X509_get0_notAfter(cert.get())));
  if (X509_cmp_current_time(X509_get0_notBefore(cert.get())) > 0)
    throw fail(path, "certificate is not valid before " + date_of(X509_get0_notBefore(cert.get())));
  return cert;
}

}  // namespace

Credentials load_credentials(const std::string& ca, const std::string& cert, const std::string& key,
                             const std::string& camera_id) {
  constexpr size_t limit = 1 << 20;
  Credentials c{read_file(ca, Exit::kCredentials, limit), read_file(cert, Exit::kCredentials, limit),
                read_file(key, Exit::kCredentials, limit), 0};
  read_certificate(ca, c.ca);
  const Cert own = read_certificate(cert, c.cert);
  const Key secret(PEM_read_bio_PrivateKey(memory(c.key).get(), nullptr, nullptr, nullptr));
  if (!secret) throw fail(key, "not a private key in PEM form");
  if (X509_check_private_key(own.get(), secret.get()) != 1) throw fail(key, "is not the key of " + cert);
  char name[256] = {};
  X509_NAME_get_text_by_NID(X509_get_subject_name(own.get()), NID_commonName, name, sizeof name);
  if (camera_id != name)
    throw fail(cert, std::string("common name is '") + name + "', expected the camera_id '" + camera_id + "'");
  std::tm end{};
  if (ASN1_TIME_to_tm(X509_get0_notAfter(own.get()), &end)) c.expires = timegm(&end);
  return c;
}

CredentialFiles::CredentialFiles(std::string ca, std::string cert, std::string key, std::string camera_id)
    : ca_(std::move(ca)), cert_(std::move(cert)), key_(std::move(key)), camera_id_(std::move(camera_id)),
      current_(std::make_shared<const Credentials>(load_credentials(ca_, cert_, key_, camera_id_))) {}

std::shared_ptr<const Credentials> CredentialFiles::current() const {
  const std::lock_guard lock(mutex_);
  return current_;
}

bool CredentialFiles::renew() {
  try {
    auto found = std::make_shared<const Credentials>(load_credentials(ca_, cert_, key_, camera_id_));
    const std::lock_guard lock(mutex_);
    last_problem_.clear();
    if (*found == *current_) return false;
    current_ = std::move(found);
    return true;
  } catch (const Error& error) {
    const std::lock_guard lock(mutex_);
    if (last_problem_ != error.what()) spdlog::warn("credentials: {}", error.what());
    last_problem_ = error.what();
    return false;
  }
}

}  // namespace ruyicam::edge
