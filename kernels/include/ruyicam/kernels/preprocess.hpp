// From a luma plane of any size to the encoder's input, int8 [3, height, width], in integers:
//   A       area average of the plane on the output grid, Q4 (sixteenths of a grey level), rounded half up
//   channel 0 = ((A - 2048) >> 4) * w >> 7    w = clamp(|A - B| - floor, 0, 128): static background is 0
//   channel 1 = clamp((A - previous A + 4) >> 3, -127, 127)     short motion
//   channel 2 = clamp((A - B + 4) >> 3, -127, 127)              long motion
//   B, the background in Q12, then moves by (A - B) >> background_shift
// On the first frame B = previous A = A, so everything is 0. Shifts are arithmetic.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "ruyicam/kernels/dispatch.hpp"

namespace ruyicam::kernels {

struct PreprocessParams {
  int width = 128, height = 96;  // the output grid; 1 to 1024 each, never larger than the frame
  int background_shift = 6;      // 1 to 16: the background follows with a time constant of 2^shift frames
  int mask_floor = 64;           // Q4: differences from the background up to this count as background
};

// Which pixels of a line (a row or a column of the frame) each cell of the grid covers. Lengths are in units that a pixel
// and a cell are both whole numbers of, so that all overlaps are integers and the average is exact.
struct Line {
  struct Span {
    int first, count;                        // pixels
    uint32_t first_weight, last_weight;      // units of the first and the last of them; those between count whole
  };
  Line() = default;
  Line(int pixels, int cells);
  // Units of pixel i of a span.
  uint32_t weight(const Span& s, int i) const {
    return i == 0 ? s.first_weight : (i == s.count - 1 ? s.last_weight : pixel);
  }
  uint32_t cell = 1, pixel = 1;  // units
  std::vector<Span> spans;       // one per cell
};

// The same for dot products: a row in groups of four pixels, each of which belongs to one cell or to two neighbours.
// A cell adds up the left sums of `length` groups from `first` on, and the right sum of the group before if it is shared.
struct Groups {
  Groups() = default;
  Groups(const Line& line, int pixels);
  // Whether there are groups (some group of narrow cells would belong to three) and no weight is above `most`.
  bool fits(uint32_t most) const { return count > 0 && heaviest <= most; }
  int count = 0, shortest = 0, longest = 0;  // groups; of a cell
  uint32_t heaviest = 0;
  std::vector<uint8_t> left, right;  // weights of the pixels in the two cells, [4 * count]
  std::vector<int32_t> first, length;
  std::vector<uint8_t> shared;
};

class Preprocessor {
 public:
  explicit Preprocessor(PreprocessParams params);  // throws std::invalid_argument
  ~Preprocessor();                                 // wipes its state
  const PreprocessParams& params() const { return params_; }
  size_t output_size() const { return 3 * cells_; }
  // luma: height rows of width bytes, `stride` bytes apart. out: output_size() int8.
  // Throws std::invalid_argument for a frame smaller than the grid or wider or higher than 16384.
  void process(const uint8_t* luma, int width, int height, ptrdiff_t stride, int8_t* out, Backend backend);
  void reset();

 private:
  void average(const uint8_t* luma, int width, int height, ptrdiff_t stride, Backend backend);

  PreprocessParams params_;
  size_t cells_;
  bool started_ = false;
  Line columns_, rows_;
  Groups groups_;
  int width_ = 0, height_ = 0;  // of the frames that these lines are for
  std::vector<uint32_t> sums_;
  std::vector<int32_t> current_, previous_, background_;
};

}  // namespace ruyicam::kernels
