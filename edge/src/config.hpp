// The configuration of one device: a TOML file whose every key is also a flag; several cameras are tables in it.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace ruyicam::edge {

struct Config {
  std::string source;
  std::string camera_id;
  std::string bundle;
  std::string public_key;
  std::string server;  // host:port
  std::string ca, cert, key;
  std::string state_dir = "state";
  std::string stats;  // file for figures of the run, written at exit
  std::string metrics;  // host:port for metrics and health; empty: none
  std::string log_level = "info";
  bool realtime = false;
  int64_t source_timeout_s = 10;
  std::string source_retry = "seen";
  int64_t drain_timeout_s = 60;
  int64_t threads = 1;
  std::string provider = "cpu";
  bool fp16 = false;
  std::string engines;  // empty: engines in state_dir
  int64_t spool_max_bytes = 64 << 20;
  int64_t spool_max_hours = 0;
  int64_t packet_hold_ms = 500;
  int64_t update_every_s = 0;  // 0: no updates
  std::string update_folder;   // looked into as well as the server
  int64_t update_floor = 0;
  int64_t update_health_s = 30;
  int64_t update_trial_s = 900;
  std::string witness;         // empty: witness.json in state_dir
  double bits_per_second = 0;  // 0: the bundle's ceiling; a smaller number lowers it
  double bits_per_day = 0;
  double mu_per_day = 0;
  double token_bits_per_day = 0;
  // [[cameras]]: whole configurations, what a table does not say being the file's. Empty: this is the one camera.
  std::vector<Config> cameras;
};

// Of every camera its own.
std::vector<Config> each_camera(const Config& config);
// The one of that name; of a device with one camera, that one, whose name may be left out. Throws Error(kUsage).
Config named_camera(const Config& config, const std::string& camera_id);

std::string engines_of(const Config& config);

// `ruyicam-edge enrol`, see enrol.hpp.
struct EnrolOptions {
  std::string token;   // "-": the first line of standard input, where other users do not see it
  std::string server;  // HOST:PORT where the server enrols
  std::string camera;  // which of [[cameras]]
};

enum class Action { kRun, kDoctor, kEnrol, kPrintConfig, kExit };

// Command line over file over defaults. Prints help and version itself. Throws Error(kUsage) with one line that names
// the file, the key and what would be right.
Action parse_command_line(int argc, char** argv, Config& config, EnrolOptions& enrol);
// The configuration as TOML that parse_command_line reads back.
std::string to_toml(const Config& config);

}  // namespace ruyicam::edge
