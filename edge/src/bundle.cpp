#include "bundle.hpp"

#include <sodium.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "files.hpp"
#include "hex.hpp"
#include "json.hpp"
#include "safetensors.hpp"

namespace ruyicam::edge {
namespace {

using nlohmann::json;

std::array<uint8_t, crypto_sign_PUBLICKEYBYTES> read_public_key(const std::filesystem::path& path) {
  const std::string pem = read_file(path, Exit::kCredentials, 4096);
  const std::string head = "-----BEGIN PUBLIC KEY-----", tail = "-----END PUBLIC KEY-----";
  const size_t begin = pem.find(head), end = pem.find(tail);
  // DER of an Ed25519 SubjectPublicKeyInfo (RFC 8410): this prefix, then the 32 bytes of the key.
  static const uint8_t prefix[12] = {0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00};
  uint8_t der[44];
  size_t length = 0;
  if (begin == std::string::npos || end == std::string::npos || end < begin ||
      sodium_base642bin(der, sizeof der, pem.data() + begin + head.size(), end - begin - head.size(), " \n\r\t",
                        &length, nullptr, sodium_base64_VARIANT_ORIGINAL) != 0 ||
      length != sizeof der || std::memcmp(der, prefix, sizeof prefix) != 0)
    throw Error(Exit::kCredentials, path.string() + ": not an Ed25519 public key in PEM form");
  std::array<uint8_t, crypto_sign_PUBLICKEYBYTES> key;
  std::memcpy(key.data(), der + sizeof prefix, key.size());
  return key;
}

std::array<uint8_t, 32> sha256(const void* bytes, size_t size) {
  std::array<uint8_t, 32> digest;
  crypto_hash_sha256(digest.data(), static_cast<const uint8_t*>(bytes), size);
  return digest;
}

// What the name of a certified profile promises of a visit.
struct Promise {
  const char* profile;
  double mu, token_bits;
};
constexpr Promise kPromises[] = {{"strict", 0.5, 2}, {"standard", 1, 3}};

double or_unlimited(const json& value) { return value.is_null() ? kUnlimited : value.get<double>(); }

void read_privacy(const json& p, Bundle& b) {
  b.profile = p.at("profile");
  b.block_ticks = whole_at<int>(p, "block_ticks");
  if (b.block_ticks < 1) throw std::invalid_argument("block_ticks must be at least 1");
  b.budget = {p.at("bits_per_second"), p.at("bits_per_day"), or_unlimited(p.at("mu_per_day")), or_unlimited(p.at("token_bits_per_day"))};
  const json& visit = p.at("visit");
  const auto promise = std::find_if(std::begin(kPromises), std::end(kPromises), [&](const Promise& x) { return b.profile == x.profile; });
  if (promise == std::end(kPromises)) {
    if (b.profile != "reasoning") throw std::invalid_argument("profile is '" + b.profile + "', expected strict, standard or reasoning");
    if (!visit.is_null() || b.block_ticks != 1) throw std::invalid_argument("profile reasoning has no visits and blocks of one tick");
    return;
  }
  b.visit_s = visit.at("seconds");
  b.budget.visit_mu = visit.at("mu");
  b.budget.visit_token_bits = visit.at("token_bits");
  if (!(b.visit_s > 0 && b.visit_s <= 86400)) throw std::invalid_argument("a visit must be above 0 and at most 86400 seconds");
  if (!(b.budget.visit_mu <= promise->mu && b.budget.visit_token_bits <= promise->token_bits))
    throw std::invalid_argument("budget of a visit is above that of profile '" + b.profile + "'");
  // A visit reaches into the block that it ends in, which is released later.
  b.budget.visit_us = uint64_t((b.visit_s + double(b.block_ticks) / b.rate_hz) * 1e6);
}

// The noise table must be that of the stated sigma, or the stated bound would not hold.
void check_noise(const std::vector<uint64_t>& cdf, double sigma) {
  const double half = double(cdf.size() / 2);
  for (size_t i = 0; i < cdf.size(); ++i) {
    const double edge = (double(i) - half + 0.5) / sigma;
    const double want = 0.5 * std::erfc(-edge / std::sqrt(2.0));
    if (std::abs(double(cdf[i]) / 18446744073709551616.0 - want) > 1e-12)
      throw std::invalid_argument("noise table is not that of sigma " + std::to_string(sigma));
  }
  if (half / sigma < 8.5) throw std::invalid_argument("noise table ends before the tail is negligible");
}

Bundle parse(const json& m, std::string onnx, const std::string& tensors) {
  Bundle b;
  b.name = m.at("name");
  b.version = m.at("version");
  if (m.contains("serial")) b.serial = whole_at<uint64_t>(m, "serial");
  if (m.contains("floor")) b.floor = whole_at<uint64_t>(m, "floor");
  if (b.floor > b.serial) throw std::invalid_argument("floor is above the bundle's own serial");
  b.labels = m.at("labels").get<std::vector<std::string>>();
  b.alphabet = m.at("alphabet").get<std::vector<std::string>>();
  const auto prior = m.at("token_prior").get<std::vector<double>>();
  if (b.labels.size() < 2 || prior.size() != b.alphabet.size())
    throw std::invalid_argument("alphabet and token_prior do not fit together");
  double total = 0;
  for (const double p : prior) {
    if (!(p > 0 && p <= 1)) throw std::invalid_argument("token_prior entries must be above 0 and at most 1");
    b.token_bits.push_back(-std::log2(p));
    total += p;
  }
  if (std::abs(total - 1) > 1e-6) throw std::invalid_argument("token_prior does not add up to 1");
  const json &in = m.at("input"), &f = m.at("features"), &map = m.at("mapping"), &g = m.at("gate"), &p = m.at("privacy");
  b.rate_hz = whole_at<int>(in, "rate_hz");
  b.preprocess = {whole_at<int>(in, "width"), whole_at<int>(in, "height"), whole_at<int>(in, "background_shift"), whole_at<int>(in, "mask_floor")};
  b.window = whole_at<int>(f, "window");
  if (b.rate_hz < 1 || b.rate_hz > 60) throw std::invalid_argument("rate_hz must be 1 to 60");
  if (b.window < 2 || b.window > 600) throw std::invalid_argument("window must be 2 to 600");
  kernels::MappingParams& k = b.mapping;
  k.tokens = whole_at<int>(f, "tokens");
  k.in_dim = whole_at<int>(f, "dim");
  k.out_dim = whole_at<int>(f, "out_dim");
  k.input_scale = map.at("input_scale").get<float>();
  k.multiplier = whole_at<int32_t>(map, "multiplier");
  k.round = whole_at<int64_t>(map, "round");
  k.shift = whole_at<int>(map, "shift");
  k.clip = whole_at<int32_t>(map, "clip");
  k.bits = whole_at<int>(map, "bits");
  const auto parsed = parse_safetensors(tensors);
  const size_t d = size_t(k.out_dim), dim = size_t(k.in_dim);
  k.weight = parsed.at("weight").values<int8_t>("weight", "I8", {d, dim});
  k.bias = parsed.at("bias").values<int32_t>("bias", "I32", {d});
  const Tensor& lut = parsed.at("lut");
  k.lut = lut.values<int16_t>("lut", "I16", {lut.shape.empty() ? 0 : lut.shape[0]});
  const Tensor& cdf = parsed.at("noise_cdf");
  b.look_threshold = g.at("look_threshold");
  b.around_ticks = whole_at<int>(g, "around_ticks");
  b.heartbeat_ticks = whole_at<int>(g, "heartbeat_ticks");
  if (b.around_ticks < 0 || b.around_ticks > 100 || b.heartbeat_ticks < 1) throw std::invalid_argument("gate is out of range");
  read_privacy(p, b);
  b.sigma = p.at("sigma");
  b.bits_per_release = p.at("bits_per_release");
  if (!(b.sigma > 0)) throw std::invalid_argument("sigma must be above 0");
  k.noise_cdf = cdf.values<uint64_t>("noise_cdf", "U64", {cdf.shape.empty() ? 0 : cdf.shape[0]});
  check_noise(k.noise_cdf, b.sigma);
  b.release = k;
  b.release.clip = whole_at<int32_t>(p, "clip");
  if (!b.certified() && b.release.clip != k.clip) throw std::invalid_argument("privacy and mapping disagree");
  // A certified profile tells only whether someone should look.
  if (b.alphabet.size() != (b.certified() ? 2 : b.labels.size() + 1))
    throw std::invalid_argument("labels and alphabet do not fit together");
  kernels::Mapping{k};  // throws if the constants do not fit together
  kernels::Mapping{b.release};
  kernels::Preprocessor{b.preprocess};
  const double bound = bits_per_release(size_t(k.tokens) * d, b.release.clip, b.sigma);
  if (std::abs(bound - b.bits_per_release) > 1e-6 * bound)
    throw std::invalid_argument("bits_per_release is " + std::to_string(b.bits_per_release) + ", the bound is " +
                                std::to_string(bound));
  b.noise_hash = sha256(k.noise_cdf.data(), k.noise_cdf.size() * sizeof(uint64_t));
  b.prior_hash = sha256(prior.data(), prior.size() * sizeof(double));
  b.onnx = std::move(onnx);
  return b;
}

}  // namespace

double Bundle::worst_token_bits() const { return *std::max_element(token_bits.begin(), token_bits.end()); }

double bits_per_release(size_t features, double clip, double sigma) {
  const double n = double(features);
  return n / 2 * std::log2(1 + clip * clip / (n * sigma * sigma));
}

Bundle load_bundle(const std::filesystem::path& folder, const std::filesystem::path& public_key) {
  if (sodium_init() < 0) throw Error(Exit::kInternal, "libsodium cannot be initialised");
  const auto key = read_public_key(public_key);
  const auto refuse = [&](const std::string& why) -> Error {
    return Error(Exit::kBundle, "bundle " + folder.string() + ": " + why);
  };
  const std::string manifest = read_file(folder / "manifest.json", Exit::kBundle, 1 << 20);
  if (!std::filesystem::exists(folder / "manifest.sig")) throw refuse("unsigned: there is no manifest.sig");
  const std::string signature = read_file(folder / "manifest.sig", Exit::kBundle, 1024);
  if (signature.size() != crypto_sign_BYTES ||
      crypto_sign_verify_detached(reinterpret_cast<const uint8_t*>(signature.data()),
                                  reinterpret_cast<const uint8_t*>(manifest.data()), manifest.size(), key.data()) != 0)
    throw refuse("the signature does not fit the manifest and " + public_key.string());
  const auto part = [&](const std::string& name, const std::string& digest) {
    std::string bytes = read_file(folder / name, Exit::kBundle, size_t(256) << 20);
    if (hex(sha256(bytes.data(), bytes.size())) != digest) throw refuse(name + " does not have the hash that the manifest gives");
    return bytes;
  };
  try {
    return parse_bundle(manifest, part);
  } catch (const std::invalid_argument& error) {
    throw refuse(error.what());
  }
}

Bundle parse_bundle(const std::string& manifest, const std::function<std::string(const std::string&, const std::string&)>& part) {
  try {
    const json m = json::parse(manifest);
    if (const int schema = whole_at<int>(m, "schema"); schema != kBundleSchema)
      throw std::invalid_argument("schema " + std::to_string(schema) + ", this runtime reads schema " + std::to_string(kBundleSchema));
    const auto file = [&](const char* name) { return part(name, m.at("files").at(name).at("sha256")); };
    Bundle bundle = parse(m, file("edge.onnx"), file("mapping.safetensors"));
    const auto digest = sha256(manifest.data(), manifest.size());
    std::memcpy(bundle.id.data(), digest.data(), bundle.id.size());
    return bundle;
  } catch (const json::exception& error) {
    throw std::invalid_argument(std::string("manifest: ") + error.what());
  } catch (const NotWhole& error) {
    throw std::invalid_argument(std::string("manifest: ") + error.what());
  } catch (const std::out_of_range&) {
    throw std::invalid_argument("mapping.safetensors lacks a tensor");
  }
}

}  // namespace ruyicam::edge
