// Depthwise convolution where the lanes are pixels of an output row.
//
// A tile is up to seven output rows of one channel. Its kernel reads the input through a table of
// row pointers, in which padding is a pointer to zeros and any stride or dilation of the height is
// just another pointer. Rows of unit stride are read where they are, under masks at their ends; any
// other row (stride, padding by values, gaps between elements) is first copied to scratch, one
// piece for each phase of the stride:
//
//     stride 2, pad 1:   | 0 x1 x3 x5 ...  | x0 x2 x4 ...  |
//     taps               0 (and 2, one on)   1
#include <algorithm>
#include <numeric>

#include "algorithms/common.hpp"
#include "algorithms/depthwise.hpp"
#include "core/padding.hpp"
#include "core/parallel.hpp"
#include "core/workspace.hpp"

namespace pyconv {
namespace {

constexpr std::int64_t kColumns = 1024;
// Copied rows should stay in the first-level cache, but a full tile is worth more than that.
constexpr std::int64_t kStageBytes = 32 << 10;
constexpr std::int64_t kTileStageBytes = 256 << 10;
constexpr std::int64_t kEverywhere = std::int64_t(1) << 40;

template <class T>
class DepthwisePixelsPlan final : public Plan {
 public:
  explicit DepthwisePixelsPlan(ConvProblem problem_in)
      : Plan(std::move(problem_in)), table_(kernels<T>()) {
    const ConvProblem& p = problem();
    height_ = TileAxis(p.axes[1]);
    row_step_ = std::min(height_.step, p.axes[1].kernel);
    shape_ = shape();
    const Axis& width = p.axes[2];
    columns_ = Split::by_limit(width.out, kColumns);
    for (std::int64_t tap = 0; tap < width.kernel; ++tap) {
      shifts_.push_back(tap * width.dilation - width.pad_before);
    }
    find_phases(width);
    // Only zeros of the width are masked; other padding is copied.
    const std::int64_t reach = (width.out - 1) * width.stride + shifts_.back();
    in_place_ = width.stride == 1 && (p.padding_mode == PaddingMode::zeros ||
                                      (width.pad_before == 0 && reach < width.in));
    zeros_ = std::max(row_length_, round_up(columns_.largest(), table_.lanes) +
                                       (width.kernel - 1) * width.dilation);
    rows_ = Split::by_limit(p.axes[1].out, most_rows());
  }

  std::string name() const override { return "depthwise"; }
  std::string packing() const override { return "depthwise/pixels"; }

  std::size_t packed_bytes() const override {
    return static_cast<std::size_t>(problem().out_channels * problem().taps()) * sizeof(T);
  }

  void pack(const std::vector<WeightView>& weights, void* packed) const override {
    T* to = static_cast<T*>(packed);
    for (std::size_t g = 0; g < weights.size(); ++g) {
      const WeightView& view = weights[g];
      for (std::int64_t out = 0; out < problem().groups[g].out_channels; ++out) {
        const T* from = static_cast<const T*>(view.data) + out * view.out_stride;
        for_each_weight(problem(), view, 1,
                        [&](std::int64_t, std::int64_t offset) { *to++ = from[offset]; });
      }
    }
  }

  int useful_threads(int limit) const override { return depthwise_threads(problem(), limit); }

  std::size_t workspace_bytes(int threads) const override {
    return align_up(static_cast<std::size_t>(zeros_) * sizeof(T)) +
           static_cast<std::size_t>(threads) * carve(nullptr).bytes;
  }

  std::string tile() const override {
    return std::to_string(kMaxDepthwiseRows) + " rows x " + std::to_string(table_.lanes) +
           " pixels";
  }

  std::string reason() const override {
    return "one input channel per group, lanes are pixels of a row";
  }

  void run(const ConvArrays& arrays, int threads) const override {
    const ConvProblem& p = problem();
    if (p.batch == 0 || p.out_pixels() == 0 || p.out_channels == 0) return;
    const Blocks blocks = blocking(threads);
    const AlignedBuffer workspace = make_aligned(workspace_bytes(threads));
    Carver carver(workspace.get());
    T* zeros = carver.take<T>(static_cast<std::size_t>(zeros_));
    std::fill_n(zeros, zeros_, T(0));
    std::byte* scratch = static_cast<std::byte*>(workspace.get()) + carver.used();
    const std::size_t bytes = carve(nullptr).bytes;
    const std::int64_t depth = p.axes[0].out;
    const std::int64_t groups = static_cast<std::int64_t>(p.groups.size());
    const std::int64_t blocks_per_plane = blocks.rows.count() * blocks.columns.count();
    parallel_for(p.batch * groups * depth * blocks_per_plane, threads,
                 [&](std::int64_t index, int thread) {
                   Task task(carve(scratch + static_cast<std::size_t>(thread) * bytes));
                   task.zeros = zeros;
                   const std::int64_t block = index % blocks_per_plane;
                   const std::int64_t row = block / blocks.columns.count();
                   const std::int64_t column = block % blocks.columns.count();
                   const std::int64_t plane = index / blocks_per_plane;
                   task.row_begin = blocks.rows.begin(row);
                   task.row_end = blocks.rows.end(row);
                   task.column = blocks.columns.begin(column);
                   task.columns = blocks.columns.size(column);
                   task.depth = plane % depth;
                   task.group = static_cast<std::size_t>(plane / depth % groups);
                   task.image = plane / depth / groups;
                   run_task(arrays, task);
                 });
  }

 private:
  // How the planes are cut, which depends on the number of threads; the results do not.
  struct Blocks {
    Split rows;
    Split columns;
  };

  struct Scratch {
    const T** rows;        // the kernel's table
    unsigned char* known;  // which copied rows are there
    T* copies;
    T* sums;
    std::size_t bytes;
  };

  struct Task : Scratch {
    explicit Task(const Scratch& scratch) : Scratch(scratch) {}
    const T* zeros;
    const T* x;  // the group's channel
    bool in_place;
    std::int64_t image, depth, row_begin, row_end, column, columns;
    std::size_t group;
  };

  // A piece of a copied row: every stride-th column from `first` on, `reach` more of them than
  // there are output columns.
  struct Phase {
    std::int64_t first;
    std::int64_t reach;
  };

  DepthwiseShape shape() const {
    const Axis& height = problem().axes[1];
    if (height.kernel != problem().axes[2].kernel) return DepthwiseShape::any;
    if (row_step_ == 1 && height.kernel == 3) return DepthwiseShape::k3;
    if (row_step_ == 1 && height.kernel == 5) return DepthwiseShape::k5;
    if (row_step_ == 1 && height.kernel == 7) return DepthwiseShape::k7;
    if (row_step_ == 2 && height.kernel == 3) return DepthwiseShape::k3s2;
    if (row_step_ == 2 && height.kernel == 5) return DepthwiseShape::k5s2;
    return DepthwiseShape::any;
  }

  void find_phases(const Axis& width) {
    std::int64_t most_reach = 0;
    std::vector<std::size_t> phase_of;
    for (std::int64_t tap = 0; tap < width.kernel; ++tap) {
      const std::int64_t first = tap * width.dilation % width.stride;
      const std::int64_t reach = tap * width.dilation / width.stride;
      const auto known = std::find_if(phases_.begin(), phases_.end(),
                                      [&](const Phase& phase) { return phase.first == first; });
      phase_of.push_back(static_cast<std::size_t>(known - phases_.begin()));
      if (known == phases_.end()) {
        phases_.push_back({first, reach});
      } else {
        known->reach = reach;
      }
      most_reach = std::max(most_reach, reach);
    }
    phase_length_ = round_up(round_up(columns_.largest(), table_.lanes) + most_reach, 16);
    row_length_ = phase_length_ * static_cast<std::int64_t>(phases_.size());
    for (std::int64_t tap = 0; tap < width.kernel; ++tap) {
      copy_shifts_.push_back(static_cast<std::int64_t>(phase_of[static_cast<std::size_t>(tap)]) *
                                 phase_length_ +
                             tap * width.dilation / width.stride);
    }
  }

  // Input rows that `rows` output rows reach over.
  std::int64_t positions(std::int64_t rows) const {
    const Axis& height = problem().axes[1];
    return (rows - 1) * height.stride + (height.kernel - 1) * height.dilation + 1;
  }

  std::int64_t copy_elements(std::int64_t rows) const {
    return problem().axes[0].kernel * positions(rows) * row_length_;
  }

  std::int64_t most_rows() const {
    const auto most_within = [&](std::int64_t bytes) {
      const std::int64_t row = problem().axes[0].kernel * row_length_ * sizeof(T);
      const std::int64_t more = bytes / row - positions(1);
      return more < 0 ? 1 : 1 + more / problem().axes[1].stride;
    };
    const std::int64_t tile = kMaxDepthwiseRows * height_.spacing;
    const std::int64_t rows = most_within(kStageBytes) / tile * tile;
    return rows > 0 ? rows : std::min(tile, most_within(kTileStageBytes));
  }

  Scratch carve(void* base) const {
    const std::int64_t rows = rows_.largest();
    const std::int64_t tile_rows = (kMaxDepthwiseRows - 1) * row_step_ + problem().axes[1].kernel;
    Carver carver(base);
    Scratch scratch;
    scratch.rows =
        carver.take<const T*>(static_cast<std::size_t>(problem().axes[0].kernel * tile_rows));
    scratch.known = carver.take<unsigned char>(
        static_cast<std::size_t>(problem().axes[0].kernel * positions(rows)));
    scratch.copies = carver.take<T>(static_cast<std::size_t>(copy_elements(rows)));
    scratch.sums = carver.take<T>(
        static_cast<std::size_t>(kMaxDepthwiseRows * round_up(columns_.largest(), table_.lanes)));
    scratch.bytes = carver.used();
    return scratch;
  }

  Blocks blocking(int threads) const {
    const ConvProblem& p = problem();
    Blocks blocks{rows_, columns_};
    const std::int64_t planes =
        p.batch * static_cast<std::int64_t>(p.groups.size()) * p.axes[0].out;
    const std::int64_t tasks = planes * rows_.count() * columns_.count();
    if (tasks >= 8 * threads || tasks % threads == 0) return blocks;
    if (p.axes[1].out >= threads) {
      blocks.rows = Split::by_count(p.axes[1].out, ceil_div(rows_.count(), threads) * threads);
    } else if (p.axes[2].out >= threads * table_.lanes) {
      blocks.columns =
          Split::by_count(p.axes[2].out, ceil_div(columns_.count(), threads) * threads);
    }
    return blocks;
  }

  void run_task(const ConvArrays& arrays, Task& task) const {
    const ConvProblem& p = problem();
    const Group& group = p.groups[task.group];
    task.x = static_cast<const T*>(arrays.x) + task.image * arrays.x_strides.batch +
             group.in_begin * arrays.x_strides.channel;
    task.in_place = in_place_ && arrays.x_strides.axis[2] == 1;
    if (!task.in_place) {
      std::fill_n(task.known, p.axes[0].kernel * positions(task.row_end - task.row_begin), 0);
    }
    for (std::int64_t phase = 0; phase < height_.spacing; ++phase) {
      std::int64_t row = task.row_begin + phase;
      while (row < task.row_end) {
        const std::int64_t left = ceil_div(task.row_end - row, height_.spacing);
        // 4 + 4 instead of 7 + 1.
        const std::int64_t count = left == 8 ? 4 : std::min<std::int64_t>(left, kMaxDepthwiseRows);
        run_tile(arrays, task, row, count);
        row += count * height_.spacing;
      }
    }
  }

  // `count` output rows from `row` on, `spacing` apart, for every output channel of the group.
  void run_tile(const ConvArrays& arrays, const Task& task, std::int64_t row,
                std::int64_t count) const {
    const ConvProblem& p = problem();
    const Group& group = p.groups[task.group];
    int size = 0;
    while (kDepthwiseRows[size] < count) ++size;

    DepthwiseArgs<T> args;
    args.rows = task.rows;
    args.row_step = row_step_;
    args.row_pitch = (kDepthwiseRows[size] - 1) * row_step_ + p.axes[1].kernel;
    for (int axis = 0; axis < kSpatialAxes; ++axis) {
      args.kernel[axis] = p.axes[static_cast<std::size_t>(axis)].kernel;
    }
    args.columns = task.columns;
    if (task.in_place) {
      args.shifts = shifts_.data();
      args.first = -task.column;
      args.last = p.axes[2].in - task.column;
    } else {
      args.shifts = copy_shifts_.data();
      args.first = -kEverywhere;
      args.last = kEverywhere;
    }
    fill_rows(arrays, task, row, count, kDepthwiseRows[size], args.row_pitch);

    const auto offset = [&](const Strides& strides, std::int64_t channel) {
      return task.image * strides.batch + channel * strides.channel + task.depth * strides.axis[0] +
             row * strides.axis[1] + task.column * strides.axis[2];
    };
    const bool in_registers = p.activation.kind <= ActivationKind::clip &&
                              arrays.out_strides.axis[2] == 1 &&
                              (!arrays.residual || arrays.residual_strides.axis[2] == 1);
    const T* residual = static_cast<const T*>(arrays.residual);
    const T* bias = static_cast<const T*>(arrays.bias);
    for (std::int64_t channel = group.out_begin; channel < group.out_begin + group.out_channels;
         ++channel) {
      args.weights = static_cast<const T*>(arrays.packed_weights) + channel * p.taps();
      T* out = static_cast<T*>(arrays.out) + offset(arrays.out_strides, channel);
      const T* channel_residual =
          residual ? residual + offset(arrays.residual_strides, channel) : nullptr;
      const std::int64_t out_row = height_.spacing * arrays.out_strides.axis[1];
      const std::int64_t residual_row = height_.spacing * arrays.residual_strides.axis[1];
      args.end = no_epilogue<T>();
      args.end.rows = count;
      if (in_registers) {
        clamp_of(p.activation, args.end);
        if (bias) args.end.bias = bias[channel];
        args.end.residual = channel_residual;
        args.end.residual_row = residual_row;
        args.end.out = out;
        args.end.out_row = out_row;
        table_.depthwise_pixels[static_cast<int>(shape_)][size](args);
        continue;
      }
      args.end.out = task.sums;
      args.end.out_row = round_up(task.columns, table_.lanes);
      table_.depthwise_pixels[static_cast<int>(shape_)][size](args);
      EpilogueArgs<T> epilogue{};
      epilogue.rows = count;
      epilogue.columns = task.columns;
      epilogue.acc = task.sums;
      epilogue.acc_row = args.end.out_row;
      epilogue.bias = bias ? bias + channel : nullptr;
      epilogue.residual = channel_residual;
      epilogue.residual_row = residual_row;
      epilogue.residual_column = arrays.residual_strides.axis[2];
      epilogue.out = out;
      epilogue.out_row = out_row;
      epilogue.out_column = arrays.out_strides.axis[2];
      epilogue.activation = p.activation;
      table_.epilogue(epilogue);
    }
  }

  // The kernel's table: `count` rows of pointers, then zeros up to `tile_rows`.
  void fill_rows(const ConvArrays& arrays, const Task& task, std::int64_t row, std::int64_t count,
                 std::int64_t tile_rows, std::int64_t pitch) const {
    const ConvProblem& p = problem();
    const Axis& depth = p.axes[0];
    const Axis& height = p.axes[1];
    const T* zeros = task.in_place ? task.zeros + p.axes[2].pad_before : task.zeros;
    for (std::int64_t td = 0; td < depth.kernel; ++td) {
      const T** to = task.rows + td * pitch;
      const std::int64_t d =
          padded_index(task.depth * depth.stride + td * depth.dilation - depth.pad_before, depth.in,
                       p.padding_mode);
      if (d < 0) {
        std::fill_n(to, pitch, zeros);
        continue;
      }
      const T* plane = task.x + d * arrays.x_strides.axis[0];
      std::fill_n(to + (count - 1) * row_step_ + height.kernel, (tile_rows - count) * row_step_,
                  zeros);
      for (std::int64_t r = 0; r < count; ++r) {
        // Rows that the one before meets under later taps are in the table already.
        for (std::int64_t th = r == 0 ? 0 : height.kernel - row_step_; th < height.kernel; ++th) {
          const std::int64_t position =
              (row + r * height_.spacing) * height.stride + th * height.dilation;
          const std::int64_t h =
              padded_index(position - height.pad_before, height.in, p.padding_mode);
          const T* from = plane + h * arrays.x_strides.axis[1];
          to[r * row_step_ + th] =
              h < 0 ? zeros
              : task.in_place
                  ? from + task.column
                  : copied(arrays, task, from, td, position - task.row_begin * height.stride);
        }
      }
    }
  }

  // The copy of the input row at `row`, which stands at `position` of the block.
  const T* copied(const ConvArrays& arrays, const Task& task, const T* row, std::int64_t td,
                  std::int64_t position) const {
    const Axis& width = problem().axes[2];
    const std::int64_t index = td * positions(task.row_end - task.row_begin) + position;
    T* copy = task.copies + index * row_length_;
    if (task.known[index]) return copy;
    task.known[index] = 1;
    const std::int64_t step = arrays.x_strides.axis[2];
    T* to = copy;
    for (const Phase& phase : phases_) {
      const std::int64_t count = task.columns + phase.reach;
      const std::int64_t start = task.column * width.stride - width.pad_before + phase.first;
      const std::int64_t first =
          std::min(count, start < 0 ? ceil_div(-start, width.stride) : std::int64_t(0));
      const std::int64_t last =
          std::clamp(start < width.in ? ceil_div(width.in - start, width.stride) : std::int64_t(0),
                     first, count);
      const auto pad = [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) {
          const std::int64_t from =
              padded_index(start + i * width.stride, width.in, problem().padding_mode);
          to[i] = from < 0 ? T(0) : row[from * step];
        }
      };
      pad(0, first);
      table_.copy_strided(last - first, row + (start + first * width.stride) * step,
                          width.stride * step, to + first);
      pad(last, count);
      std::fill(to + count, to + phase_length_, T(0));
      to += phase_length_;
    }
    return copy;
  }

  const KernelTable<T>& table_;
  TileAxis height_;
  std::int64_t row_step_;  // of the kernel's table
  DepthwiseShape shape_;
  Split rows_, columns_;              // blocks of a plane
  std::vector<std::int64_t> shifts_;  // of the taps of a row, in place
  std::vector<std::int64_t> copy_shifts_;
  std::vector<Phase> phases_;
  std::int64_t phase_length_ = 0;
  std::int64_t row_length_ = 0;
  std::int64_t zeros_ = 0;
  bool in_place_ = false;
};

}  // namespace

std::unique_ptr<Plan> plan_depthwise_pixels(ConvProblem problem) {
  if (problem.dtype == DataType::float64) {
    return std::make_unique<DepthwisePixelsPlan<double>>(std::move(problem));
  }
  return std::make_unique<DepthwisePixelsPlan<float>>(std::move(problem));
}

}  // namespace pyconv
