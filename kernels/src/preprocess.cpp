#include "ruyicam/kernels/preprocess.hpp"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "steps.hpp"

namespace ruyicam::kernels {
namespace {

template <class T>
void wipe(std::vector<T>& v) {
  volatile T* p = v.data();
  for (size_t i = 0; i < v.size(); ++i) p[i] = 0;
}

}  // namespace

Preprocessor::Preprocessor(PreprocessParams params) : params_(params) {
  if (params.width < 1 || params.width > 1024 || params.height < 1 || params.height > 1024)
    throw std::invalid_argument("preprocess: width and height must be 1 to 1024");
  if (params.background_shift < 1 || params.background_shift > 16)
    throw std::invalid_argument("preprocess: background_shift must be 1 to 16");
  if (params.mask_floor < 0 || params.mask_floor > 4080)
    throw std::invalid_argument("preprocess: mask_floor must be 0 to 4080");
  cells_ = size_t(params.width) * size_t(params.height);
  grid_.resize(cells_);
  current_.resize(cells_);
  previous_.resize(cells_);
  background_.resize(cells_);
}

Preprocessor::~Preprocessor() {
  wipe(sums_);
  wipe(grid_);
  wipe(current_);
  wipe(previous_);
  wipe(background_);
}

void Preprocessor::reset() { started_ = false; }

// Output cell j covers source positions [j * w, (j + 1) * w) and source pixel i [i * W, (i + 1) * W) of a
// line of w * W units, so all overlaps are whole numbers and the average is exact.
void Preprocessor::average(const uint8_t* luma, int width, int height, ptrdiff_t stride, Backend backend) {
  const int out_w = params_.width, out_h = params_.height;
  const auto accumulate = backend == Backend::kSimd ? simd::accumulate_row : portable::accumulate_row;
  const uint64_t area = uint64_t(width) * uint64_t(height);
  for (int y = 0; y < out_h; ++y) {
    std::fill(sums_.begin(), sums_.end(), 0u);
    const int64_t top = int64_t(y) * height, bottom = top + height;
    for (int64_t row = top / out_h; row * out_h < bottom; ++row) {
      const int64_t overlap = std::min(bottom, (row + 1) * out_h) - std::max(top, row * out_h);
      accumulate(luma + row * stride, size_t(width), uint32_t(overlap), sums_.data());
    }
    for (int x = 0; x < out_w; ++x) {
      const int64_t left = int64_t(x) * width, right = left + width;
      uint64_t sum = 0;
      for (int64_t column = left / out_w; column * out_w < right; ++column) {
        const int64_t overlap = std::min(right, (column + 1) * out_w) - std::max(left, column * out_w);
        sum += uint64_t(overlap) * sums_[size_t(column)];
      }
      current_[size_t(y) * size_t(out_w) + size_t(x)] = int32_t((16 * sum + area / 2) / area);
    }
  }
}

void Preprocessor::process(const uint8_t* luma, int width, int height, ptrdiff_t stride, int8_t* out,
                           Backend backend) {
  if (width < params_.width || height < params_.height || width > 16384 || height > 16384)
    throw std::invalid_argument("preprocess: frame is " + std::to_string(width) + "x" + std::to_string(height) +
                                ", expected at least " + std::to_string(params_.width) + "x" +
                                std::to_string(params_.height) + " and at most 16384x16384");
  sums_.resize(size_t(width));
  average(luma, width, height, stride, backend);
  if (!started_) {
    previous_ = current_;
    for (size_t i = 0; i < cells_; ++i) background_[i] = current_[i] << 8;
    started_ = true;
  }
  const auto small = [](int32_t difference) { return int8_t(std::clamp((difference + 4) >> 3, -127, 127)); };
  for (size_t i = 0; i < cells_; ++i) {
    const int32_t a = current_[i], from_background = a - (background_[i] >> 8);
    const int32_t w = std::clamp((from_background < 0 ? -from_background : from_background) - params_.mask_floor, 0, 128);
    out[i] = int8_t((((a - 2048) >> 4) * w) >> 7);
    out[cells_ + i] = small(a - previous_[i]);
    out[2 * cells_ + i] = small(from_background);
    background_[i] += ((a << 8) - background_[i]) >> params_.background_shift;
  }
  std::swap(previous_, current_);
}

}  // namespace ruyicam::kernels
