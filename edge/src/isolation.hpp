// Doors that are shut behind the process that sees frames, and those that its neighbours lose. docs/privacy.md lists them.
#pragma once
#include <string>

namespace ruyicam::edge {

// No core file, no debugger, no new privileges; the process ends when its parent does. Any process of ours, first thing.
void forbid_inspection(bool die_with_parent);

// Before any thread is started and anything opened: namespaces without network and IPC, and (Landlock) no file to be
// written but GStreamer's registry, devices and `engines` (if not empty), which the source and the model may need while they
// start. Memory is locked as it comes into use, and wiped when it is freed. Returns what this kernel or user does not allow, in words; empty: all of it works.
std::string isolate_before_start(const std::string& engines = {});

// Once the source runs: no capability is left but to lock memory, and system calls are those of an allow-list (seccomp) for every thread of
// the process: no socket, no file opened for writing, no shared memory, no process, no signal to others, no debugger.
// Throws Error(kInternal) if the filter cannot be put in place (fails closed).
void isolate_for_good();

// For the neighbours, which have network or files: no way to look into another process and, if `capabilities_too`, no
// capability but to read and write their own files. Throws Error(kInternal).
void give_up_inspecting(bool capabilities_too);

}  // namespace ruyicam::edge
