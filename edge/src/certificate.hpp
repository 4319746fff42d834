// What a session has released, signed with the device's own key, so that anyone can check it later without the device.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

namespace ruyicam::edge {

struct Bundle;
struct Credentials;
struct LedgerTotals;

// What the signature is over, as JSON: who, which bundle, noise table and prior, C, sigma, the profile and its budget,
// and what was spent in this session and in all. Times in Unix microseconds.
std::string session_statement(const Bundle& bundle, const std::string& camera_id, const std::string& boot_hex, uint64_t begin_us,
                              uint64_t end_us, bool final, const LedgerTotals& before, const LedgerTotals& now);

// ECDSA or Ed25519 signature (SHA-256 with ECDSA) of the bytes by the device's private key, DER. Throws Error(kCredentials).
std::string sign(const Credentials& credentials, const std::string& bytes);

struct SessionCertificate {
  std::filesystem::path path;
  std::string statement, signature, certificate;  // JSON; bytes; PEM
};

// Writes FOLDER/BOOT.json: the statement, its signature in hex and the device's certificate. Throws Error(kStorage).
void write_certificate(const std::filesystem::path& folder, const std::string& boot_hex, const Credentials& credentials,
                       const std::string& statement);
// Those that are not put away yet, oldest boot first; damaged files are left out.
std::vector<SessionCertificate> waiting_certificates(const std::filesystem::path& folder);
// Keeps it as BOOT.sent.json, and of those the newest hundred.
void put_away(const SessionCertificate& certificate);

}  // namespace ruyicam::edge
