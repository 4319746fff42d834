#include "config.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <iostream>
#include <nlohmann/json.hpp>
#include <sstream>
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

// A TOML file can hold nothing else, and no line of the log should.
void require_utf8(const Config& config) {
  for (const Key& k : keys())
    if (const auto* field = std::get_if<std::string Config::*>(&k.field)) try {
        nlohmann::json(config.**field).dump();
      } catch (const nlohmann::json::type_error&) {
        throw Error(Exit::kUsage, std::string("'") + k.name + "' is not UTF-8");
      }
}

std::string known_keys() {
  std::string names;
  for (const Key& k : keys()) names += std::string(names.empty() ? "" : ", ") + k.name;
  return names;
}

template <class... F>
struct Visit : F... {
  using F::operator()...;
};

void read_toml(const std::string& path, Config& config) {
  const auto fail = [&](const std::string& why, const toml::source_region& at) {
    std::string where = path;
    if (at.begin.line) where += ":" + std::to_string(at.begin.line);
    return Error(Exit::kUsage, where + ": " + why);
  };
  toml::table table;
  try {
    table = toml::parse(read_file(path, Exit::kUsage, 1 << 20), path);
  } catch (const toml::parse_error& error) {
    throw fail(std::string(error.description()), error.source());
  }
  for (const auto& [name, node] : table) {
    const std::string key(name.str());
    const auto row = std::find_if(keys().begin(), keys().end(), [&](const Key& k) { return key == k.name; });
    if (row == keys().end()) throw fail("unknown key '" + key + "'; known keys: " + known_keys(), node.source());
    const auto wrong = [&](const char* type) { return fail("'" + key + "' must be " + type, node.source()); };
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

void require_address(const std::string& name, const std::string& value) {
  const size_t colon = value.rfind(':');
  int port = -1;
  if (colon != std::string::npos && colon > 0)
    if (const auto [end, problem] = std::from_chars(value.data() + colon + 1, value.data() + value.size(), port);
        problem != std::errc() || end != value.data() + value.size())
      port = -1;
  if (port < 0 || port > 65535) throw Error(Exit::kUsage, name + " is '" + value + "', expected HOST:PORT");
}

void check(const Config& config) {
  const auto fail = [](const std::string& why) { return Error(Exit::kUsage, why); };
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
                         throw fail(std::string("'") + k.name + "' is missing; give it in the config or as --" + k.name);
                     },
                     [](bool Config::*) {}, [&](int64_t Config::*f) { number(double(config.*f)); },
                     [&](double Config::*f) { number(config.*f); }},
               k.field);
  }
  const auto& id = config.camera_id;
  if (id.size() > 64 || id.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") != std::string::npos)
    throw fail("'camera_id' must be 1 to 64 letters, digits, '-', '_' or '.'");
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
  if (!file.empty()) read_toml(file, config);
  for (size_t i = 0; i < keys().size(); ++i)
    if (options[i]->count() > 0) std::visit([&](auto f) { config.*f = flags.*f; }, keys()[i].field);
  require_utf8(config);
  if (print) return Action::kPrintConfig;
  check(config);
  if (enrol->parsed()) require_address("--at", enrolment.server);
  return doctor->parsed() ? Action::kDoctor : enrol->parsed() ? Action::kEnrol : Action::kRun;
}

std::string to_toml(const Config& config) {
  toml::table table;
  for (const Key& k : keys()) std::visit([&](auto f) { table.insert(k.name, config.*f); }, k.field);
  std::ostringstream out;
  out << table << "\n";
  return out.str();
}

}  // namespace ruyicam::edge
