#include "seeing.hpp"

#include <time.h>
#include <unistd.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "encoder.hpp"
#include "front_end.hpp"
#include "isolation.hpp"
#include "vision.hpp"

namespace ruyicam::edge {
namespace {

using Say = std::function<void(const RecordHead&, const std::string&)>;

// What `body` throws is said, and its code returned.
template <class Body>
Exit reported(const Say& say, Body body) {
  const auto fail = [&](Exit code, const std::string& why) {
    say({.type = RecordType::kFailure, .kind = uint32_t(code)}, why);
    return code;
  };
  try {
    body();
    return Exit::kOk;
  } catch (const Error& error) {
    return fail(error.code(), error.what());
  } catch (const std::exception& error) {
    return fail(Exit::kInternal, std::string("internal error: ") + error.what());
  }
}

RecordHead done(const FrontEnd& front, const std::atomic<bool>& stop) {
  RecordHead head{.type = RecordType::kDone, .last = uint16_t(!stop)};
  head.values[0] = double(front.source_bytes());
  return head;
}

// Hands ticks on to the process with the model.
class Handing : public TickSink {
 public:
  Handing(InputWriter& out, size_t input) : out_(out), input_(input) {}
  void take(const int8_t* input, const TickTime& time) override { hand(RecordType::kInput, time, input, input_); }
  void skip(const TickTime& time) override { hand(RecordType::kSkipped, time, nullptr, 0); }
  void stage(const std::string& name, const nlohmann::json& figures) override { out_.write_text(stage_record(figures), name); }

 private:
  void hand(RecordType type, const TickTime& time, const void* input, size_t size) {
    RecordHead head{.type = type, .number = time.number, .time_us = time.epoch.start_us, .first_ns = time.epoch.first_ns, .live = time.pace};
    head.values[0] = double(time.begun_ns);
    if (!out_.write(head, input, size)) throw Error(Exit::kInternal, "the process with the model is gone");
  }
  InputWriter& out_;
  size_t input_;
};

// The process that decodes is not trusted: what it says of time is only counted with.
TickTime tick_time(const RecordHead& head) {
  const double begun = head.values[0];
  return {head.number, {head.first_ns, head.time_us}, head.live, begun > 0 && begun < 9e18 ? uint64_t(begun) : clock_ns(CLOCK_MONOTONIC)};
}

// One camera, in the process with the model.
void recognise_one(const Bundle& bundle, const Model& model, int fd, RecordPipe& pipe) {
  const size_t input = kernels::Preprocessor(bundle.preprocess).output_size();
  InputReader reader(fd, input);
  std::optional<Vision> vision;
  const auto use = [&](const RecordHead& head, const uint8_t* bytes, size_t size) {
    const auto pass_on = [&] { pipe.write(head, bytes, size); };
    const auto finish = [&](bool last) {
      if (vision) vision->finish(last);
      vision.reset();
    };
    switch (head.type) {
      case RecordType::kInput:
        if (size != input) throw Error(Exit::kInternal, "a tick of another size than the model's input");
        if (!vision) vision.emplace(bundle, model, pipe);
        return vision->take(reinterpret_cast<const int8_t*>(bytes), tick_time(head));
      case RecordType::kSkipped:
        if (!vision) vision.emplace(bundle, model, pipe);
        return vision->skip(tick_time(head));
      case RecordType::kDone:
        finish(head.last);
        return pass_on();
      case RecordType::kFailure:
        // What was seen before the source broke still goes out.
        finish(head.last);
        return pass_on();
      case RecordType::kGone:
        // Whatever it did not come to say is not known to be the end.
        finish(false);
        return pass_on();
      case RecordType::kStage:
      case RecordType::kNotice: return pass_on();
      default: throw Error(Exit::kInternal, "a message of no known kind");
    }
  };
  while (reader.read(use)) continue;
}

}  // namespace

Exit see(const Config& camera, const Bundle& bundle, RecordPipe& pipe, int source_fd, const Epoch& epoch, const std::atomic<bool>& stop) {
  return reported([&](const RecordHead& head, const std::string& line) { pipe.write_text(head, line); }, [&] {
    // The source first: it starts while the model is loaded.
    FrontEnd front(camera, bundle, source_fd, epoch);
    const Model model(bundle, encoder_options(camera));
    Vision vision(bundle, model, pipe);
    try {
      front.run(vision, stop);
    } catch (const Error& error) {
      if (error.code() != Exit::kSource) throw;
      // What was seen before the source broke still goes out.
      front.report(vision);
      vision.finish(!stop);
      throw;
    }
    front.report(vision);
    vision.finish(!stop);
    pipe.write(done(front, stop));
  });
}

Exit watch(const Config& camera, const Bundle& bundle, InputWriter& out, int source_fd, const Epoch& epoch, const std::atomic<bool>& stop) {
  const auto say = [&](RecordHead head, const std::string& line) {
    head.last = !stop;
    out.write_text(head, line);
  };
  return reported(say, [&] {
    FrontEnd front(camera, bundle, source_fd, epoch);
    Handing handing(out, kernels::Preprocessor(bundle.preprocess).output_size());
    front.run(handing, stop);
    front.report(handing);
    out.write(done(front, stop));
  });
}

Exit recognise(const Config& config, const Bundle& bundle, const std::vector<int>& inputs, std::vector<RecordPipe>& pipes) {
  const auto say_to = [&](size_t i) { return [&pipes, i](const RecordHead& head, const std::string& line) { pipes[i].write_text(head, line); }; };
  std::unique_ptr<const Model> model;
  const auto to_all = [&](const RecordHead& head, const std::string& line) {
    for (size_t i = 0; i < pipes.size(); ++i) say_to(i)(head, line);
  };
  const Exit loaded = reported(to_all, [&] {
    model = std::make_unique<const Model>(bundle, encoder_options(config));
    isolate_for_good();
  });
  if (loaded != Exit::kOk) return loaded;
  std::vector<std::thread> threads;
  for (size_t i = 0; i < inputs.size(); ++i)
    threads.emplace_back([&, i] {
      const Exit ended = reported(say_to(i), [&] { recognise_one(bundle, *model, inputs[i], pipes[i]); });
      // What is wrong with the model is wrong for every camera.
      if (ended != Exit::kOk) ::_exit(int(ended));
    });
  for (std::thread& thread : threads) thread.join();
  return Exit::kOk;
}

}  // namespace ruyicam::edge
