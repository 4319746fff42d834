// Just enough of CUDA's device language to run the kernels' device code on the CPU: a block's threads are real threads that
// meet at barriers, blocks run one after the other. Slow; it checks the arithmetic and the order of things, not the hardware.
#pragma once
#include <algorithm>
#include <barrier>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <thread>
#include <vector>

#define __device__
#define __global__
#define __launch_bounds__(threads)
#define __shared__ static

struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(16) int4 {
  int32_t x, y, z, w;
};
struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};

namespace cuda_on_cpu {

struct Index {
  unsigned x = 0, y = 0;
};

inline thread_local Index thread, block;
inline std::barrier<>* meeting = nullptr;
constexpr int kWarp = 32;
inline unsigned long long exchanged[1024];

inline void run(Index grid, int threads, const std::function<void()>& kernel) {
  std::barrier<> all(threads);
  meeting = &all;
  std::vector<std::thread> running;
  for (int t = 0; t < threads; ++t)
    running.emplace_back([&, t] {
      thread.x = unsigned(t);
      for (block.y = 0; block.y < grid.y; ++block.y)
        for (block.x = 0; block.x < grid.x; ++block.x) {
          kernel();
          all.arrive_and_wait();
        }
    });
  for (std::thread& t : running) t.join();
  meeting = nullptr;
}

}  // namespace cuda_on_cpu

#define threadIdx cuda_on_cpu::thread
#define blockIdx cuda_on_cpu::block

inline void __syncthreads() { cuda_on_cpu::meeting->arrive_and_wait(); }

// All threads of the block call them together, which is more than CUDA asks for.
inline unsigned __reduce_add_sync(unsigned, unsigned value) {
  const unsigned me = threadIdx.x, first = me / cuda_on_cpu::kWarp * cuda_on_cpu::kWarp;
  cuda_on_cpu::exchanged[me] = value;
  __syncthreads();
  unsigned sum = 0;
  for (unsigned i = first; i < first + cuda_on_cpu::kWarp; ++i) sum += unsigned(cuda_on_cpu::exchanged[i]);
  __syncthreads();
  return sum;
}
template <class T>
T __shfl_down_sync(unsigned, T value, int by) {
  const unsigned me = threadIdx.x;
  cuda_on_cpu::exchanged[me] = value;
  __syncthreads();
  const T got = int(me % cuda_on_cpu::kWarp) + by < cuda_on_cpu::kWarp ? T(cuda_on_cpu::exchanged[me + unsigned(by)]) : value;
  __syncthreads();
  return got;
}

inline uint32_t __funnelshift_l(uint32_t low, uint32_t high, int by) {
  return by == 0 ? high : (high << by) | (low >> (32 - by));
}
inline float __fdiv_rn(float a, float b) { return a / b; }
inline int __float2int_rn(float x) { return int(std::nearbyint(x)); }
inline int __dp4a(int a, int b, int sum) {
  for (int i = 0; i < 4; ++i) sum += int8_t(a >> (8 * i)) * int8_t(b >> (8 * i));
  return sum;
}
using std::fmaxf;
using std::fminf;
using std::min;
using std::sqrt;
