// slots.json and the bundles in the slots: the configured bundle, here damaged too, is the last resort.
#include "slots.hpp"

#include "fuzz.hpp"

using namespace ruyicam::edge;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto parts = fuzz::parts(data, size, 4);
  const auto& folder = fuzz::folder();
  fuzz::write(folder / "slots.json", parts[0]);
  for (const char* slot : {"a.ruyicam", "factory.ruyicam"}) std::filesystem::create_directories(folder / slot);
  fuzz::write(folder / "a.ruyicam" / "manifest.json", parts[1]);
  fuzz::write(folder / "a.ruyicam" / "manifest.sig", parts[2]);
  fuzz::write(folder / "key.pem", parts[3]);
  const bool failed = fuzz::refused(
      [&] {
        Slots slots(folder, folder / "factory.ruyicam", folder / "key.pem", 0);
        slots.load();
      },
      {Exit::kStorage, Exit::kBundle, Exit::kCredentials});
  fuzz::demand(failed, "a bundle without a signature was taken");
  return 0;
}
