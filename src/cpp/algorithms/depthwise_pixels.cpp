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
//
// The most common kernels go through whole planes by themselves, without table or copy.
#include <algorithm>
#include <numeric>

#include "algorithms/common.hpp"
#include "algorithms/depthwise.hpp"
#include "algorithms/output.hpp"
#include "core/padding.hpp"
#include "core/parallel.hpp"
#include "core/partition.hpp"
#include "core/workspace.hpp"

namespace pyconv {
namespace {

// Copied rows should stay in the first-level cache, but a full tile is worth more than that.
constexpr std::int64_t kStageBytes = 32 << 10;
constexpr std::int64_t kTileStageBytes = 256 << 10;
// How far to read ahead: no further than an L2 cache has room. Tiles of whole planes go along rows,
// and read some rows ahead.
constexpr std::int64_t kReadAheadBytes = 256 << 10;
constexpr std::int64_t kRowsAheadOfTiles = 28;
// Of a task, for the sake of interrupts.
constexpr std::int64_t kMostTaskBytes = 64 << 20;
constexpr std::int64_t kEverywhere = std::int64_t(1) << 40;

// The kernels for whole planes: their taps a side and stride, whether the taps of a row are apart,
// and whether they take single planes of more than a vector of columns alone.
struct PlaneKernel {
  std::int64_t size;
  std::int64_t stride;
  DepthwisePlaneShape shape;
  bool dilated;
  bool in_strips;
};

constexpr PlaneKernel kPlaneKernels[] = {
    {3, 1, DepthwisePlaneShape::k3, false, false},   {4, 1, DepthwisePlaneShape::k4, false, false},
    {5, 1, DepthwisePlaneShape::k5, false, false},   {7, 1, DepthwisePlaneShape::k7, false, true},
    {3, 2, DepthwisePlaneShape::k3s2, false, false}, {4, 2, DepthwisePlaneShape::k4s2, false, true},
    {5, 2, DepthwisePlaneShape::k5s2, false, true},  {7, 2, DepthwisePlaneShape::k7s2, false, true},
    {3, 1, DepthwisePlaneShape::k3d, true, false},   {5, 1, DepthwisePlaneShape::k5d, true, false},
};

template <class T>
class DepthwisePixelsPlan final : public RowsPlan {
 public:
  explicit DepthwisePixelsPlan(ConvProblem problem_in)
      : RowsPlan(std::move(problem_in)), table_(kernels<T>()) {
    const ConvProblem& p = problem();
    height_ = TileAxis(p.axes[1]);
    row_step_ = std::min(height_.step, p.axes[1].kernel);
    shape_ = shape();
    const Axis& width = p.axes[2];
    columns_ = Split::by_limit(width.out, depthwise_block_columns(p));
    for (std::int64_t tap = 0; tap < width.kernel; ++tap) {
      shifts_.push_back(tap * width.dilation - width.pad_before);
    }
    find_phases(width);
    // Only zeros of the width are masked; other padding is copied.
    const std::int64_t reach = (width.out - 1) * width.stride + shifts_.back();
    in_place_ = (width.stride == 1 || shape_ != 0) && (p.padding_mode == PaddingMode::zeros ||
                                                       (width.pad_before == 0 && reach < width.in));
    find_plane_kernel();
    zeros_ = row_length_;
    if (in_place_) {
      zeros_ = std::max(zeros_, width.span(round_up(columns_.largest(), table_.lanes) + 1));
    }
    rows_ = Split::by_limit(p.axes[1].out, most_rows());
  }

  std::string name() const override { return "depthwise"; }
  std::string packing() const override { return "depthwise/pixels"; }

  std::size_t packed_bytes() const override {
    return static_cast<std::size_t>(problem().out_channels * problem().taps()) * sizeof(T);
  }

  void pack(const std::vector<WeightView>& weights, void* packed) const override {
    T* to = static_cast<T*>(packed);
    TapOffsets taps(problem());
    for (std::size_t g = 0; g < weights.size(); ++g) {
      const WeightView& view = weights[g];
      for (std::int64_t out = 0; out < problem().groups[g].out_channels; ++out) {
        const T* from = static_cast<const T*>(view.data) + out * view.out_stride;
        for (const std::int64_t offset : taps.of(view)) *to++ = from[offset];
      }
    }
  }

  int useful_threads(int limit) const override { return depthwise_threads(problem(), limit); }

  std::size_t workspace_bytes(int threads) const override {
    return zeros_bytes() + static_cast<std::size_t>(threads) * carve(nullptr).bytes;
  }

  std::string partition(int threads) const override {
    return partition_of(blocking(threads, plane_kernel_ && !problem().channels_last)).text();
  }

  std::string tile() const override {
    return std::to_string(kMaxDepthwiseRows) + " rows x " + std::to_string(table_.lanes) +
           " pixels";
  }

  std::string reason() const override {
    return "one input channel per group, lanes are pixels of a row";
  }

  void run(const ConvArrays& arrays, int threads) const override {
    const Blocks blocks = blocking(threads, serves_planes(arrays));
    const Workspace workspace(workspace_bytes(threads));
    const T* const zeros = fill_zeros(workspace.get());
    std::byte* const scratch = after_zeros(workspace.get());
    const std::size_t bytes = carve(nullptr).bytes;
    const auto partition = partition_of(blocks);
    parallel_for(partition.tasks(), threads, [&](std::int64_t index, int thread) {
      Task task(carve(scratch + static_cast<std::size_t>(thread) * bytes));
      const auto [image, depth, row, column, group] = partition.at(index);
      task.image = image;
      task.depth = depth;
      task.group_begin = blocks.groups.begin(group);
      task.group_end = blocks.groups.end(group);
      task.column = blocks.columns.begin(column);
      task.columns = blocks.columns.size(column);
      task.row_begin = blocks.rows.begin(row);
      task.row_end = blocks.rows.end(row);
      run_task(arrays, task, zeros);
    });
  }

  std::size_t rows_workspace_bytes() const override { return workspace_bytes(1); }

  void run_rows(const ConvArrays& arrays, std::int64_t begin, std::int64_t end,
                void* workspace) const override {
    const T* const zeros = fill_zeros(workspace);
    const Split rows = Split::by_limit(end - begin, rows_.largest());
    for (std::int64_t row = 0; row < rows.count(); ++row) {
      for (std::int64_t column = 0; column < columns_.count(); ++column) {
        Task task(carve(after_zeros(workspace)));
        task.image = task.depth = task.group_begin = 0;
        task.group_end = static_cast<std::int64_t>(problem().groups.size());
        task.column = columns_.begin(column);
        task.columns = columns_.size(column);
        task.row_begin = begin + rows.begin(row);
        task.row_end = begin + rows.end(row);
        run_task(arrays, task, zeros);
      }
    }
  }

 private:
  // How the work is cut, which depends on the number of threads; the results do not.
  struct Blocks {
    Split rows;
    Split columns;
    Split groups;
  };

  Partition<5> partition_of(const Blocks& blocks) const {
    return Partition({{"images", problem().batch},
                      {"planes", problem().axes[0].out},
                      {"blocks of rows", blocks.rows.count()},
                      {"blocks of columns", blocks.columns.count()},
                      {"blocks of channels", blocks.groups.count()}});
  }

  struct Tile {
    std::int64_t row;    // the first
    std::int64_t count;  // of rows, `spacing` apart
    int size;            // index of kDepthwiseRows
  };

  // A row to copy: where it stands in a channel.
  struct Copy {
    std::int64_t from;
    std::int64_t to;
  };

  struct Scratch {
    DepthwisePlane<T>* planes;
    DepthwisePhase* phases;
    Tile* tiles;
    std::int64_t* offsets;  // per tile: the kernel's table, relative to the channel or the copies
    const T** rows;         // of one tile: the same as addresses
    Copy* to_copy;
    unsigned char* listed;  // which rows `to_copy` has
    T* copies;
    T* sums;
    std::size_t bytes;
  };

  struct Task : Scratch {
    explicit Task(const Scratch& scratch) : Scratch(scratch) {}
    bool in_place;
    const T* zeros;
    std::int64_t image, depth, row_begin, row_end, column, columns, group_begin, group_end;
    std::int64_t tile_count = 0;
    std::int64_t copy_count = 0;
  };

  static constexpr std::int64_t kZeros = std::numeric_limits<std::int64_t>::min();

  // A piece of a copied row: every stride-th column from `first` on, `reach` more of them than
  // there are output columns.
  struct Phase {
    std::int64_t first;
    std::int64_t reach;
  };

  // The kernel for a column stride of 1, as copied rows have it.
  int unit_shape() const { return depthwise_shape(problem(), row_step_, 1); }

  // The kernel for rows that are read in place.
  int shape() const {
    const Axis& width = problem().axes[2];
    if (width.stride == 1) return unit_shape();
    return width.dilation == 1 ? depthwise_shape(problem(), row_step_, width.stride) : 0;
  }

  // Finds the kernel for whole planes that are read in place, if there is one.
  void find_plane_kernel() {
    const Axis& height = problem().axes[1];
    const Axis& width = problem().axes[2];
    const bool square = height.kernel == width.kernel && height.stride == width.stride;
    if (!square || problem().padding_mode != PaddingMode::zeros) return;
    if (width.stride > 1 && (height.dilation > 1 || width.dilation > 1)) return;
    // It looks for padding under the first and the last row of outputs of a tile alone.
    const std::int64_t last = (height.out - 1) * height.stride - height.pad_before;
    if (ceil_div(height.pad_before, height.dilation) > height.kernel || last > height.in) return;
    const bool strips = is_one_plane(problem()) && width.out > table_.lanes;
    for (const PlaneKernel& known : kPlaneKernels) {
      const bool alike = known.size == width.kernel && known.stride == width.stride &&
                         known.dilated == (width.dilation > 1);
      if (!alike || (known.in_strips && !strips)) continue;
      const int shape = static_cast<int>(known.shape);
      plane_kernel_ = table_.depthwise_plane[shape];
      planes_roll_ = table_.planes_roll[shape] && strips;
    }
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
  std::int64_t positions(std::int64_t rows) const { return problem().axes[1].span(rows); }

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

  std::int64_t table_size(std::int64_t tile_rows) const {
    return problem().axes[0].kernel * ((tile_rows - 1) * row_step_ + problem().axes[1].kernel);
  }

  Scratch carve(void* base) const {
    const std::int64_t rows = rows_.largest();
    const std::int64_t spacing = std::min(height_.spacing, rows);
    const std::int64_t tiles =
        spacing * ceil_div(ceil_div(rows, spacing), std::int64_t(kMaxDepthwiseRows));
    const std::int64_t copies = problem().axes[0].kernel * positions(rows);
    Carver carver(base);
    const auto take = [&](auto*& piece, std::int64_t count) {
      piece = carver.take<std::remove_reference_t<decltype(*piece)>>(count);
    };
    Scratch scratch;
    take(scratch.planes, problem().axes[0].kernel);
    take(scratch.phases, std::min(problem().axes[1].dilation, rows));
    take(scratch.tiles, tiles);
    take(scratch.offsets, tiles * table_size(kMaxDepthwiseRows));
    take(scratch.rows, table_size(kMaxDepthwiseRows));
    take(scratch.to_copy, copies);
    take(scratch.listed, copies);
    take(scratch.copies, copies * row_length_);
    take(scratch.sums, kMaxDepthwiseRows * round_up(columns_.largest(), table_.lanes));
    scratch.bytes = carver.used();
    return scratch;
  }

  // Kernels for planes need no scratch, whose size would bound the rows of a task: whole planes are
  // read in the order of their addresses. Strips leave lines for the next one in an L2 cache. What
  // is gone through more than once, sums that end in memory and dilated rows, an L1 cache should
  // keep.
  Split plane_rows() const {
    const auto& [depth, height, width] = problem().axes;
    if (!clamp_of(problem().activation) || height.dilation > 1) return rows_;
    const std::int64_t row =
        columns_.largest() * width.stride * height.stride * std::int64_t(sizeof(T));
    const std::int64_t bytes = planes_roll_ ? 2 * kReadAheadBytes : kMostTaskBytes;
    return Split::by_limit(height.out, std::max<std::int64_t>(1, bytes / row));
  }

  Blocks blocking(int threads, bool planes_as_they_are) const {
    const ConvProblem& p = problem();
    const auto groups = static_cast<std::int64_t>(p.groups.size());
    Blocks blocks{planes_as_they_are ? plane_rows() : rows_, columns_, {}};
    const std::int64_t planes = p.batch * p.axes[0].out;
    if (planes * groups < 8 * threads && planes * groups % threads != 0) {
      if (p.axes[1].out >= threads) {
        const std::int64_t count = round_up(blocks.rows.count(), threads);
        blocks.rows = Split::by_count(p.axes[1].out, std::min(count, p.axes[1].out));
      } else if (p.axes[2].out >= threads * table_.lanes) {
        blocks.columns = Split::by_count(p.axes[2].out, round_up(columns_.count(), threads));
      }
    }
    // A task lists its rows once for all its channels.
    const std::int64_t others = planes * blocks.rows.count() * blocks.columns.count();
    blocks.groups = blocks_for_even_tasks(groups, others, threads);
    return blocks;
  }

  // The workspace begins with a row of zeros for all threads.
  T* fill_zeros(void* workspace) const {
    return std::fill_n(static_cast<T*>(workspace), zeros_, T(0)) - zeros_;
  }
  std::size_t zeros_bytes() const { return align_up(static_cast<std::size_t>(zeros_) * sizeof(T)); }
  std::byte* after_zeros(void* workspace) const {
    return static_cast<std::byte*>(workspace) + zeros_bytes();
  }

  void run_task(const ConvArrays& arrays, Task& task, const T* zeros) const {
    const ConvProblem& p = problem();
    if (serves_planes(arrays)) return run_planes(arrays, task);
    task.in_place = reads_in_place(arrays);
    task.zeros = task.in_place ? zeros + p.axes[2].pad_before : zeros;
    list_rows(arrays, task);
    const T* image = static_cast<const T*>(arrays.x) + task.image * arrays.x_strides.batch;
    const std::int64_t length = task.columns * p.axes[2].stride;
    const bool near = task.in_place &&
                      positions(task.row_end - task.row_begin) * length * std::int64_t(sizeof(T)) <=
                          kReadAheadBytes;
    for (std::int64_t g = task.group_begin; g < task.group_end; ++g) {
      const Group& group = p.groups[static_cast<std::size_t>(g)];
      const T* x = image + group.in_begin * arrays.x_strides.channel;
      for (std::int64_t i = 0; i < task.copy_count; ++i) {
        copy_row(task, x + task.to_copy[i].from, arrays.x_strides.axis[2],
                 task.copies + task.to_copy[i].to);
      }
      const T* base = task.in_place ? x : task.copies;
      const std::int64_t* offsets = task.offsets;
      for (std::int64_t t = 0; t < task.tile_count; ++t) {
        const std::int64_t size = table_size(kDepthwiseRows[task.tiles[t].size]);
        for (std::int64_t i = 0; i < size; ++i) {
          task.rows[i] = offsets[i] == kZeros ? task.zeros : base + offsets[i];
        }
        if (near && size > 1 && g + 1 < task.group_end) {
          // Rows that the tile before reads, too, are on their way already.
          const std::int64_t known = t == 0 ? 0 : p.axes[1].kernel - row_step_;
          read_ahead(task, x + arrays.x_strides.channel, offsets + known, offsets + size);
        }
        offsets += size;
        run_tile(arrays, task, task.tiles[t], group);
      }
    }
  }

  bool reads_in_place(const ConvArrays& arrays) const {
    return in_place_ && arrays.x_strides.axis[2] == 1;
  }

  // Whether a kernel can take the planes as they are.
  bool serves_planes(const ConvArrays& arrays) const {
    return plane_kernel_ && arrays.x_strides.axis[2] == 1 && arrays.out_strides.axis[2] == 1 &&
           (!arrays.residual || arrays.residual_strides.axis[2] == 1);
  }

  // Lists the depth taps that meet the input, of an image from `x` on, and says how many.
  std::int64_t list_planes(const ConvArrays& arrays, const Task& task, const T* x,
                           const T* weights) const {
    const ConvProblem& p = problem();
    const auto& [depth, height, width] = p.axes;
    std::int64_t count = 0;
    for (std::int64_t td = 0; td < depth.kernel; ++td) {
      const std::int64_t d = input_index(depth, task.depth, td, p.padding_mode);
      if (d < 0) continue;
      task.planes[count++] = {x + d * arrays.x_strides.axis[0],
                              weights + td * height.kernel * width.kernel};
    }
    return count;
  }

  void run_planes(const ConvArrays& arrays, const Task& task) const {
    const ConvProblem& p = problem();
    const Axis& height = p.axes[1];
    const Axis& width = p.axes[2];
    DepthwisePlaneArgs<T> args{};
    const std::int64_t rows = task.row_end - task.row_begin;
    args.planes = task.planes;
    args.x_row = height.dilation * arrays.x_strides.axis[1];
    args.in_columns = width.in;
    args.pad_column = width.pad_before;
    args.tap_step = width.dilation;
    args.column = task.column;
    args.columns = task.columns;
    const auto offset = [&](const Strides& strides, std::int64_t channel) {
      return task.image * strides.batch + channel * strides.channel + task.depth * strides.axis[0] +
             task.row_begin * strides.axis[1] + task.column * strides.axis[2];
    };
    const std::optional<Clamp> clamp = clamp_of(p.activation);
    const T* const bias = static_cast<const T*>(arrays.bias);
    const T* const all_residual = static_cast<const T*>(arrays.residual);
    const std::int64_t plane_bytes =
        rows * height.stride * args.columns * width.stride * std::int64_t(sizeof(T));
    // Channels at a time: without end where each is finished at once, else while they are near.
    const std::int64_t most = clamp ? task.group_end - task.group_begin
                                    : std::max<std::int64_t>(1, kStageBytes / 2 / plane_bytes);
    args.phases = task.phases;
    args.phase_count = list_phases(arrays, task);
    args.x_channel = arrays.x_strides.channel;
    args.weights_channel = p.taps();
    args.out_channel = arrays.out_strides.channel;
    args.residual_channel = arrays.residual_strides.channel;
    const auto out_channels = [&](std::int64_t g) {
      return p.groups[static_cast<std::size_t>(g)].out_channels;
    };
    for (std::int64_t g = task.group_begin; g < task.group_end;) {
      const Group& group = p.groups[static_cast<std::size_t>(g)];
      // Those of groups of one channel each; strips of the last group have none to read ahead for.
      const std::int64_t last = std::min(g + most, task.group_end - 1);
      std::int64_t next = g + 1;
      if (out_channels(g) == 1) {
        while (next < last && out_channels(next) == 1) ++next;
      }
      args.channels = next - g;
      args.ahead = read_ahead_of_planes(rows, plane_bytes, next < task.group_end, args);
      const T* const x = static_cast<const T*>(arrays.x) + task.image * arrays.x_strides.batch +
                         group.in_begin * arrays.x_strides.channel;
      for (std::int64_t i = 0; i < group.out_channels; ++i) {
        const std::int64_t channel = group.out_begin + i;
        const T* const weights = static_cast<const T*>(arrays.packed_weights) + channel * p.taps();
        T* const out = static_cast<T*>(arrays.out) + offset(arrays.out_strides, channel);
        const T* const residual =
            all_residual ? all_residual + offset(arrays.residual_strides, channel) : nullptr;
        args.end = no_epilogue<T>();
        args.end.out_row = height.dilation * arrays.out_strides.axis[1];
        if (clamp) {
          args.end.low = static_cast<T>(clamp->low);
          args.end.high = static_cast<T>(clamp->high);
          args.biases = bias ? bias + channel : nullptr;
          args.end.residual = residual;
          args.end.residual_row = height.dilation * arrays.residual_strides.axis[1];
        }
        args.plane_count = list_planes(arrays, task, x, weights);
        args.end.out = out;
        plane_kernel_(args);
        if (!clamp) activate_planes(arrays, args, rows, bias ? bias + channel : nullptr, residual);
      }
      g = next;
    }
  }

  // The planes that rows a dilation apart are, and how many.
  std::int64_t list_phases(const ConvArrays& arrays, const Task& task) const {
    const Axis& height = problem().axes[1];
    const std::int64_t rows = task.row_end - task.row_begin;
    const std::int64_t count = std::min(height.dilation, rows);
    for (std::int64_t phase = 0; phase < count; ++phase) {
      const std::int64_t top = (task.row_begin + phase) * height.stride - height.pad_before;
      const std::int64_t input = (top % height.dilation + height.dilation) % height.dilation;
      task.phases[phase] = {
          input * arrays.x_strides.axis[1],        phase * arrays.out_strides.axis[1],
          phase * arrays.residual_strides.axis[1], ceil_div(height.in - input, height.dilation),
          (input - top) / height.dilation,         ceil_div(rows - phase, height.dilation)};
    }
    return count;
  }

  // How far a kernel asks ahead, in elements, of planes of which so many rows are read, with others
  // to follow or not: some rows, or the next plane.
  std::int64_t read_ahead_of_planes(std::int64_t rows, std::int64_t plane_bytes, bool others,
                                    const DepthwisePlaneArgs<T>& args) const {
    const Axis& height = problem().axes[1];
    const bool in_order = !planes_roll_ && height.dilation == 1 && height.in > 1 &&
                          (rows == height.out || plane_bytes > kReadAheadBytes);
    if (!in_order) return others && plane_bytes <= kReadAheadBytes ? args.x_channel : 0;
    const bool more = others || rows * height.stride > kRowsAheadOfTiles;
    return more ? kRowsAheadOfTiles * args.x_row : 0;
  }

  // Sends sums that stand in the output, of the channels of a kernel's call, through the epilogue.
  void activate_planes(const ConvArrays& arrays, const DepthwisePlaneArgs<T>& args,
                       std::int64_t rows, const T* bias, const T* residual) const {
    EpilogueArgs<T> epilogue{};
    epilogue.rows = rows;
    epilogue.columns = args.columns;
    epilogue.acc_row = epilogue.out_row = arrays.out_strides.axis[1];
    epilogue.out_column = 1;
    epilogue.residual_row = arrays.residual_strides.axis[1];
    epilogue.residual_column = 1;
    epilogue.activation = problem().activation;
    for (std::int64_t c = 0; c < args.channels; ++c) {
      epilogue.acc = epilogue.out = args.end.out + c * args.out_channel;
      epilogue.bias = bias ? bias + c : nullptr;
      epilogue.residual = residual ? residual + c * args.residual_channel : nullptr;
      table_.epilogue(epilogue);
    }
  }

  // Fetches rows of the next channel. A tile reads several rows at once, in which the hardware
  // finds no stream: from memory, planes of 28 to 112 pixels are up to three times as fast so; from
  // the L3 cache, within 5 %. A single row is a stream.
  void read_ahead(const Task& task, const T* x, const std::int64_t* begin,
                  const std::int64_t* end) const {
    const std::int64_t length = task.columns * problem().axes[2].stride;
    for (const std::int64_t* offset = begin; offset < end; ++offset) {
      if (*offset != kZeros) prefetch<true>(x + *offset, length);
    }
  }

  // Cuts the block into tiles and finds the rows that each reads.
  void list_rows(const ConvArrays& arrays, Task& task) const {
    const ConvProblem& p = problem();
    const Axis& depth = p.axes[0];
    if (!task.in_place) {
      std::fill_n(task.listed, depth.kernel * positions(task.row_end - task.row_begin), 0);
    }
    std::int64_t* to = task.offsets;
    for (std::int64_t phase = 0; phase < height_.spacing; ++phase) {
      std::int64_t row = task.row_begin + phase;
      while (row < task.row_end) {
        const std::int64_t left = ceil_div(task.row_end - row, height_.spacing);
        // 4 + 4 instead of 7 + 1.
        const std::int64_t count = left == 8 ? 4 : std::min<std::int64_t>(left, kMaxDepthwiseRows);
        int size = 0;
        while (kDepthwiseRows[size] < count) ++size;
        task.tiles[task.tile_count++] = {row, count, size};
        for (std::int64_t td = 0; td < depth.kernel; ++td) {
          to = list_tile_rows(arrays, task, row, count, kDepthwiseRows[size], td, to);
        }
        row += count * height_.spacing;
      }
    }
  }

  std::int64_t* list_tile_rows(const ConvArrays& arrays, Task& task, std::int64_t row,
                               std::int64_t count, std::int64_t tile_rows, std::int64_t td,
                               std::int64_t* to) const {
    const ConvProblem& p = problem();
    const Axis& depth = p.axes[0];
    const Axis& height = p.axes[1];
    std::int64_t* end = to + (tile_rows - 1) * row_step_ + height.kernel;
    std::fill(to, end, kZeros);
    const std::int64_t d = input_index(depth, task.depth, td, p.padding_mode);
    if (d < 0) return end;
    for (std::int64_t r = 0; r < count; ++r) {
      // Rows that the one before meets under later taps are in the table already.
      for (std::int64_t th = r == 0 ? 0 : height.kernel - row_step_; th < height.kernel; ++th) {
        const std::int64_t position =
            (row + r * height_.spacing) * height.stride + th * height.dilation;
        const std::int64_t h =
            padded_index(position - height.pad_before, height.in, p.padding_mode);
        if (h < 0) continue;
        const std::int64_t from = d * arrays.x_strides.axis[0] + h * arrays.x_strides.axis[1];
        std::int64_t& entry = to[r * row_step_ + th];
        if (task.in_place) {
          entry = from + task.column * p.axes[2].stride;
          continue;
        }
        const std::int64_t index = td * positions(task.row_end - task.row_begin) + position -
                                   task.row_begin * height.stride;
        entry = index * row_length_;
        if (!task.listed[index]) task.to_copy[task.copy_count++] = {from, entry};
        task.listed[index] = 1;
      }
    }
    return end;
  }

  // A tile of every output channel of the group.
  void run_tile(const ConvArrays& arrays, const Task& task, const Tile& tile,
                const Group& group) const {
    const ConvProblem& p = problem();
    DepthwiseArgs<T> args;
    args.rows = task.rows;
    args.row_step = row_step_;
    args.row_pitch = (kDepthwiseRows[tile.size] - 1) * row_step_ + p.axes[1].kernel;
    for (int axis = 0; axis < kSpatialAxes; ++axis) {
      args.kernel[axis] = p.axes[static_cast<std::size_t>(axis)].kernel;
    }
    args.columns = task.columns;
    const std::int64_t first_column = task.column * p.axes[2].stride;
    if (task.in_place) {
      args.shifts = shifts_.data();
      args.first = -first_column;
      args.last = p.axes[2].in - first_column;
    } else {
      args.shifts = copy_shifts_.data();
      args.first = -kEverywhere;
      args.last = kEverywhere;
    }
    const auto offset = [&](const Strides& strides, std::int64_t channel) {
      return task.image * strides.batch + channel * strides.channel + task.depth * strides.axis[0] +
             tile.row * strides.axis[1] + task.column * strides.axis[2];
    };
    const std::optional<Clamp> clamp = clamp_of(p.activation);
    const bool in_registers = clamp && arrays.out_strides.axis[2] == 1 &&
                              (!arrays.residual || arrays.residual_strides.axis[2] == 1);
    const T* all_residual = static_cast<const T*>(arrays.residual);
    const T* bias = static_cast<const T*>(arrays.bias);
    const std::int64_t out_row = height_.spacing * arrays.out_strides.axis[1];
    const std::int64_t residual_row = height_.spacing * arrays.residual_strides.axis[1];
    const int shape = task.in_place ? shape_ : unit_shape();
    const auto kernel = table_.depthwise_pixels[shape][tile.size];
    for (std::int64_t i = 0; i < group.out_channels; ++i) {
      const std::int64_t channel = group.out_begin + i;
      T* out = static_cast<T*>(arrays.out) + offset(arrays.out_strides, channel);
      const T* residual =
          all_residual ? all_residual + offset(arrays.residual_strides, channel) : nullptr;
      args.weights = static_cast<const T*>(arrays.packed_weights) + channel * p.taps();
      args.end = no_epilogue<T>();
      args.end.rows = tile.count;
      if (in_registers) {
        args.end.low = static_cast<T>(clamp->low);
        args.end.high = static_cast<T>(clamp->high);
        if (bias) args.end.bias = bias[channel];
        args.end.residual = residual;
        args.end.residual_row = residual_row;
        args.end.out = out;
        args.end.out_row = out_row;
        kernel(args);
        continue;
      }
      args.end.out = task.sums;
      args.end.out_row = round_up(task.columns, table_.lanes);
      kernel(args);
      EpilogueArgs<T> epilogue{};
      epilogue.rows = tile.count;
      epilogue.columns = task.columns;
      epilogue.acc = task.sums;
      epilogue.acc_row = args.end.out_row;
      epilogue.bias = bias ? bias + channel : nullptr;
      epilogue.residual = residual;
      epilogue.residual_row = residual_row;
      epilogue.residual_column = arrays.residual_strides.axis[2];
      epilogue.out = out;
      epilogue.out_row = out_row;
      epilogue.out_column = arrays.out_strides.axis[2];
      epilogue.activation = p.activation;
      table_.epilogue(epilogue);
    }
  }

  void copy_row(const Task& task, const T* row, std::int64_t step, T* to) const {
    const Axis& width = problem().axes[2];
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
      if (last > first) {
        table_.copy_strided(last - first, row + (start + first * width.stride) * step,
                            last - first > 1 ? width.stride * step : 1, to + first);
      }
      pad(last, count);
      std::fill(to + count, to + phase_length_, T(0));
      to += phase_length_;
    }
  }

  const KernelTable<T>& table_;
  TileAxis height_;
  std::int64_t row_step_;  // of the kernel's table
  int shape_;
  Split rows_, columns_;              // blocks of a plane
  std::vector<std::int64_t> shifts_;  // of the taps of a row, in place
  std::vector<std::int64_t> copy_shifts_;
  std::vector<Phase> phases_;
  std::int64_t phase_length_ = 0;
  std::int64_t row_length_ = 0;
  std::int64_t zeros_ = 0;
  bool in_place_ = false;
  void (*plane_kernel_)(const DepthwisePlaneArgs<T>&) = nullptr;
  bool planes_roll_ = false;
};

}  // namespace

std::unique_ptr<RowsPlan> plan_depthwise_pixels(ConvProblem problem) {
  return plan_of_dtype<DepthwisePixelsPlan, RowsPlan>(std::move(problem));
}

}  // namespace pyconv
