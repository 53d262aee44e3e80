// Grouped convolution of few channels per group. Lanes are output channels, of as many groups as
// fill a vector, and pixels are vectors of the input channels under them:
//
//     lanes       | group 0       | group 1       | group 2       | group 3       |
//     pixel       | a0 a1 a2 a3   | b0 b1 b2 b3   | c0 c1 c2 c3   | d0 d1 d2 d3   |
//     channel 0   | a0 a0 a0 a0   | b0 b0 b0 b0   | c0 c0 c0 c0   | d0 d0 d0 d0   |   times weights
//     channel 1   | a1 a1 a1 a1   | ...
//
// Depthwise layers are the case in which nothing has to be spread. Kernels read through a table of
// pixels,
//
//     [depth tap][input row][column]
//
// in which padding is a pixel of zeros. Where channels are next to each other in the image, these
// are its own pixels; else blocks of channels, whole groups of them, are copied to scratch in
// squares that registers transpose, and sums go back likewise. The copy serves every tap, and its
// rows take each other's places as outputs go down the image. No lane idles at the end of a row,
// however narrow the planes are.
//
// Depthwise layers may have their pixels copied always, padding as well, and kernels without the
// table: with few registers, and where strided rows let taps share few loads of a pixel.
#include <algorithm>

#include "algorithms/common.hpp"
#include "algorithms/depthwise.hpp"
#include "algorithms/output.hpp"
#include "core/padding.hpp"
#include "core/parallel.hpp"
#include "core/partition.hpp"
#include "core/workspace.hpp"

namespace pyconv {
namespace {

// Of a block's copy, which with its sums should stay in an L2 cache, and what the input under one
// row of a few outputs may take.
constexpr std::int64_t kCopyBytes = 256 << 10;
constexpr std::int64_t kMostCopyBytes = 2 << 20;

// Of the rows of a depthwise copy that some output rows at a time read, which with their sums and
// the rows that are copied should stay in an L1 cache: else 7x7 on planes of 56 took 1.5 times as
// long. Layers with more work per pixel lose a tenth by as few rows at a time.
constexpr std::int64_t kNearBytes = 20 << 10;

// Output rows of a task, which lists them once for all its blocks.
constexpr std::int64_t kMostRows = 1024;

// Of the input pixels that are read in place by one vector of channels after the other.
constexpr std::int64_t kInPlaceBytes = 384 << 10;

// Of the pixel of zeros that stands for padding.
constexpr std::int64_t kMostZeroBytes = 64 << 10;

// Sums of a vector at a time, which may go through scratch: 16 KiB of float32 stay in L1.
constexpr std::int64_t kMostPixels = 256;

// Per group: a plan lists the vectors of them.
constexpr std::int64_t kMostOutChannels = 1 << 16;

template <class T>
class GroupedPlan final : public Plan {
 public:
  explicit GroupedPlan(ConvProblem problem_in) : Plan(std::move(problem_in)), table_(kernels<T>()) {
    const ConvProblem& p = problem();
    width_ = TileAxis(p.axes[2]);
    row_step_ = p.axes[1].stride;
    tap_step_ = p.axes[1].dilation;
    most_threads_ = depthwise_threads(p, std::numeric_limits<int>::max());
    const bool depthwise = std::all_of(p.groups.begin(), p.groups.end(), [](const Group& group) {
      return group.in_channels == 1 && group.out_channels == 1;
    });
    const std::int64_t step = width_.spacing * p.axes[2].stride;
    if (depthwise && copies_without_gaps()) {
      copy_tiles_ = table_.grouped_copy[step <= kGroupedCopyStep ? step : 0];
      pixel_ = table_.lanes;
    }
    list_blocks();
    choose_rows();
  }

  std::string name() const override { return "grouped"; }
  std::string packing() const override { return "grouped"; }

  std::size_t packed_bytes() const override {
    return static_cast<std::size_t>(packed_elements_) * sizeof(T);
  }

  void pack(const std::vector<WeightView>& weights, void* packed) const override {
    for (const OutVector& vector : vectors_) {
      pack_lanes(problem(), weights, vector.group, vector.out_begin, vector.out_channels,
                 vector.in_channels, table_, static_cast<T*>(packed) + vector.packed_offset);
    }
  }

  int useful_threads(int limit) const override { return std::min(limit, most_threads_); }

  std::size_t workspace_bytes(int threads) const override {
    return zeros_bytes() + static_cast<std::size_t>(threads) * carve(nullptr).bytes;
  }

  std::string partition(int threads) const override {
    return partition_of(blocking(threads)).text();
  }

  std::string tile() const override {
    return std::to_string(tile_columns()) + " pixels x " + std::to_string(table_.lanes) +
           " channels";
  }

  std::string reason() const override {
    return "few channels per group, lanes are output channels of several groups";
  }

  void run(const ConvArrays& arrays, int threads) const override {
    const std::size_t bytes = carve(nullptr).bytes;
    const Workspace workspace(workspace_bytes(threads));
    T* const zeros = reinterpret_cast<T*>(workspace.get());
    std::fill_n(zeros, zeros_bytes() / sizeof(T), T(0));
    std::byte* const scratch = workspace.get() + zeros_bytes();
    const Blocking cut = blocking(threads);
    const auto partition = partition_of(cut);
    parallel_for(partition.tasks(), threads, [&](std::int64_t index, int thread) {
      const auto [image, depth, phase, row, column, blocks] = partition.at(index);
      const Split rows = Split::by_count(rows_of_phase(phase), cut.row_blocks);
      if (rows.size(row) == 0) return;  // another phase has one more
      Place at;
      at.zeros = zeros;
      at.image = image;
      at.depth = depth;
      at.row = phase + rows.begin(row) * row_spacing_;
      at.rows = rows.size(row);
      at.column = columns_.begin(column);
      at.columns = columns_.size(column);
      at.block = cut.blocks.begin(blocks);
      at.block_end = cut.blocks.end(blocks);
      run_task(arrays, at, carve(scratch + static_cast<std::size_t>(thread) * bytes));
    });
  }

 private:
  // With many registers weights stay there, or taps share the loads of a pixel: at stride 1 up to
  // 1.35 times as fast as multiply-adds that load it each. Under long strided rows these are 1.1 to
  // 1.5 times as fast, and under shorter ones where pixels are copied anyhow.
  bool copies_without_gaps() const {
    if (table_.grouped_columns < kMostGroupedColumns) return true;
    if (width_.step == 1) return false;
    return problem().axes[2].kernel >= 3 * width_.step ||
           (width_.step > 2 && !problem().channels_last);
  }

  // Input channels that are copied together, and the vectors of output channels that read them.
  struct Block {
    std::int64_t in_begin;
    std::int64_t in_channels;
    std::int64_t reach;  // channels that whole vectors read
    std::size_t vectors_end;
  };

  struct OutVector {
    std::size_t group;  // the first
    std::int64_t out_begin;
    std::int64_t out_channels;
    std::int64_t in_channels;  // of each group
    std::int64_t in_block;     // where the vector's groups begin in their block
    GroupedSpread spread;
    std::int64_t spread_begin;  // in spreads_
    std::int64_t packed_offset;
    int shape;  // index of kGroupedShapes, or -1
  };

  // How the work is cut, which depends on the number of threads; the results do not.
  struct Blocking {
    std::int64_t row_blocks;  // of each phase
    Split blocks;
  };

  std::int64_t row_phases() const { return std::min(row_spacing_, problem().axes[1].out); }
  std::int64_t rows_of_phase(std::int64_t phase) const {
    return ceil_div(problem().axes[1].out - phase, row_spacing_);
  }

  Partition<6> partition_of(const Blocking& cut) const {
    return Partition({{"images", problem().batch},
                      {"planes", problem().axes[0].out},
                      {"phases of rows", row_phases()},
                      {"blocks of rows", cut.row_blocks},
                      {"blocks of columns", columns_.count()},
                      {"blocks of channels", cut.blocks.count()}});
  }

  // A block of output pixels, in rows row_spacing_ apart, under some blocks of channels.
  struct Place {
    const T* zeros;
    std::int64_t image;
    std::int64_t depth;
    std::int64_t row;
    std::int64_t rows;
    std::int64_t column;
    std::int64_t columns;
    std::int64_t block;
    std::int64_t block_end;
  };

  struct Scratch {
    T* copy;
    T* sums;
    const T** pixels;
    TapRow* units;
    std::int32_t* unit_ends;  // per output row
    std::int32_t* slot_ends;  // per output row: behind the last that it or one before reads
    std::int32_t* slots;      // of input rows, in their order, or -1
    std::int64_t* sources;    // per slot: the input row
    std::size_t bytes;
  };

  // The columns of a copied row: those that lie inside the input stand from `first` to `last`.
  struct Columns {
    std::int64_t start;  // position of the first
    std::int64_t count;
    std::int64_t first;
    std::int64_t last;
    std::int64_t pitch;  // of the copy's rows, in elements
  };

  std::int64_t tile_columns() const {
    return copy_tiles_ ? kMostGroupedColumns : table_.grouped_columns;
  }

  void list_blocks() {
    const std::vector<Group>& groups = problem().groups;
    const Group* before = nullptr;
    for (std::size_t g = 0; g < groups.size(); ++g) {
      const Group& group = groups[g];
      const bool alike = before && group.in_channels == before->in_channels &&
                         group.out_channels == before->out_channels;
      before = &group;
      if (!alike || blocks_.back().in_channels + group.in_channels > pixel_) {
        blocks_.push_back({group.in_begin, 0, 0, 0});
        list_group(g, true);
      } else {
        list_group(g, false);
      }
      blocks_.back().in_channels += group.in_channels;
      blocks_.back().reach = vectors_.back().in_block + std::max(table_.lanes, group.in_channels);
      blocks_.back().vectors_end = vectors_.size();
    }
  }

  // Adds a group to the last vector, or to new ones if it does not fit there.
  void list_group(std::size_t g, bool new_block) {
    const Group& group = problem().groups[g];
    const std::int64_t in_block = blocks_.back().in_channels;
    if (!new_block) {
      OutVector& last = vectors_.back();
      const std::int64_t reach = in_block + group.in_channels - last.in_block;
      if (last.out_channels + group.out_channels <= table_.lanes && reach <= table_.lanes) {
        last.out_channels += group.out_channels;
        return;
      }
    }
    for (std::int64_t out = 0; out < group.out_channels; out += table_.lanes) {
      OutVector vector{};
      vector.group = g;
      vector.out_begin = group.out_begin + out;
      vector.out_channels = std::min(table_.lanes, group.out_channels - out);
      vector.in_channels = group.in_channels;
      vector.in_block = in_block;
      vector.packed_offset = packed_elements_;
      packed_elements_ += problem().taps() * group.in_channels * table_.lanes;
      const bool fills = 2 * group.out_channels > table_.lanes;
      vector.spread = group.in_channels == 1 && group.out_channels == 1 ? GroupedSpread::same
                      : fills || 2 * group.in_channels > table_.lanes   ? GroupedSpread::broadcast
                                                                        : GroupedSpread::permuted;
      if (vector.spread == GroupedSpread::permuted) vector.spread_begin = spread_of(group);
      vector.shape = shape_of(vector, group.out_channels);
      vectors_.push_back(vector);
    }
  }

  // Lane l of channel i reads channel i of its group.
  std::int64_t spread_of(const Group& group) {
    if (spread_in_ != group.in_channels || spread_out_ != group.out_channels) {
      spread_in_ = group.in_channels;
      spread_out_ = group.out_channels;
      spread_begin_ = static_cast<std::int64_t>(spreads_.size());
      for (std::int64_t i = 0; i < group.in_channels; ++i) {
        for (std::int64_t lane = 0; lane < table_.lanes; ++lane) {
          const std::int64_t from = lane / group.out_channels * group.in_channels + i;
          spreads_.push_back(static_cast<std::int32_t>(from % table_.lanes));
        }
      }
    }
    return spread_begin_;
  }

  int shape_of(const OutVector& vector, std::int64_t group_outputs) const {
    // Kernels that spread a group over a part of a vector know how many lanes it has there.
    if (vector.spread == GroupedSpread::permuted && group_outputs != vector.in_channels) return -1;
    for (int i = 0; i < kGroupedShapeCount; ++i) {
      const GroupedShape& shape = kGroupedShapes[i];
      const GroupedSpread spread = shape.channels == 1             ? GroupedSpread::same
                                   : shape.channels < table_.lanes ? GroupedSpread::permuted
                                                                   : GroupedSpread::broadcast;
      if (shape.channels == vector.in_channels && shape.size == problem().axes[2].kernel &&
          shape.step == width_.step && spread == vector.spread) {
        return i;
      }
    }
    return -1;
  }

  // Input rows, row_unit_ apart, that so many output rows reach over.
  std::int64_t row_span(std::int64_t rows) const {
    return (rows - 1) * row_step_ + (problem().axes[1].kernel - 1) * tap_step_ + 1;
  }
  std::int64_t most_slots(std::int64_t rows) const {
    return std::min(row_span(rows), rows * problem().axes[1].kernel);
  }

  // Rows of the copy, in which each takes the place of one that is not read any more.
  std::int64_t copied_rows(std::int64_t part_rows) const {
    return std::min(row_span(part_rows), most_slots(rows_.largest()));
  }
  std::int64_t copied_rows() const { return copied_rows(part_rows_); }

  Columns columns_of(std::int64_t column, std::int64_t columns) const {
    const Axis& width = problem().axes[2];
    Columns c;
    c.start = column * width.stride - width.pad_before;
    c.count = width.span(columns);
    c.first = std::clamp<std::int64_t>(-c.start, 0, c.count);
    c.last = std::clamp(width.in - c.start, c.first, c.count);
    c.pitch = c.count * pixel_;
    if (shares_a_set<T>(c.pitch)) c.pitch += pixel_;
    return c;
  }

  // Under dilation a task takes output rows that share input rows.
  void take_rows_apart() {
    const Axis& height = problem().axes[1];
    const TileAxis apart(height);
    if (apart.spacing == 1) return;
    row_spacing_ = apart.spacing;
    row_step_ = apart.step;
    row_unit_ = height.dilation;
    tap_step_ = 1;
  }

  void choose_rows() {
    const auto& [depth, height, width] = problem().axes;
    const auto bytes_of = [&](std::int64_t copied, std::int64_t columns) {
      return depth.kernel * copied * columns_of(0, columns).pitch * std::int64_t(sizeof(T));
    };
    std::int64_t columns = std::min(width.out, kMostPixels);
    while (columns > kMostGroupedColumns && bytes_of(most_slots(1), columns) > kCopyBytes) {
      columns = std::max<std::int64_t>(kMostGroupedColumns, columns / 2);
    }
    columns_ = Split::by_limit(width.out, columns);
    columns = columns_.largest();
    const auto fitting_rows = [&] {
      const bool near = copy_tiles_ && bytes_of(row_span(1), columns) <= kCopyBytes;
      const std::int64_t most = std::min(rows_of_phase(0), kMostRows);
      std::int64_t rows = 1;
      while (rows < most && row_span(rows + 1) <= kMostRowSpan &&
             (near || bytes_of(most_slots(rows + 1), columns) <= kCopyBytes)) {
        ++rows;
      }
      return rows;
    };
    std::int64_t rows = fitting_rows();
    // Unless tasks would copy few rows again: those that follow each other are copied in long runs.
    if (rows < height.out &&
        (problem().channels_last || 5 * most_slots(rows) > 7 * rows * height.stride)) {
      take_rows_apart();
      rows = fitting_rows();
    }
    rows_ = Split::by_limit(rows_of_phase(0), rows);
    part_rows_ = std::max<std::int64_t>(1, kMostPixels / columns);
    const std::int64_t most_bytes = copy_tiles_ ? kNearBytes : kCopyBytes;
    while (part_rows_ > 1 && (bytes_of(most_slots(part_rows_), columns) > most_bytes ||
                              bytes_of(copied_rows(), columns) > kCopyBytes)) {
      --part_rows_;
    }
  }

  Blocking blocking(int threads) const {
    const ConvProblem& p = problem();
    const auto blocks = static_cast<std::int64_t>(blocks_.size());
    const std::int64_t planes = p.batch * p.axes[0].out * row_phases() * columns_.count();
    Blocking cut;
    cut.row_blocks = even_blocks(rows_.count(), planes * blocks, rows_of_phase(0), threads);
    // A task lists its rows once for all its blocks.
    cut.blocks = blocks_for_even_tasks(blocks, planes * cut.row_blocks, threads);
    return cut;
  }

  Scratch carve(void* base) const {
    const std::int64_t rows = rows_.largest();
    const Axis& height = problem().axes[1];
    Carver carver(base);
    Scratch scratch;
    const std::int64_t depth = problem().axes[0].kernel;
    const Columns columns = columns_of(0, columns_.largest());
    // A vector may be loaded whole at the last pixel.
    scratch.copy = carver.take<T>(depth * copied_rows() * columns.pitch + table_.lanes);
    scratch.sums = carver.take<T>(std::max(kMostPixels, columns_.largest()) * table_.lanes);
    scratch.pixels =
        carver.take<const T*>(copy_tiles_ ? 0 : depth * most_slots(rows) * columns.count);
    scratch.units = carver.take<TapRow>(rows * depth * height.kernel);
    scratch.unit_ends = carver.take<std::int32_t>(rows);
    scratch.slot_ends = carver.take<std::int32_t>(rows);
    scratch.slots = carver.take<std::int32_t>(row_span(rows));
    scratch.sources = carver.take<std::int64_t>(most_slots(rows));
    scratch.bytes = carver.used();
    return scratch;
  }

  std::size_t zeros_bytes() const {
    const std::int64_t bytes = (problem().in_channels + table_.lanes) * std::int64_t(sizeof(T));
    return align_up(static_cast<std::size_t>(std::min(bytes, kMostZeroBytes)));
  }

  // Whether vectors of a block read the image itself. They must not read past its last pixel; and
  // depthwise layers, with their one multiply-add for a load, would wait where pixels stand in one
  // or two sets of the L1 cache and throw each other out (up to threefold), or under wide kernels
  // where a vector lies in two lines (a fifth).
  bool in_place(const ConvArrays& arrays, const Block& block) const {
    if (copy_tiles_) return false;
    const std::int64_t end = block.in_begin + block.reach;
    if (arrays.x_strides.channel != 1 || end > problem().in_channels) return false;
    if (end * std::int64_t(sizeof(T)) > kMostZeroBytes) return false;
    // The vectors of a block are alike.
    if (vectors_[block.vectors_end - 1].spread != GroupedSpread::same) return true;
    const auto pitch = static_cast<std::uintptr_t>(arrays.x_strides.axis[2]) * sizeof(T);
    const auto at = reinterpret_cast<std::uintptr_t>(arrays.x);
    const bool crowded = crowds_sets<T>(arrays.x_strides.axis[2]);
    const bool aligned = (at | pitch) % kAlignment == 0;
    return !crowded && (aligned || problem().axes[2].kernel <= 7);
  }

  void run_task(const ConvArrays& arrays, const Place& at, const Scratch& scratch) const {
    const Columns columns = columns_of(at.column, at.columns);
    std::int64_t b = at.block;
    while (b < at.block_end && in_place(arrays, blocks_[static_cast<std::size_t>(b)])) ++b;
    if (b > at.block) {
      list_rows(at, columns, most_slots(at.rows), scratch);
      list_pixels(arrays, at, columns, true, scratch);
      // The next vector meets the same few rows.
      const std::int64_t row_bytes =
          std::int64_t(sizeof(T)) * columns.count * (b - at.block) * kChannelBlock;
      std::int64_t most = std::max<std::int64_t>(1, kMostPixels / at.columns);
      while (most > 1 && row_span(most) * row_bytes > kInPlaceBytes) --most;
      const Split parts = Split::by_limit(at.rows, most);
      for (std::int64_t part = 0; part < parts.count(); ++part) {
        for (std::int64_t i = at.block; i < b; ++i) {
          compute(arrays, at, i, true, parts.begin(part), parts.size(part), scratch);
        }
      }
    }
    if (b == at.block_end) return;
    list_rows(at, columns, copied_rows(), scratch);
    if (copy_tiles_) {
      clear_padding(columns, scratch);
    } else {
      list_pixels(arrays, at, columns, false, scratch);
    }
    const Split parts = Split::by_limit(at.rows, part_rows_);
    for (; b < at.block_end; ++b) {
      std::int32_t copied = 0;
      for (std::int64_t part = 0; part < parts.count(); ++part) {
        const std::int64_t row = parts.begin(part);
        const std::int64_t rows = parts.size(part);
        const std::int32_t needed = scratch.slot_ends[row + rows - 1];
        copy_rows(arrays, at, columns, b, copied, needed, scratch);
        copied = needed;
        compute(arrays, at, b, false, row, rows, scratch);
      }
    }
  }

  std::int64_t input_depth(const Place& at, std::int64_t tap) const {
    return input_index(problem().axes[0], at.depth, tap, problem().padding_mode);
  }

  // For each output row, the rows of the kernel that meet the input, and the input rows that they
  // read: slots, of which number n takes row n % places of the table or the copy.
  void list_rows(const Place& at, const Columns& columns, std::int64_t places,
                 const Scratch& scratch) const {
    const ConvProblem& p = problem();
    const Axis& height = p.axes[1];
    const auto slot_of = [&](std::int64_t r, std::int64_t h) -> std::int32_t& {
      return scratch.slots[r * row_step_ + h * tap_step_];
    };
    std::fill_n(scratch.slots, row_span(at.rows), -1);
    for (std::int64_t r = 0; r < at.rows; ++r) {
      for (std::int64_t h = 0; h < height.kernel; ++h) slot_of(r, h) = 0;
    }
    std::int32_t slots = 0;
    for (std::int64_t i = 0; i < row_span(at.rows); ++i) {
      if (scratch.slots[i] < 0) continue;
      const std::int64_t row = padded_index(
          at.row * height.stride - height.pad_before + i * row_unit_, height.in, p.padding_mode);
      scratch.sources[slots] = row;
      scratch.slots[i] = row < 0 ? -1 : slots++;
    }
    const std::int64_t pitch = copy_tiles_ ? columns.pitch : columns.count;
    std::int32_t units = 0;
    std::int32_t end = 0;
    for (std::int64_t r = 0; r < at.rows; ++r) {
      for (std::int64_t d = 0; d < p.axes[0].kernel; ++d) {
        if (input_depth(at, d) < 0) continue;
        for (std::int64_t h = 0; h < height.kernel; ++h) {
          const std::int32_t slot = slot_of(r, h);
          if (slot < 0) continue;
          end = std::max(end, slot + 1);
          scratch.units[units++] = {static_cast<std::int32_t>((d * places + slot % places) * pitch),
                                    static_cast<std::int32_t>(d * height.kernel + h)};
        }
      }
      scratch.unit_ends[r] = units;
      scratch.slot_ends[r] = end;
    }
  }

  // The table of the rows that list_rows() found, of the image or of the copy of a block.
  void list_pixels(const ConvArrays& arrays, const Place& at, const Columns& columns,
                   bool from_image, const Scratch& scratch) const {
    const ConvProblem& p = problem();
    const Axis& width = p.axes[2];
    const Strides& strides = arrays.x_strides;
    const std::int64_t slots = from_image ? scratch.slot_ends[at.rows - 1] : copied_rows();
    const bool zeros = p.padding_mode == PaddingMode::zeros;
    const std::int64_t first = zeros ? columns.first : 0;
    const std::int64_t last = zeros ? columns.last : columns.count;
    for (std::int64_t d = 0; d < p.axes[0].kernel; ++d) {
      const std::int64_t depth = input_depth(at, d);
      if (depth < 0) continue;
      const T** pixel =
          scratch.pixels + d * (from_image ? most_slots(at.rows) : slots) * columns.count;
      for (std::int64_t slot = 0; slot < slots; ++slot) {
        const T* const copy = scratch.copy + (d * slots + slot) * columns.pitch;
        const T* const row = from_image ? static_cast<const T*>(arrays.x) +
                                              at.image * strides.batch + depth * strides.axis[0] +
                                              scratch.sources[slot] * strides.axis[1]
                                        : nullptr;
        pixel = std::fill_n(pixel, first, at.zeros);
        for (std::int64_t k = first; k < last; ++k) {
          *pixel++ = from_image ? row + padded_index(columns.start + k, width.in, p.padding_mode) *
                                            strides.axis[2]
                                : copy + k * pixel_;
        }
        pixel = std::fill_n(pixel, columns.count - last, at.zeros);
      }
    }
  }

  // The columns of a copy that lie outside the input.
  void clear_padding(const Columns& columns, const Scratch& scratch) const {
    if (problem().padding_mode != PaddingMode::zeros) return;
    const std::int64_t rows = problem().axes[0].kernel * copied_rows();
    for (std::int64_t i = 0; i < rows; ++i) {
      T* const row = scratch.copy + i * columns.pitch;
      std::fill(row, row + columns.first * pixel_, T(0));
      std::fill(row + columns.last * pixel_, row + columns.count * pixel_, T(0));
    }
  }

  // Copies the slots [begin, end) of a block of channels.
  void copy_rows(const ConvArrays& arrays, const Place& at, const Columns& columns,
                 std::int64_t block, std::int32_t begin, std::int32_t end,
                 const Scratch& scratch) const {
    const ConvProblem& p = problem();
    const Axis& width = p.axes[2];
    const Block& from_block = blocks_[static_cast<std::size_t>(block)];
    const Strides& strides = arrays.x_strides;
    const bool zeros = p.padding_mode == PaddingMode::zeros;
    const std::int64_t inside = columns.last - columns.first;
    if (zeros && inside == 0) return;
    const bool transposed = zeros && strides.axis[2] == 1 && strides.channel != 1;
    const bool joined = transposed && inside == width.in && strides.axis[1] == width.in;
    const std::int64_t places = copied_rows();
    const auto source = [&](std::int32_t slot) { return scratch.sources[slot]; };
    for (std::int64_t d = 0; d < p.axes[0].kernel; ++d) {
      const std::int64_t depth = input_depth(at, d);
      if (depth < 0) continue;
      const T* const from = static_cast<const T*>(arrays.x) + at.image * strides.batch +
                            from_block.in_begin * strides.channel + depth * strides.axis[0];
      for (std::int32_t slot = begin, run = 1; slot < end; slot += run) {
        const std::int64_t place = slot % places;
        const T* const row = from + source(slot) * strides.axis[1];
        T* const to = scratch.copy + (d * places + place) * columns.pitch;
        run = 1;
        if (transposed) {
          // Rows that are one in the input and in the copy.
          while (joined && slot + run < end && place + run < places &&
                 source(slot + run) == source(slot) + run) {
            ++run;
          }
          TransposeArgs<T> args{};
          args.from = row + columns.start + columns.first;
          args.row_stride = strides.channel;
          args.rows = from_block.in_channels;
          args.padded_rows = round_up(from_block.in_channels, table_.lanes);
          args.count = run * inside;
          args.run = inside;
          args.run_pitch = columns.pitch;
          args.pitch = pixel_;
          args.to = to + columns.first * pixel_;
          table_.transpose(args);
          continue;
        }
        PixelRowArgs<T> args{};
        args.from = row;
        args.channel_stride = strides.channel;
        args.column_stride = strides.axis[2];
        args.channels = from_block.in_channels;
        args.column_in = width.in;
        args.padding_mode = p.padding_mode;
        args.phases = args.step = 1;
        args.pitch = pixel_;
        args.start = columns.start;
        args.count = columns.count;
        args.first = columns.first;
        args.last = columns.last;
        args.to = to;
        if (zeros) {
          args.start += columns.first;
          args.count = args.last = inside;
          args.first = 0;
          args.to += columns.first * pixel_;
        }
        table_.pixel_row(args);
      }
    }
  }

  // Output rows [row, row + rows) of the place, of all vectors of a block.
  void compute(const ConvArrays& arrays, const Place& at, std::int64_t block, bool from_image,
               std::int64_t row, std::int64_t rows, const Scratch& scratch) const {
    const Block& in = blocks_[static_cast<std::size_t>(block)];
    const std::size_t first =
        block > 0 ? blocks_[static_cast<std::size_t>(block - 1)].vectors_end : 0;
    for (std::size_t v = first; v < in.vectors_end; ++v) {
      const std::int64_t channel = vectors_[v].in_block + (from_image ? in.in_begin : 0);
      compute_vector(arrays, at, vectors_[v], channel, row, rows, scratch);
    }
  }

  void compute_vector(const ConvArrays& arrays, const Place& at, const OutVector& vector,
                      std::int64_t channel, std::int64_t row, std::int64_t rows,
                      const Scratch& scratch) const {
    const Axis& width = problem().axes[2];
    GroupedArgs<T> args{};
    args.units = scratch.units;
    args.unit_ends = scratch.unit_ends + row;
    args.first_unit = row > 0 ? scratch.unit_ends[row - 1] : 0;
    args.rows = rows;
    args.size = width.kernel;
    args.channels = vector.in_channels;
    args.channel = channel;
    args.tap_step = width.dilation;
    args.column_step = width_.spacing * width.stride;
    args.weights = static_cast<const T*>(arrays.packed_weights) + vector.packed_offset;
    if (vector.spread == GroupedSpread::permuted)
      args.spread = spreads_.data() + vector.spread_begin;
    const bool in_output = channels_end_in_output(problem(), arrays);
    const ChannelsEnd<T> end =
        in_output ? output_end<T>(problem(), arrays, at.image, vector.out_begin, at.depth,
                                  at.row + row * row_spacing_, at.column)
                  : scratch_end(scratch.sums, at.columns * table_.lanes, table_.lanes);
    args.lanes = in_output ? vector.out_channels : table_.lanes;
    args.end = end;
    if (in_output && rows > 1) {  // the stride of a single one means nothing
      args.end.residual_row *= row_spacing_;
      args.end.out_row *= row_spacing_;
    }
    if (at.columns > 1) {
      args.end.residual_column *= width_.spacing;
      args.end.out_column *= width_.spacing;
    }
    const std::int64_t phases = std::min(width_.spacing, at.columns);
    for (std::int64_t phase = 0; phase < phases; ++phase) {
      const std::int64_t count = ceil_div(at.columns - phase, width_.spacing);
      const Split tiles = Split::by_limit(count, tile_columns());
      for (std::int64_t t = 0; t < tiles.count(); ++t) {
        const std::int64_t column = phase + tiles.begin(t) * width_.spacing;
        const std::int64_t size = tiles.size(t);
        args.pixels = scratch.pixels + column * width.stride;
        args.copy = scratch.copy + column * width.stride * pixel_;
        if (end.residual) args.end.residual = end.residual + column * end.residual_column;
        args.end.out = end.out + column * end.out_column;
        const auto known = vector.shape < 0 ? nullptr : table_.grouped[vector.shape][size - 1];
        const auto tile = copy_tiles_ ? copy_tiles_[size - 1]
                          : known ? known
                                  : table_.grouped_any[static_cast<int>(vector.spread)][size - 1];
        tile(args);
      }
    }
    if (in_output) return;
    const std::int64_t pixel =
        problem().out_pixel(at.depth, at.row + row * row_spacing_, at.column);
    const SumsBlock<T> row_sums{scratch.sums,     table_.lanes,        true,  at.image,
                                vector.out_begin, vector.out_channels, pixel, pixel + at.columns};
    send_rows(problem(), table_, arrays, row_sums, rows, at.columns * table_.lanes, row_spacing_);
  }

  const KernelTable<T>& table_;
  const GroupedTile<T>* copy_tiles_ = nullptr;
  std::int64_t pixel_ = kChannelBlock;  // elements of a copied pixel
  std::int64_t part_rows_ = 1;          // of outputs for which rows are copied at a time
  std::int64_t row_spacing_ = 1;        // from an output row of a task to the next
  std::int64_t row_unit_ = 1;           // from an input row that they may read to the next
  std::int64_t row_step_ = 1;           // in these, from one output row to the next
  std::int64_t tap_step_ = 1;           // and from one row of the kernel
  TileAxis width_;
  int most_threads_;
  std::vector<Block> blocks_;
  std::vector<OutVector> vectors_;
  std::vector<std::int32_t> spreads_;  // [channel][lane] of each kind of group
  std::int64_t spread_in_ = 0;         // the last kind
  std::int64_t spread_out_ = 0;
  std::int64_t spread_begin_ = 0;
  std::int64_t packed_elements_ = 0;
  Split rows_;
  Split columns_;
};

// Whether vectors have 32 bytes, which come with 16 registers.
bool has_short_vectors() { return kernels<float>().lanes == 8; }

// Whether lanes of pixels, which read planes where they stand, are better for depthwise layers than
// changing their layout. From the nanoseconds per 16 outputs that both took, on planes of 20 to 112
// columns under kernels of 3 to 7 taps a side. Both give the same bits, so that the choice may
// depend on the vectors: with short ones it is strips of 3x3 planes and long rows that gain, others
// take 1.1 to 4 times as long.
bool pixels_pay(const ConvProblem& p) {
  const Axis& height = p.axes[1];
  const Axis& width = p.axes[2];
  const bool square = height.kernel == width.kernel && height.stride == width.stride;
  const bool undilated = height.dilation == 1 && width.dilation == 1;
  const bool plane =
      square && (undilated || width.stride == 1) && p.padding_mode == PaddingMode::zeros;
  if (has_short_vectors()) {
    if (height.out == 1) return width.stride <= 2 && width.out >= 60 * (4 + p.taps());
    if (p.taps() == 1) return width.stride == 1 && width.out >= 48;
    if (!plane || width.kernel != 3 || width.stride > 2) return false;
    return undilated ? width.out >= 12 : height.dilation >= 8 && width.out >= 24;
  }
  const auto columns = static_cast<double>(width.out);
  const auto whole = static_cast<double>(round_up(width.out, 16));
  if (plane && width.kernel == 3 && width.stride <= 2) {
    const double most = width.out > 16 && height.dilation > 2 ? 2 : 1.6;
    return width.out >= 6 && (undilated || whole <= most * columns);
  }
  if (width.stride > 1) {
    const std::int64_t fewest = width.kernel == 7 ? 18 : 17;
    const bool strips = width.kernel == 4 || width.kernel == 5 || width.kernel == 7;
    return plane && width.stride == 2 && strips && is_one_plane(p) && width.out >= fewest;
  }
  if (height.out == 1) return width.out >= 60 * (4 + p.taps());  // a tile has one row
  if (width.kernel > 7) return false;
  if (plane && is_one_plane(p) && width.out > 16) {  // in strips
    if (width.kernel == 5) return whole <= (width.out > 32 ? 1.4 : 1.12) * columns;
    if (width.kernel == 7 && width.dilation == 1) return whole <= 1.12 * columns;
  }
  const auto taps = static_cast<double>(p.taps());
  const auto planes = static_cast<double>(p.axes[0].kernel);
  double row = (1.1 + 0.31 * taps) * (columns + 10);
  if (plane && width.kernel == 5) row = 9.4 * planes * (columns + 3);
  if (plane && width.kernel == 4 && width.dilation == 1) row = 5.1 * planes * (columns + 3);
  return row * whole / (columns * columns) < 4.6 + 0.25 * taps;
}

}  // namespace

std::string grouped_refuses(const ConvProblem& p) {
  if (most_in_channels(p) > kChannelBlock) return "a group has over 16 input channels";
  if (most_out_channels(p) > kMostOutChannels) return "a group has over 65536 output channels";
  if (p.taps() > kMostTaps || p.axes[2].kernel > kMostTaps) return "the kernel has over 1024 taps";
  const char* const large = "the input under a few output pixels takes more than 2 MiB";
  for (const Axis& axis : p.axes) {
    if (axis.kernel > kMostTaps || axis.stride > kMostCopyBytes || axis.dilation > kMostCopyBytes) {
      return large;
    }
  }
  const Axis& width = p.axes[2];
  const std::int64_t columns = width.span(kMostGroupedColumns);
  const std::int64_t element = element_bytes(p.dtype);
  const std::int64_t bytes = columns * kChannelBlock * element;
  if (bytes > kMostCopyBytes || bytes * p.axes[0].kernel * p.axes[1].kernel > kMostCopyBytes ||
      (p.axes[1].kernel - 1) * p.axes[1].dilation > kMostCopyBytes / element) {
    return large;
  }
  return {};
}

// Measured in float32 on 16 lanes, against the algorithms that follow in the list.
bool grouped_pays(const ConvProblem& p) {
  constexpr std::int64_t lanes = 16;
  const Axis& width = p.axes[2];
  const std::int64_t in_channels = most_in_channels(p);
  const std::int64_t out_channels = most_out_channels(p);
  if (p.groups.size() < 2) return false;
  if (in_channels == 1 && p.channels_last) {
    if (out_channels != 1) return false;
    if (has_short_vectors()) return width.kernel >= 8 || (width.kernel == 7 && width.out <= 20);
    return width.kernel >= 6 || (width.kernel == 5 && width.out <= 20);
  }
  if (in_channels == 1 && out_channels <= 4) {
    if (p.out_channels < 12) return false;
    return out_channels == 1 ? !pixels_pay(p) : width.out <= lanes / 2;
  }
  const std::int64_t most = std::max(in_channels, out_channels);
  if (p.channels_last) {
    if (most <= lanes / 2) {
      // The rows of more inputs than outputs are better turned around for `direct`.
      const bool turned = width.stride == 1 && in_channels > 4 && p.taps() > 1 &&
                          out_channels <= (p.taps() < 25 ? 4 : 6) && direct_refuses(p).empty() &&
                          direct_pays(p);
      return !turned;
    }
    // More outputs in full vectors of their own: where few columns or strides leave other
    // algorithms little to share, 1.1 to 1.6 times as fast; vectors of 8 lose a quarter.
    if (has_short_vectors() || p.taps() == 1) return false;
    if (out_channels <= lanes / 2 || out_channels > lanes) return false;
    if (width.stride > 1) return width.out <= 40;
    return in_channels <= lanes / 2 && width.out <= (p.taps() < 16 ? 36 : 24);
  }
  // A single tap shares no change of layout: pixels as lanes take half the time on large planes.
  if (p.taps() == 1 && p.out_pixels() * most >= 700) return false;
  // Other algorithms spread a group's channels over lanes that are pixels, which long rows fill.
  const std::int64_t in_use = std::min(p.out_channels, lanes / most * out_channels);
  if (width.out <= lanes / 2) return in_use >= lanes / 2;
  if (width.out <= 20) {
    // More channels are 1.05 to 1.25 times as fast so, unless direct_channels leaves out many taps.
    const bool more = in_channels > 4 && p.taps() > 1 && taps_inside(p) > 0.7;
    return in_use >= 13 && most <= (more && !has_short_vectors() ? lanes : lanes / 2);
  }
  return in_use == lanes && most <= 4 && p.taps() < 16;
}

std::unique_ptr<Plan> plan_grouped(ConvProblem problem) {
  return plan_of_dtype<GroupedPlan>(std::move(problem));
}

}  // namespace pyconv
