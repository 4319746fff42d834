// Certificates and keys in PEM, and session certificates that wait on disk.
#include "credentials.hpp"

#include "certificate.hpp"
#include "fuzz.hpp"

using namespace ruyicam::edge;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto parts = fuzz::parts(data, size, 4);
  const auto& folder = fuzz::folder();
  for (size_t i = 0; i < 3; ++i) fuzz::write(folder / std::to_string(i), parts[i]);
  fuzz::refused([&] { load_credentials((folder / "0").string(), (folder / "1").string(), (folder / "2").string(), "camera"); }, {Exit::kCredentials});
  fuzz::write(folder / "00112233445566778899aabbccddeeff.json", parts[3]);
  for (const SessionCertificate& c : waiting_certificates(folder)) put_away(c);
  fuzz::demand(waiting_certificates(folder).empty(), "a certificate that was put away waits");
  return 0;
}
