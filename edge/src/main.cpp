#include <grpc/support/log.h>
#include <grpcpp/version_info.h>
#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <csignal>
#include <iostream>
#include <nlohmann/json.hpp>

#include "config.hpp"
#include "doctor.hpp"
#include "enrol.hpp"
#include "error.hpp"
#include "isolation.hpp"
#include "log_camera.hpp"
#include "runtime.hpp"

namespace {

std::atomic<bool> stop{false};

void on_signal(int) { stop = true; }

// One JSON object a line: time, level, message, and the camera whose it is.
class JsonText : public spdlog::custom_flag_formatter {
 public:
  void format(const spdlog::details::log_msg& message, const std::tm&, spdlog::memory_buf_t& out) override {
    const auto quoted = [](const std::string& s) { return nlohmann::json(s).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace); };
    std::string text = quoted(std::string(message.payload.data(), message.payload.size()));
    if (const std::string& camera = ruyicam::edge::log_camera(); !camera.empty()) text += ",\"camera\":" + quoted(camera);
    out.append(text.data(), text.data() + text.size());
  }
  std::unique_ptr<custom_flag_formatter> clone() const override { return std::make_unique<JsonText>(); }
};

void set_up_logging(const std::string& level) {
  auto formatter = std::make_unique<spdlog::pattern_formatter>(spdlog::pattern_time_type::utc);
  formatter->add_flag<JsonText>('*').set_pattern(R"({"time":"%Y-%m-%dT%H:%M:%S.%eZ","level":"%l","message":%*})");
  auto logger = spdlog::stderr_logger_mt("edge");
  logger->set_formatter(std::move(formatter));
  logger->set_level(spdlog::level::from_str(level));
  spdlog::set_default_logger(logger);
#if GRPC_CPP_VERSION_MAJOR == 1 && GRPC_CPP_VERSION_MINOR < 66
  // gRPC would write lines of its own; what matters of them comes back as the status of a call.
  gpr_set_log_function([](gpr_log_func_args* args) { spdlog::debug("grpc: {}", args->message); });
#endif
}

}  // namespace

int main(int argc, char** argv) {
  using namespace ruyicam::edge;
  try {
    Config config;
    EnrolOptions enrolment;
    const Action action = parse_command_line(argc, argv, config, enrolment);
    if (action == Action::kExit) return 0;
    if (action == Action::kPrintConfig) {
      std::cout << to_toml(config);
      return 0;
    }
    forbid_inspection(false);
    set_up_logging(config.log_level == "warn" ? "warning" : config.log_level);
    std::signal(SIGTERM, on_signal);
    std::signal(SIGINT, on_signal);
    std::signal(SIGXFSZ, SIG_IGN);
    if (action == Action::kEnrol) {
      const Config camera = named_camera(config, enrolment.camera);
      enrol(camera, enrolment);
      std::cout << "enrolled as " << camera.camera_id << ": wrote " << camera.cert << "\n";
      return 0;
    }
    return int(action == Action::kDoctor ? doctor(config, stop) : run(config, stop));
  } catch (const Error& error) {
    std::cerr << "ruyicam-edge: " << error.what() << "\n";
    return int(error.code());
  } catch (const std::exception& error) {
    std::cerr << "ruyicam-edge: internal error: " << error.what() << "\n";
    return int(Exit::kInternal);
  }
}
