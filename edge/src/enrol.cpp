#include "enrol.hpp"

#include <grpcpp/grpcpp.h>
#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <chrono>
#include <filesystem>
#include <iostream>
#include <memory>

#include "credentials.hpp"
#include "files.hpp"
#include "ruyicam/v1/uplink.grpc.pb.h"

namespace ruyicam::edge {
namespace {

namespace fs = std::filesystem;

constexpr auto kPatience = std::chrono::seconds(30);
constexpr size_t kMostPem = 1 << 16;

template <auto Free>
struct Deleter {
  template <class T>
  void operator()(T* p) const {
    Free(p);
  }
};
using Key = std::unique_ptr<EVP_PKEY, Deleter<EVP_PKEY_free>>;
using Request = std::unique_ptr<X509_REQ, Deleter<X509_REQ_free>>;
using Bio = std::unique_ptr<BIO, Deleter<BIO_free_all>>;

std::string text_of(BIO* bio) {
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio, &data);
  return {data, size_t(size)};
}

// Durable before the token is spent on it.
Key key_in(const fs::path& path) {
  if (fs::exists(path)) {
    const std::string pem = read_file(path, Exit::kCredentials, kMostPem);
    Key key(PEM_read_bio_PrivateKey(Bio(BIO_new_mem_buf(pem.data(), int(pem.size()))).get(), nullptr, nullptr, nullptr));
    if (!key) throw Error(Exit::kCredentials, path.string() + ": not a private key in PEM form; remove it to have a new one made");
    return key;
  }
  Key key(EVP_EC_gen("P-256"));
  const Bio pem(BIO_new(BIO_s_mem()));
  if (!key || PEM_write_bio_PKCS8PrivateKey(pem.get(), key.get(), nullptr, nullptr, 0, nullptr, nullptr) != 1)
    throw Error(Exit::kInternal, "no private key can be made");
  write_file_atomic(path, text_of(pem.get()));
  return key;
}

std::string request_of(EVP_PKEY* key, const std::string& camera_id) {
  const Request request(X509_REQ_new());
  const Bio pem(BIO_new(BIO_s_mem()));
  const bool ed25519 = EVP_PKEY_base_id(key) == EVP_PKEY_ED25519;
  X509_NAME* name = X509_REQ_get_subject_name(request.get());
  const bool good = X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, reinterpret_cast<const unsigned char*>(camera_id.data()),
                                               int(camera_id.size()), -1, 0) == 1 &&
                    X509_REQ_set_pubkey(request.get(), key) == 1 &&
                    X509_REQ_sign(request.get(), key, ed25519 ? nullptr : EVP_sha256()) > 0 &&
                    PEM_write_bio_X509_REQ(pem.get(), request.get()) == 1;
  if (!good) throw Error(Exit::kCredentials, "the private key cannot sign a certificate request");
  return text_of(pem.get());
}

}  // namespace

void enrol(const Config& config, const EnrolOptions& options) {
  if (fs::exists(config.cert)) throw Error(Exit::kUsage, config.cert + " exists already: this device is enrolled; remove it to enrol anew");
  std::string token = options.token;
  if (token == "-" && !std::getline(std::cin, token)) throw Error(Exit::kUsage, "no token on standard input");
  const std::string ca = read_file(config.ca, Exit::kCredentials, kMostPem);
  const Key key = key_in(config.key);
  v1::EnrolmentRequest request;
  request.set_token(token);
  request.set_request(request_of(key.get(), config.camera_id));
  const auto stub = v1::Enrolment::NewStub(grpc::CreateChannel(options.server, grpc::SslCredentials({ca, "", ""})));
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kPatience);
  v1::Enrolled reply;
  const grpc::Status status = stub->Enrol(&context, request, &reply);
  if (status.error_code() == grpc::StatusCode::PERMISSION_DENIED || status.error_code() == grpc::StatusCode::INVALID_ARGUMENT)
    throw Error(Exit::kCredentials, options.server + " refuses: " + status.error_message());
  if (!status.ok()) throw Error(Exit::kUndelivered, options.server + " cannot be reached, or its certificate is not of " + config.ca + ": " + status.error_message());
  // Looked at under another name first, so that a certificate that does not fit is none.
  const fs::path found = config.cert + ".new";
  write_file_atomic(found, reply.certificate());
  try {
    load_credentials(config.ca, found.string(), config.key, config.camera_id);
  } catch (const Error&) {
    fs::remove(found);
    throw;
  }
  fs::rename(found, config.cert);
  sync_folder(fs::absolute(config.cert).parent_path());
}

}  // namespace ruyicam::edge
