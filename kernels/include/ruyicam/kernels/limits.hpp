// What this machine could do at most, measured: the yardsticks of `ruyicam bench kernels`.
#pragma once
#include <cstddef>
#include <cstdint>

namespace ruyicam::kernels {

// Multiply-accumulates of bytes a second on one core, from registers alone, by the instruction that the mapping uses;
// 0 where there is no such loop for this processor. Runs for about `seconds`.
double int8_peak(double seconds);

// Bytes a second that one core reads from `data`; give more than the caches hold to measure memory.
double read_bandwidth(const uint8_t* data, size_t size, double seconds);

// Reads it all once, in order; the result depends on every byte.
uint64_t read_once(const uint8_t* data, size_t size);

}  // namespace ruyicam::kernels
