// Whole files, read at once and written so that a crash leaves the old or the new one, never half of one.
#pragma once
#include <filesystem>
#include <string>

#include "error.hpp"

namespace ruyicam::edge {

// Throws Error(code) that names the file and the system's reason.
std::string read_file(const std::filesystem::path& path, Exit code, size_t limit = size_t(1) << 30);
// Writes path.partial, syncs, renames, syncs the folder. Throws Error(kStorage).
void write_file_atomic(const std::filesystem::path& path, const std::string& bytes);
// Throws Error(kStorage) with the operation, the path and errno in words.
[[noreturn]] void throw_storage(const std::string& what, const std::filesystem::path& path);
// Creates a folder, and those above it, that is not there; returns it. Throws Error(kStorage).
std::filesystem::path make_folder(const std::filesystem::path& folder);
// Flushes a folder's entries to disk.
void sync_folder(const std::filesystem::path& folder);

}  // namespace ruyicam::edge
