#include "ruyicam/kernels/preprocess.hpp"

#include <algorithm>
#include <numeric>
#include <stdexcept>
#include <string>

#include "steps.hpp"

namespace ruyicam::kernels {
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

Line::Line(int pixels, int cells)
    : cell(uint32_t(pixels / std::gcd(pixels, cells))), pixel(uint32_t(cells / std::gcd(pixels, cells))) {
  for (int j = 0; j < cells; ++j) {
    const int64_t from = int64_t(j) * cell, to = from + cell, first = from / pixel, last = (to - 1) / pixel;
    const auto overlap = [&](int64_t i) {
      return uint32_t(std::min(to, (i + 1) * pixel) - std::max(from, i * int64_t(pixel)));
    };
    spans.push_back({int(first), int(last - first) + 1, overlap(first), overlap(last)});
  }
}

Groups::Groups(const Line& line, int pixels) {
  const int groups = (pixels + 3) / 4;
  std::vector<int> owner(size_t(groups), -1);  // the cell that a group's first pixel begins in
  for (size_t j = 0; j < line.spans.size(); ++j)
    for (int i = line.spans[j].first; i < line.spans[j].first + line.spans[j].count; ++i)
      if (i % 4 == 0 && owner[size_t(i / 4)] < 0) owner[size_t(i / 4)] = int(j);
  left.resize(size_t(groups) * 4);
  right.resize(left.size());
  for (size_t j = 0; j < line.spans.size(); ++j) {
    const Line::Span& s = line.spans[j];
    int from = groups, until = 0;
    bool after = false;
    for (int i = 0; i < s.count; ++i) {
      const int pixel = s.first + i, group = pixel / 4, apart = int(j) - owner[size_t(group)];
      const uint32_t w = line.weight(s, i);
      if (apart > 1 || w > 255) return;
      heaviest = std::max(heaviest, w);
      (apart == 0 ? left : right)[size_t(pixel)] = uint8_t(w);
      if (apart == 0) from = std::min(from, group), until = group + 1;
      after |= apart == 1;
    }
    if (from == groups) from = until = s.first / 4 + 1;
    first.push_back(from), length.push_back(until - from), shared.push_back(after);
  }
  const auto [least, most] = std::minmax_element(length.begin(), length.end());
  shortest = *least, longest = *most, count = groups;
}

void Preprocessor::average(const uint8_t* luma, int width, int height, ptrdiff_t stride, Backend backend) {
  if (width != width_ || height != height_) {
    columns_ = Line(width, params_.width);
    rows_ = Line(height, params_.height);
    groups_ = Groups(columns_, width);
    width_ = width, height_ = height;
    wipe(sums_);  // a larger room is another one
    sums_.resize(average_scratch(width, params_.width));
  }
  const AverageArgs args{luma, stride, width, columns_, rows_, groups_, sums_.data(), current_.data()};
  (backend == Backend::kSimd ? simd::average : portable::average)(args);
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
