#include "ruyicam/kernels/preprocess.hpp"

#include <algorithm>
#include <numeric>
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
  current_.resize(cells_);
  previous_.resize(cells_);
  background_.resize(cells_);
}

Preprocessor::~Preprocessor() {
  wipe(sums_);
  wipe(current_);
  wipe(previous_);
  wipe(background_);
}

void Preprocessor::reset() { started_ = false; }

// Lines are measured in units that both a pixel and a cell are whole numbers of (a cell covers `cell` of them, a
// pixel `pixel`), so that all overlaps are integers and the average is exact.
Preprocessor::Line::Line(int pixels, int cells)
    : cell(uint32_t(pixels / std::gcd(pixels, cells))), pixel(uint32_t(cells / std::gcd(pixels, cells))) {
  for (int j = 0; j < cells; ++j) {
    const int64_t from = int64_t(j) * cell, to = from + cell, first = from / pixel, last = (to - 1) / pixel;
    const auto overlap = [&](int64_t i) {
      return uint32_t(std::min(to, (i + 1) * pixel) - std::max(from, i * int64_t(pixel)));
    };
    spans.push_back({int(first), int(last - first) + 1, overlap(first), overlap(last)});
  }
}

void Preprocessor::average(const uint8_t* luma, int width, int height, ptrdiff_t stride, Backend backend) {
  if (width != width_ || height != height_) {
    columns_ = Line(width, params_.width);
    rows_ = Line(height, params_.height);
    width_ = width, height_ = height;
    sums_.resize(size_t(width));
  }
  const auto add_rows = backend == Backend::kSimd ? simd::add_rows : portable::add_rows;
  const uint64_t area = uint64_t(columns_.cell) * rows_.cell;
  int32_t* cell = current_.data();
  for (const Line::Span& down : rows_.spans) {
    add_rows({luma + down.first * stride, stride, down.count, down.first_weight, rows_.pixel, down.last_weight},
             size_t(width), sums_.data());
    for (const Line::Span& across : columns_.spans) {
      const uint32_t* s = sums_.data() + across.first;
      uint64_t sum = uint64_t(across.first_weight) * s[0];
      if (across.count > 1) {
        uint64_t whole = 0;
        for (int i = 1; i < across.count - 1; ++i) whole += s[i];
        sum += columns_.pixel * whole + uint64_t(across.last_weight) * s[across.count - 1];
      }
      *cell++ = int32_t((16 * sum + area / 2) / area);
    }
  }
}

void Preprocessor::process(const uint8_t* luma, int width, int height, ptrdiff_t stride, int8_t* out,
                           Backend backend) {
  if (width < params_.width || height < params_.height || width > 16384 || height > 16384)
    throw std::invalid_argument("preprocess: frame is " + std::to_string(width) + "x" + std::to_string(height) +
                                ", expected at least " + std::to_string(params_.width) + "x" +
                                std::to_string(params_.height) + " and at most 16384x16384");
  average(luma, width, height, stride, backend);
  if (!started_) {
    previous_ = current_;
    for (size_t i = 0; i < cells_; ++i) background_[i] = current_[i] << 8;
    started_ = true;
  }
  const TemporalArgs args{current_.data(), previous_.data(),    background_.data(),       out,
                          cells_,          params_.mask_floor, params_.background_shift};
  (backend == Backend::kSimd ? simd::temporal : portable::temporal)(args);
  std::swap(previous_, current_);
}

}  // namespace ruyicam::kernels
