#include "config.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string_view>
#include <toml++/toml.h>
#include <variant>
#include <vector>

#include "error.hpp"
#include "files.hpp"
#include "version.hpp"

namespace ruyicam::edge {
namespace {

// One row per key: the TOML reader, the flags and --print-config are all made from this table.
struct Key {
  const char* name;
  std::variant<std::string Config::*, bool Config::*, int64_t Config::*, double Config::*> field;
  const char* help;
  bool required = false;
  double low = 0, high = 0;  // range of a number
};

const std::vector<Key>& keys() {
  static const std::vector<Key> table = {
      {"source", &Config::source, "file, folder of files, rtsp://..., v4l2:/dev/videoN, csi:N, pipeline:GSTREAMER ELEMENTS, or frames:FD (edge.h)", true},
      {"camera_id", &Config::camera_id, "name of the camera, the common name of its certificate", true},
      {"bundle", &Config::bundle, "folder NAME.ruyicam", true},
      {"public_key", &Config::public_key, "PEM file of the Ed25519 key that bundles are signed with", true},
      {"server", &Config::server, "HOST:PORT of the service", true},
      {"ca", &Config::ca, "PEM file: authority that signed the server's certificate", true},
      {"cert", &Config::cert, "PEM file: this device's certificate", true},
      {"key", &Config::key, "PEM file: this device's private key", true},
      {"state_dir", &Config::state_dir, "folder of the ledger and the spool"},
      {"stats", &Config::stats, "JSON file for the figures of the run, written at exit"},
      {"metrics", &Config::metrics, "HOST:PORT for Prometheus metrics and health over HTTP, best on 127.0.0.1; empty: none"},
      {"log_level", &Config::log_level, "debug, info, warn or error"},
      {"realtime", &Config::realtime, "play a file at its own pace"},
      {"source_timeout_s", &Config::source_timeout_s, "seconds without a frame after which a source has failed", false, 1, 3600},
      {"source_retry", &Config::source_retry,
       "when a live source fails or ends: seen, open it again for ever once it has given a frame; always, before that too; never"},
      {"drain_timeout_s", &Config::drain_timeout_s, "seconds to wait for acknowledgements when the source has ended", false, 0, 86400},
      {"threads", &Config::threads, "threads of the encoder", false, 1, 256},
      {"provider", &Config::provider, "what runs the model: cpu, cuda or tensorrt, where this ONNX Runtime has it"},
      {"fp16", &Config::fp16, "tensorrt: half precision where it is faster"},
      {"engines", &Config::engines, "tensorrt: folder of built engines; default: engines in state_dir"},
      {"spool_max_bytes", &Config::spool_max_bytes, "most bytes that the spool keeps; heartbeats and empty packets are dropped first, oldest first", false, 1 << 17, 1e15},
      {"spool_max_hours", &Config::spool_max_hours, "how long a packet waits for the server at most; 0: for ever", false, 0, 87600},
      {"packet_hold_ms", &Config::packet_hold_ms, "live sources: time after its surroundings at which a tick's packet leaves, always", false, 10, 60000},
      {"update_every_s", &Config::update_every_s, "seconds between looks for another bundle, on the server and in update_folder; 0: never", false, 0, 31536000},
      {"update_folder", &Config::update_folder, "folder, as of a USB stick, whose *.ruyicam are taken if they are newer"},
      {"update_floor", &Config::update_floor, "least serial of a bundle that may run; bundles raise it themselves", false, 0, 9e15},
      {"update_health_s", &Config::update_health_s, "how long a new bundle must run well before it is kept", false, 1, 86400},
      {"update_trial_s", &Config::update_trial_s, "how long it may take to do so before it is taken back", false, 1, 604800},
      {"witness", &Config::witness, "file that tells an old copy of the ledger; best on another medium than state_dir"},
      {"bits_per_second", &Config::bits_per_second, "lowers the bundle's ceiling; 0 keeps it", false, 0, 1e12},
      {"bits_per_day", &Config::bits_per_day, "lowers the bundle's ceiling; 0 keeps it", false, 0, 1e15},
      {"mu_per_day", &Config::mu_per_day, "lowers the bundle's ceiling; 0 keeps it", false, 0, 1e9},
      {"token_bits_per_day", &Config::token_bits_per_day, "lowers the bundle's ceiling; 0 keeps it", false, 0, 1e9},
  };
  return table;
}

// What a table of [[cameras]] may say. Those that are a camera's alone are no one's beside such tables.
constexpr const char* kOfOneCamera[] = {"source", "camera_id", "witness"};
constexpr const char* kOfEachCamera[] = {"cert", "key", "state_dir", "realtime", "source_timeout_s", "source_retry", "spool_max_bytes", "spool_max_hours",
                                         "packet_hold_ms", "bits_per_second", "bits_per_day", "mu_per_day", "token_bits_per_day"};

template <size_t N>
bool among(const char* const (&names)[N], std::string_view name) {
  return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

bool of_camera(std::string_view name) { return among(kOfOneCamera, name) || among(kOfEachCamera, name); }

// A TOML file can hold nothing else, and no line of the log should.
void require_utf8(const Config& config) {
  for (const Key& k : keys())
    if (const auto* field = std::get_if<std::string Config::*>(&k.field)) try {
        nlohmann::json(config.**field).dump();
      } catch (const nlohmann::json::type_error&) {
        throw Error(Exit::kUsage, std::string("'") + k.name + "' is not UTF-8");
      }
}

std::string known_keys(bool camera) {
  std::string names;
  for (const Key& k : keys())
    if (!camera || of_camera(k.name)) names += std::string(names.empty() ? "" : ", ") + k.name;
  return camera ? names : names + ", cameras";
}

template <class... F>
struct Visit : F... {
  using F::operator()...;
};

Error wrong_at(const std::string& path, const std::string& why, const toml::source_region& at) {
  return Error(Exit::kUsage, path + (at.begin.line ? ":" + std::to_string(at.begin.line) : "") + ": " + why);
}

// The keys of the file, or of one table of [[cameras]].
void take_keys(const toml::table& table, const std::string& path, bool camera, Config& config) {
  for (const auto& [name, node] : table) {
    const std::string key(name.str());
    const auto fail = [&](const std::string& why) { return wrong_at(path, why, node.source()); };
    const auto row = std::find_if(keys().begin(), keys().end(), [&](const Key& k) { return key == k.name; });
    if (!camera && key == "cameras") continue;
    if (row != keys().end() && camera && !of_camera(key)) throw fail("'" + key + "' is the device's, not a camera's; put it above [[cameras]]");
    if (row == keys().end()) throw fail("unknown key '" + key + "'; known keys: " + known_keys(camera));
    const auto wrong = [&](const char* type) { return fail("'" + key + "' must be " + type); };
    std::visit(Visit{[&](std::string Config::*f) {
                       if (!node.is_string()) throw wrong("a string");
                       config.*f = node.value<std::string>().value();
                     },
                     [&](bool Config::*f) {
                       if (!node.is_boolean()) throw wrong("true or false");
                       config.*f = node.value<bool>().value();
                     },
                     [&](int64_t Config::*f) {
                       if (!node.is_integer()) throw wrong("a whole number");
                       config.*f = node.value<int64_t>().value();
                     },
                     [&](double Config::*f) {
                       if (!node.is_number()) throw wrong("a number");
                       config.*f = node.value<double>().value();
                     }},
               row->field);
  }
}

toml::table read_toml(const std::string& path) {
  try {
    return toml::parse(read_file(path, Exit::kUsage, 1 << 20), path);
  } catch (const toml::parse_error& error) {
    throw wrong_at(path, std::string(error.description()), error.source());
  }
}

// Each of [[cameras]] upon what the device says.
void take_cameras(const toml::table& file, const std::string& path, Config& config) {
  const toml::node* node = file.get("cameras");
  if (!node) return;
  const auto fail = [&](const std::string& why, const toml::node& at) { return wrong_at(path, why, at.source()); };
  if (!node->is_array_of_tables()) throw fail("'cameras' must be tables: [[cameras]]", *node);
  for (const char* name : kOfOneCamera)
    for (const Key& k : keys())
      if (k.name == std::string_view(name) && !(config.*std::get<std::string Config::*>(k.field)).empty())
        throw fail(std::string("'") + name + "' is given for the whole device, but there are [[cameras]]; give it in each of them", *node);
  for (const toml::node& each : *node->as_array()) {
    Config camera = config;
    camera.cameras.clear();
    take_keys(*each.as_table(), path, true, camera);
    if (camera.camera_id.empty()) throw fail("a camera has no 'camera_id'", each);
    if (!each.as_table()->contains("state_dir")) camera.state_dir = config.state_dir + "/" + camera.camera_id;
    for (const Config& other : config.cameras) {
      if (other.camera_id == camera.camera_id) throw fail("there are two cameras '" + camera.camera_id + "'", each);
      if (std::filesystem::path(other.state_dir).lexically_normal() == std::filesystem::path(camera.state_dir).lexically_normal())
        throw fail("cameras '" + other.camera_id + "' and '" + camera.camera_id + "' have the same 'state_dir'", each);
    }
    config.cameras.push_back(std::move(camera));
  }
}

void require_address(const std::string& name, const std::string& value) {
  const size_t colon = value.rfind(':');
  int port = -1;
  if (colon != std::string::npos && colon > 0)
    if (const auto [end, problem] = std::from_chars(value.data() + colon + 1, value.data() + value.size(), port);
        problem != std::errc() || end != value.data() + value.size())
      port = -1;
  if (port < 0 || port > 65535) throw Error(Exit::kUsage, name + " is '" + value + "', expected HOST:PORT");
}

void check(const Config& config, const std::string& whose = "") {
  const auto fail = [&](const std::string& why) { return Error(Exit::kUsage, whose + why); };
  for (const Key& k : keys()) {
    const auto number = [&](double v) {
      if (v < k.low || v > k.high) {
        std::ostringstream text;
        text << "'" << k.name << "' is " << v << ", expected " << k.low << " to " << k.high;
        throw fail(text.str());
      }
    };
    std::visit(Visit{[&](std::string Config::*f) {
                       if (k.required && (config.*f).empty())
                         throw fail(std::string("'") + k.name + "' is missing; give it in the config" + (whose.empty() ? std::string(" or as --") + k.name : ""));
                     },
                     [](bool Config::*) {}, [&](int64_t Config::*f) { number(double(config.*f)); },
                     [&](double Config::*f) { number(config.*f); }},
               k.field);
  }
  const auto& id = config.camera_id;
  if (id.size() > 64 || id.front() == '.' || id.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") != std::string::npos)
    throw fail("'camera_id' must be 1 to 64 letters, digits, '-', '_' or '.', not '.' first");
  if (config.log_level != "debug" && config.log_level != "info" && config.log_level != "warn" && config.log_level != "error")
    throw fail("'log_level' is '" + config.log_level + "', expected debug, info, warn or error");
  if (config.source_retry != "seen" && config.source_retry != "always" && config.source_retry != "never")
    throw fail("'source_retry' is '" + config.source_retry + "', expected seen, always or never");
  if (config.provider != "cpu" && config.provider != "cuda" && config.provider != "tensorrt")
    throw fail("'provider' is '" + config.provider + "', expected cpu, cuda or tensorrt");
  require_address("'server'", config.server);
  if (!config.metrics.empty()) require_address("'metrics'", config.metrics);
}

}  // namespace

std::vector<Config> each_camera(const Config& config) { return config.cameras.empty() ? std::vector{config} : config.cameras; }

Config named_camera(const Config& config, const std::string& camera_id) {
  const auto cameras = each_camera(config);
  if (cameras.size() == 1 && camera_id.empty()) return cameras[0];
  std::string known;
  for (const Config& camera : cameras) {
    if (camera.camera_id == camera_id) return camera;
    known += (known.empty() ? "" : ", ") + camera.camera_id;
  }
  throw Error(Exit::kUsage, camera_id.empty() ? "there are several cameras; say which with --camera: " + known
                                              : "there is no camera '" + camera_id + "'; there are: " + known);
}

std::string engines_of(const Config& config) { return config.engines.empty() ? config.state_dir + "/engines" : config.engines; }

Action parse_command_line(int argc, char** argv, Config& config, EnrolOptions& enrolment) {
  CLI::App app{"ruyicam-edge: turns a camera's frames into bounded features; nothing else leaves the device"};
  std::string file;
  bool print = false, version = false;
  app.add_option("--config", file, "TOML file; every key is also a flag");
  app.add_flag("--print-config", print, "print the resulting configuration as TOML and exit");
  app.add_flag("--version", version, "print the version and exit");
  app.fallthrough();
  const CLI::App* doctor = app.add_subcommand("doctor", "look at camera, model, GPU, clock, disk and link, say how to mend what is wrong, and exit");
  CLI::App* enrol = app.add_subcommand("enrol", "get this camera's certificate for a token that is good once, and exit");
  enrol->add_option("--token", enrolment.token, "what 'ruyicam enrol' printed; -: read it from standard input")->required();
  enrol->add_option("--at", enrolment.server, "HOST:PORT where the server enrols")->required();
  enrol->add_option("--camera", enrolment.camera, "which of [[cameras]] it is");
  app.require_subcommand(0, 1);
  Config flags;
  std::vector<CLI::Option*> options;
  for (const Key& k : keys()) {
    const std::string name = std::string("--") + k.name;
    options.push_back(std::visit(
        Visit{[&](std::string Config::*f) { return app.add_option(name, flags.*f, k.help); },
              [&](bool Config::*f) { return app.add_flag(name + ",!--no-" + k.name, flags.*f, k.help); },
              [&](int64_t Config::*f) { return app.add_option(name, flags.*f, k.help); },
              [&](double Config::*f) { return app.add_option(name, flags.*f, k.help); }},
        k.field));
    // As usual, the last one given counts.
    options.back()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    std::cout << app.help();
    return Action::kExit;
  } catch (const CLI::ParseError& error) {
    throw Error(Exit::kUsage, error.what());
  }
  if (version) {
    std::cout << "ruyicam-edge " << kVersion << "\n";
    return Action::kExit;
  }
  toml::table table;
  config.source_retry.clear();
  if (!file.empty()) take_keys(table = read_toml(file), file, false, config);
  for (size_t i = 0; i < keys().size(); ++i)
    if (options[i]->count() > 0) std::visit([&](auto f) { config.*f = flags.*f; }, keys()[i].field);
  take_cameras(table, file, config);
  // Of several cameras one that is away must not keep the others from working.
  const bool several = !config.cameras.empty();
  for (Config& camera : config.cameras)
    if (camera.source_retry.empty()) camera.source_retry = "always";
  if (config.source_retry.empty()) config.source_retry = several ? "always" : "seen";
  require_utf8(config);
  for (const Config& camera : config.cameras) require_utf8(camera);
  if (print) return Action::kPrintConfig;
  for (const Config& camera : each_camera(config)) check(camera, several ? "camera '" + camera.camera_id + "': " : "");
  if (enrol->parsed()) require_address("--at", enrolment.server);
  return doctor->parsed() ? Action::kDoctor : enrol->parsed() ? Action::kEnrol : Action::kRun;
}

std::string to_toml(const Config& config) {
  toml::table table;
  for (const Key& k : keys())
    if (config.cameras.empty() || !among(kOfOneCamera, k.name)) std::visit([&](auto f) { table.insert(k.name, config.*f); }, k.field);
  toml::array cameras;
  for (const Config& camera : config.cameras) {
    toml::table one;
    for (const Key& k : keys())
      if (of_camera(k.name)) std::visit([&](auto f) { one.insert(k.name, camera.*f); }, k.field);
    cameras.push_back(std::move(one));
  }
  if (!cameras.empty()) table.insert("cameras", std::move(cameras));
  std::ostringstream out;
  out << table << "\n";
  return out.str();
}

}  // namespace ruyicam::edge
