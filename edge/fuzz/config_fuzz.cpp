// edge.toml and the command line: what is taken can be printed and read again; what is not is one line with code 2.
#include <fcntl.h>
#include <sys/mman.h>

#include <sstream>

#include "capture.hpp"
#include "config.hpp"
#include "fuzz.hpp"

using namespace ruyicam::edge;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto parts = fuzz::parts(data, size, 2);
  const auto path = fuzz::folder() / "edge.toml";
  fuzz::write(path, parts[0]);
  std::vector<std::string> words = {"ruyicam-edge", "--config", path.string()};
  std::istringstream line(parts[1]);
  // Help and version are for people.
  for (std::string word; line >> word && words.size() < 40;)
    if (word.rfind("--h", 0) != 0 && word.rfind("--v", 0) != 0 && (word[0] != '-' || word.rfind("--", 0) == 0)) words.push_back(word);
  std::vector<char*> argv;
  for (std::string& w : words) argv.push_back(w.data());
  Config config;
  EnrolOptions enrolment;
  Action action = Action::kExit;
  if (fuzz::refused([&] { action = parse_command_line(int(argv.size()), argv.data(), config, enrolment); }, {Exit::kUsage})) return 0;
  if (action == Action::kExit) return 0;
  shown_source(config.source), is_live(config.source), is_remote(config.source);
  const std::string printed = to_toml(config);
  fuzz::write(path, printed);
  char name[] = "ruyicam-edge", flag[] = "--config", print[] = "--print-config";
  std::string file = path.string();
  char* again[] = {name, flag, file.data(), print};
  Config copy;
  parse_command_line(4, again, copy, enrolment);
  fuzz::demand(to_toml(copy) == printed, "what was printed reads as something else");
  return 0;
}
