// Direct convolution for groups of few channels, first layers and layers with few outputs. A block
// of output rows, or of a part of long ones, reads a padded copy of its input rows, in which each
// tap is a constant offset:
//
//   padded rows of one channel, split by stride:   [depth tap][row phase][column phase][row][pitch]
//
//        row r, column c of the output           reads, under tap (p, q) of stride 1
//        . . . . . . |. .                        . . . . . . |. .
//        . . x . . . |. .   flat position        . . . . . . |. .
//        . . . . . . |. .   r * pitch + c        . . . x . . |. .   + p * pitch + q
//
// so that all rows of the block are one flat axis, cut into vectors without regard to rows. The
// pitch is the output's width and the few columns that taps reach beyond; sums there are dropped.
// Under stride 1, zeros between two rows are the right padding of one and the left of the other.
// Where vectors from the beginning of each row are hardly more, and fill tiles, every row is an
// axis of its own, and the output is written in whole vectors. Against im2col, an input element is
// copied once and not once per tap, which is worth it where few output channels share the copy.
#include <algorithm>

#include "algorithms/common.hpp"
#include "algorithms/output.hpp"
#include "algorithms/weight_panels.hpp"
#include "core/padding.hpp"
#include "core/parallel.hpp"
#include "core/partition.hpp"
#include "core/workspace.hpp"

namespace pyconv {
namespace {

// A block's padded rows: the near part of an L2 cache.
constexpr std::int64_t kRowsBytes = 192 << 10;

// What it may take to have more rows than taps reach over.
constexpr std::int64_t kTallRowsBytes = 448 << 10;

// Longer rows are cut where those that are wanted would take more. Single output rows, which have
// no neighbours to share a halo with, are cut at less, and for threads.
constexpr std::int64_t kFewestColumns = 1536;
constexpr std::int64_t kFewestColumnsOfSingle = 384;
constexpr std::int64_t kSingleRowBytes = 192 << 10;

// What a block may take if even one output row needs more.
constexpr std::int64_t kMostRowsBytes = 2 << 20;

// Multiply-adds per output channel that a row of outputs may spend on lanes beyond its pitch, as
// measured: vectors that reach over the end of one row and into the next are stored slowly.
constexpr std::int64_t kMostIdle = 64;

// One axis of the padded copy: tap t reads phase t * dilation % stride at t * dilation / stride.
struct PhaseAxis {
  std::int64_t stride;
  std::int64_t dilation;
  std::int64_t kernel;
  std::int64_t reach;  // largest shift of a tap

  explicit PhaseAxis(const Axis& axis)
      : stride(axis.stride),
        dilation(axis.dilation),
        kernel(axis.kernel),
        reach((axis.kernel - 1) * axis.dilation / axis.stride) {}

  std::int64_t phase_of(std::int64_t tap) const { return tap * dilation % stride; }
  std::int64_t shift_of(std::int64_t tap) const { return tap * dilation / stride; }

  // Phases that some tap reads.
  std::vector<std::int64_t> phases() const {
    std::vector<std::int64_t> used;
    for (std::int64_t tap = 0; tap < kernel; ++tap) {
      const std::int64_t phase = phase_of(tap);
      if (!used.empty() && phase == used.front()) break;  // taps repeat the cycle
      used.push_back(phase);
    }
    std::sort(used.begin(), used.end());  // neighbouring columns are copied together
    return used;
  }

  std::int64_t slot_of(std::int64_t tap) const {
    const std::vector<std::int64_t> used = phases();
    return std::find(used.begin(), used.end(), phase_of(tap)) - used.begin();
  }
};

constexpr std::int64_t kLine = 16;  // of float32

// Elements that one channel takes for a block of `rows` output rows.
struct RowLayout {
  PhaseAxis height;
  PhaseAxis width;
  std::int64_t depth_taps;
  std::int64_t row_phases;
  std::int64_t column_phases;
  std::int64_t pitch;
  std::int64_t beyond = 0;  // columns that the last row has more than the pitch

  RowLayout(const ConvProblem& p, std::int64_t columns)
      : height(p.axes[1]),
        width(p.axes[2]),
        depth_taps(p.axes[0].kernel),
        row_phases(static_cast<std::int64_t>(height.phases().size())),
        column_phases(static_cast<std::int64_t>(width.phases().size())),
        pitch(columns + width.reach) {
    const Axis& axis = p.axes[2];
    const std::int64_t rows = p.axes[1].out;
    const bool whole = rows > 1 && columns == axis.out;  // else rows are cut
    if (!whole || axis.stride > 1 || p.padding_mode != PaddingMode::zeros) return;
    if (std::max(rows, pitch) > kMostRowsBytes) return;  // refused
    const std::int64_t shared = std::min(axis.pad_before, pitch - axis.in - axis.pad_before);
    beyond = std::clamp<std::int64_t>(shared, 0, width.reach);
    // Without fewer vectors it only makes them end in other rows, which are stored slowly.
    const std::int64_t spared = (rows - 1) * beyond;
    const std::int64_t positions = (rows - 1) * pitch + columns;
    if (ceil_div(positions, kLine) == ceil_div(positions - spared, kLine)) beyond = 0;
    pitch -= beyond;
  }

  std::int64_t plane(std::int64_t rows) const { return (rows + height.reach) * pitch + beyond; }

  std::int64_t channel(std::int64_t rows) const {
    const std::int64_t elements = depth_taps * row_phases * column_phases * plane(rows);
    return odd_lines(elements, kLine);
  }
};

// More output rows than taps reach over, so that the halo between blocks is small.
std::int64_t wanted_rows(const ConvProblem& p) {
  const std::int64_t all = std::max<std::int64_t>(1, p.axes[1].out);
  return std::min(all, 2 * PhaseAxis(p.axes[1]).reach + 2);
}

// The parts that output rows are cut into.
Split row_parts(const ConvProblem& p) {
  const RowLayout one(p, 1);
  auto column_bytes = static_cast<double>(element_bytes(p.dtype));
  for (const std::int64_t factor : {wanted_rows(p) + one.height.reach, one.row_phases,
                                    one.column_phases, one.depth_taps, most_in_channels(p)}) {
    column_bytes *= static_cast<double>(std::max<std::int64_t>(1, factor));
  }
  const bool single = p.axes[1].out == 1;
  const std::int64_t fewest = single ? kFewestColumnsOfSingle : kFewestColumns;
  const std::int64_t most_bytes = single ? kSingleRowBytes : kTallRowsBytes;
  const auto fitting = static_cast<std::int64_t>(static_cast<double>(most_bytes) / column_bytes);
  const std::int64_t columns = std::max({fewest, 4 * one.width.reach, fitting});
  return Split::by_limit(std::max<std::int64_t>(1, p.axes[2].out), columns);
}

template <class T>
class DirectPlan final : public Plan {
 public:
  explicit DirectPlan(ConvProblem problem_in)
      : Plan(std::move(problem_in)),
        table_(kernels<T>()),
        parts_(row_parts(problem())),
        layout_(problem(), parts_.largest()),
        tiles_(problem(), table_) {
    const std::vector<Group>& groups = problem().groups;
    for (std::size_t g = 0; g < groups.size(); ++g) {
      widest_tile_ = std::max(widest_tile_, table_.direct_vectors[tiles_.of(g).largest() - 1]);
    }
    choose_block();
    phases_ = phases();
    // Parts of rows differ by a column.
    for (const std::int64_t columns : {parts_.largest(), parts_.largest() - 1}) {
      if (columns > 0) most_vectors_ = std::max(most_vectors_, lines(rows_, columns).all());
    }
    for (const Group& group : groups) offsets_.push_back(offsets_for(group.in_channels));
  }

  std::string name() const override { return "direct"; }
  std::string packing() const override { return tiles_.packing(); }

  std::size_t packed_bytes() const override { return static_cast<std::size_t>(tiles_.bytes()); }

  void pack(const std::vector<WeightView>& weights, void* packed) const override {
    tiles_.pack(weights, packed);
  }

  std::size_t workspace_bytes(int threads) const override {
    return static_cast<std::size_t>(threads) * carve(nullptr).bytes;
  }

  std::string tile() const override { return tiles_.tile(); }

  std::string partition(int threads) const override { return partition_of(blocks(threads)).text(); }

  std::string reason() const override {
    return "few output channels share an input channel: copying each row once pays";
  }

  void run(const ConvArrays& arrays, int threads) const override {
    const std::size_t bytes = carve(nullptr).bytes;
    const Workspace workspace(bytes * static_cast<std::size_t>(threads));
    const Blocks cut = blocks(threads);
    const auto partition = partition_of(cut);
    parallel_for(partition.tasks(), threads, [&](std::int64_t task, int thread) {
      const Scratch scratch = carve(workspace.get() + static_cast<std::size_t>(thread) * bytes);
      const auto [image, group, depth, block, part, share] = partition.at(task);
      Place at;
      at.image = image;
      at.group = static_cast<std::size_t>(group);
      at.depth = depth;
      at.row = cut.rows.begin(block);
      at.rows = cut.rows.size(block);
      at.column = cut.columns.begin(part);
      at.columns = cut.columns.size(part);
      at.share = share;
      at.shares = cut.shares;
      run_task(arrays, at, scratch);
    });
  }

 private:
  using Offsets = std::shared_ptr<const std::vector<std::int32_t>>;

  struct Scratch {
    T* rows;
    T* sums;
    PixelSpan* spans;
    std::int32_t* span_ends;
    PadPhase* phases;
    std::size_t bytes;
  };

  // A block of output rows of one group, or of a part of them, and which share of its tiles.
  struct Place {
    std::int64_t image;
    std::size_t group;
    std::int64_t depth;
    std::int64_t row;
    std::int64_t rows;
    std::int64_t column;
    std::int64_t columns;
    std::int64_t share;
    std::int64_t shares;
  };

  struct Blocks {
    Split rows;
    Split columns;
    // Where there are fewer blocks than threads, each thread takes some of the output channels, and
    // all copy the same rows. Of few output channels, single rows have more parts.
    std::int64_t shares;
  };

  // As many channels at a time as leave room for the rows that are wanted; whole blocks of the
  // accumulation order, unless it is all of them.
  void choose_block() {
    const ConvProblem& p = problem();
    const std::int64_t element = sizeof(T);
    const std::int64_t most = most_in_channels(p);
    const std::int64_t all_rows = p.axes[1].out;
    const std::int64_t wanted = wanted_rows(p);
    const auto bytes = [&](std::int64_t rows, std::int64_t channels) {
      return layout_.channel(rows) * channels * element;
    };
    channels_ = most;
    while (channels_ > kChannelBlock && bytes(wanted, channels_) > kRowsBytes) {
      channels_ = (channels_ - 1) / kChannelBlock * kChannelBlock;
    }
    rows_ = 1;
    while (rows_ < all_rows &&
           bytes(rows_ + 1, channels_) <= (rows_ < wanted ? kTallRowsBytes : kRowsBytes)) {
      ++rows_;
    }
    channel_stride_ = layout_.channel(rows_);
    // Sums of several passes wait in between.
    sums_rows_ = channels_ >= most ? table_.tile_rows : most_out_channels(p);
  }

  // Those of a plane that some tap reads.
  std::vector<PadPhase> phases() const {
    std::vector<PadPhase> all;
    for (const std::int64_t row : layout_.height.phases()) {
      for (const std::int64_t phase : layout_.width.phases()) {
        PadPhase each{};
        each.row = row;
        each.column = phase - problem().axes[2].pad_before;
        each.offset = static_cast<std::int64_t>(all.size()) * layout_.plane(rows_);
        all.push_back(each);
      }
    }
    return all;
  }

  // How many columns of padded rows a block takes: of single rows no more than it reads.
  std::int64_t padded_columns(const Place& at) const {
    const bool single = at.rows + layout_.height.reach == 1;
    return single ? at.columns + layout_.width.reach : layout_.pitch;
  }

  // The phases from the first column of a block on.
  void list_phases(const Place& at, PadPhase* to) const {
    const Axis& width = problem().axes[2];
    const std::int64_t count = padded_columns(at);
    for (PadPhase each : phases_) {
      each.column += at.column * width.stride;
      const std::int64_t first = each.column < 0 ? ceil_div(-each.column, width.stride) : 0;
      const std::int64_t last =
          each.column < width.in ? ceil_div(width.in - each.column, width.stride) : 0;
      each.first = std::min(first, count);
      each.last = std::clamp(last, each.first, count);
      *to++ = each;
    }
  }

  // Offsets of k in accumulation order, shared by groups of equally many channels.
  Offsets offsets_for(std::int64_t channels) const {
    const ConvProblem& p = problem();
    for (std::size_t g = 0; g < offsets_.size(); ++g) {
      if (p.groups[g].in_channels == channels) return offsets_[g];
    }
    auto offsets = std::make_shared<std::vector<std::int32_t>>();
    const std::int64_t plane = layout_.plane(rows_);
    for (std::int64_t block = 0; block < channels; block += kChannelBlock) {
      for (std::int64_t d = 0; d < p.axes[0].kernel; ++d) {
        for (std::int64_t h = 0; h < p.axes[1].kernel; ++h) {
          for (std::int64_t w = 0; w < p.axes[2].kernel; ++w) {
            const std::int64_t slot =
                (d * layout_.row_phases + layout_.height.slot_of(h)) * layout_.column_phases +
                layout_.width.slot_of(w);
            const std::int64_t offset = slot * plane + layout_.height.shift_of(h) * layout_.pitch +
                                        layout_.width.shift_of(w);
            for (std::int64_t c = block; c < std::min(block + kChannelBlock, channels); ++c) {
              offsets->push_back(
                  static_cast<std::int32_t>(c % channels_ * channel_stride_ + offset));
            }
          }
        }
      }
    }
    return offsets;
  }

  Partition<6> partition_of(const Blocks& cut) const {
    const ConvProblem& p = problem();
    return Partition({{"images", p.batch},
                      {"groups", static_cast<std::int64_t>(p.groups.size())},
                      {"planes", p.axes[0].out},
                      {"blocks of rows", cut.rows.count()},
                      {"parts of rows", cut.columns.count()},
                      {"shares of the output channels", cut.shares}});
  }

  Blocks blocks(int threads) const {
    const ConvProblem& p = problem();
    const std::int64_t planes =
        p.batch * static_cast<std::int64_t>(p.groups.size()) * p.axes[0].out;
    const std::int64_t rows = p.axes[1].out;
    const std::int64_t most_shares = tiles_.most();
    Split columns = parts_;
    if (rows == 1 && most_shares < threads) {
      const std::int64_t width = p.axes[2].out;
      const std::int64_t most = ceil_div(width, kFewestColumnsOfSingle);
      columns = Split::by_count(width, even_blocks(columns.count(), planes, most, threads));
    }
    const std::int64_t others = planes * columns.count();
    const Split row_blocks =
        Split::by_count(rows, even_blocks(ceil_div(rows, rows_), others, rows, threads));
    const std::int64_t all = others * row_blocks.count();
    return {row_blocks, columns, std::clamp<std::int64_t>(threads / all, 1, most_shares)};
  }

  // The axes that a block of rows is cut into, in vectors; the sums of one follow those of another.
  struct Lines {
    std::int64_t count;
    std::int64_t vectors;
    std::int64_t pitch;  // from the beginning of one output row to that of the next in the sums
    bool are_rows;

    std::int64_t all() const { return count * vectors; }
  };

  Lines lines(std::int64_t rows, std::int64_t width) const {
    const ConvProblem& p = problem();
    const std::int64_t row_vectors = ceil_div(width, table_.lanes);
    const std::int64_t idle =
        (row_vectors * table_.lanes - layout_.pitch) * most_in_channels(p) * p.taps();
    const bool gaps = layout_.pitch > width;
    if (rows == 1 || (gaps && row_vectors >= widest_tile_ && idle <= kMostIdle)) {
      return {rows, row_vectors, row_vectors * table_.lanes, true};
    }
    return {1, ceil_div((rows - 1) * layout_.pitch + width, table_.lanes), layout_.pitch, false};
  }

  // Of the tiles of a group.
  Split shares_of(const Place& at) const {
    return Split::by_count(tiles_.of(at.group).count(), at.shares);
  }

  Scratch carve(void* base) const {
    Carver carver(base);
    Scratch scratch;
    // The last vector of the last channel reads past its rows.
    scratch.rows = carver.take<T>(channels_ * channel_stride_ + table_.lanes);
    scratch.sums = carver.take<T>(sums_rows_ * most_vectors_ * table_.lanes);
    scratch.spans = carver.take<PixelSpan>(most_vectors_ + rows_);
    scratch.span_ends = carver.take<std::int32_t>(most_vectors_);
    scratch.phases = carver.take<PadPhase>(static_cast<std::int64_t>(phases_.size()));
    scratch.bytes = carver.used();
    return scratch;
  }

  void run_task(const ConvArrays& arrays, const Place& at, const Scratch& scratch) const {
    const Group& group = problem().groups[at.group];
    if (shares_of(at).size(at.share) == 0) return;
    const std::optional<RowsEnd<T>> end = rows_end(arrays, at, scratch);
    std::fill_n(scratch.rows + channels_ * channel_stride_, table_.lanes, T(0));
    list_phases(at, scratch.phases);
    std::int64_t channel = 0;
    do {
      const std::int64_t channel_end = std::min(channel + channels_, group.in_channels);
      copy_rows(arrays, at, channel, channel_end, scratch);
      convolve_rows(arrays, at, channel, channel_end, end, scratch);
      channel = channel_end;
    } while (channel < group.in_channels);
  }

  void copy_rows(const ConvArrays& arrays, const Place& at, std::int64_t channel,
                 std::int64_t channel_end, const Scratch& scratch) const {
    const ConvProblem& p = problem();
    const Strides& strides = arrays.x_strides;
    if (strides.channel == 1 && strides.axis[2] != 1 && p.padding_mode == PaddingMode::zeros) {
      return turn_rows(arrays, at, channel, channel_end, scratch);
    }
    PadPlaneArgs<T> args{};
    args.row_in = p.axes[1].in;
    args.row_stride = strides.axis[1];
    args.row_step = p.axes[1].stride;
    args.rows = at.rows + layout_.height.reach;
    args.column_in = p.axes[2].in;
    args.column_stride = strides.axis[2];
    args.column_step = p.axes[2].stride;
    args.count = padded_columns(at);
    args.padding_mode = p.padding_mode;
    args.row_start = at.row * p.axes[1].stride - p.axes[1].pad_before;
    args.phases = scratch.phases;
    args.phase_count = static_cast<std::int64_t>(phases_.size());
    for (std::int64_t c = channel; c < channel_end; ++c) {
      const T* const from = static_cast<const T*>(arrays.x) + at.image * strides.batch +
                            (p.groups[at.group].in_begin + c) * strides.channel;
      args.to = scratch.rows + (c - channel) * channel_stride_;
      for (std::int64_t tap = 0; tap < layout_.depth_taps; ++tap) {
        const Axis& depth = p.axes[0];
        const std::int64_t d = input_index(depth, at.depth, tap, p.padding_mode);
        args.plane = d < 0 ? nullptr : from + d * strides.axis[0];
        table_.pad_plane(args);
        end_planes(args.to, args.rows);
        args.to += args.phase_count * layout_.plane(rows_);
      }
    }
  }

  // The columns of the last of `rows` padded rows that no other row shares, of every phase.
  void end_planes(T* planes, std::int64_t rows) const {
    for (const PadPhase& phase : phases_) {
      std::fill_n(planes + phase.offset + rows * layout_.pitch, layout_.beyond, T(0));
    }
  }

  // copy_rows() where channels are next to each other: the rows of all of them at a time.
  void turn_rows(const ConvArrays& arrays, const Place& at, std::int64_t channel,
                 std::int64_t channel_end, const Scratch& scratch) const {
    const ConvProblem& p = problem();
    const auto& [depth, height, width] = p.axes;
    const Strides& strides = arrays.x_strides;
    const std::int64_t channels = channel_end - channel;
    const T* const from = static_cast<const T*>(arrays.x) + at.image * strides.batch +
                          p.groups[at.group].in_begin + channel;
    TransposeArgs<T> args{};
    args.row_stride = width.stride * strides.axis[2];
    args.count = args.run = channels;
    args.pitch = channel_stride_;
    T* to = scratch.rows;
    const std::int64_t count = padded_columns(at);
    const auto zero = [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t c = 0; begin < end && c < channels; ++c) {
        std::fill(to + c * channel_stride_ + begin, to + c * channel_stride_ + end, T(0));
      }
    };
    for (std::int64_t tap = 0; tap < layout_.depth_taps; ++tap) {
      const std::int64_t d = input_index(depth, at.depth, tap, p.padding_mode);
      for (std::size_t i = 0; i < phases_.size(); ++i) {
        const PadPhase& phase = scratch.phases[i];
        T* const plane = to;
        for (std::int64_t r = 0; r < at.rows + layout_.height.reach; ++r, to += layout_.pitch) {
          const std::int64_t row =
              padded_index((at.row + r) * height.stride - height.pad_before + phase.row, height.in,
                           p.padding_mode);
          if (d < 0 || row < 0 || phase.first == phase.last) {
            zero(0, count);
            continue;
          }
          zero(0, phase.first);
          args.rows = args.padded_rows = phase.last - phase.first;
          args.from = from + d * strides.axis[0] + row * strides.axis[1] +
                      (phase.column + phase.first * width.stride) * strides.axis[2];
          args.to = to + phase.first;
          table_.transpose(args);
          zero(phase.last, count);
        }
        zero(0, layout_.beyond);
        to = plane + layout_.plane(rows_);
      }
    }
  }

  // Adds input channels [channel, channel_end) of the group to the sums of a block, and sends them
  // on after the last.
  void convolve_rows(const ConvArrays& arrays, const Place& at, std::int64_t channel,
                     std::int64_t channel_end, const std::optional<RowsEnd<T>>& end,
                     const Scratch& scratch) const {
    const Group& group = problem().groups[at.group];
    const std::int64_t width = at.columns;
    const Split& tiles = tiles_.of(at.group);
    const Lines cut = lines(at.rows, width);
    const std::int64_t sums_stride = cut.all() * table_.lanes;
    const bool one_pass = channels_ >= group.in_channels;
    const bool last = channel_end == group.in_channels;
    const std::int64_t k = channel * problem().taps();
    const Split shares = shares_of(at);
    const bool ends = end && last;
    TileEnd<T> row_end{};
    RowsEnd<T> rows_end{};
    DirectTileArgs<T> args{};
    args.depth = (channel_end - channel) * problem().taps();
    args.offsets = offsets_[at.group]->data() + k;
    args.c_stride = sums_stride;
    args.accumulate = k > 0;
    args.end = ends && cut.are_rows ? &row_end : nullptr;
    args.rows_end = ends && !cut.are_rows ? &rows_end : nullptr;
    for (std::int64_t tile = shares.begin(at.share); tile < shares.end(at.share); ++tile) {
      const std::int64_t rows = tiles.size(tile);
      const std::int64_t out = tiles.begin(tile);
      T* const sums = scratch.sums + (one_pass ? 0 : out * sums_stride);
      args.a = tiles_.find(arrays.packed_weights, at.group, tile) + k * rows;
      const Split columns = Split::by_limit(cut.vectors, table_.direct_vectors[rows - 1]);
      if (ends) rows_end = end_of(*end, out);
      row_end.bias = rows_end.bias;
      row_end.residual_stride = rows_end.residual_channel;
      row_end.out_stride = rows_end.out_channel;
      row_end.low = rows_end.low;
      row_end.high = rows_end.high;
      for (std::int64_t line = 0; line < cut.count; ++line) {
        const T* const line_rows = scratch.rows + line * layout_.pitch;
        for (std::int64_t part = 0; part < columns.count(); part += args.tiles) {
          const std::int64_t vector = line * cut.vectors + columns.begin(part);
          const std::int64_t tile_columns = columns.size(part) * table_.lanes;
          std::int64_t column = columns.begin(part) * table_.lanes;
          args.tiles = columns.alike(part);
          const auto beyond = [&] { return column + args.tiles * tile_columns - width; };
          if (end && cut.are_rows && beyond() > 0 && width >= tile_columns) {
            // The last tile ends with the row, and computes some columns again: whole vectors are
            // stored faster. The same in every pass over channels, between which sums wait.
            if (args.tiles > 1) {
              --args.tiles;
            } else {
              column = width - tile_columns;
            }
          }
          // In place: to copy a struct that was just written is to wait for the outputs before it.
          if (args.end) {
            row_end.out = rows_end.out + line * rows_end.out_row + column;
            if (rows_end.residual) {
              row_end.residual = rows_end.residual + line * rows_end.residual_row + column;
            }
            row_end.tail = table_.lanes - std::max<std::int64_t>(0, beyond());
          } else if (ends) {
            rows_end.first = vector > 0 ? scratch.span_ends[vector - 1] : 0;
            rows_end.ends = scratch.span_ends + vector;
          }
          args.b = line_rows + column;
          args.c = sums + vector * table_.lanes;
          table_.direct[rows - 1][columns.size(part) - 1](args);
        }
      }
      if (last && !end) {
        const std::int64_t pixel = problem().out_pixel(at.depth, at.row, at.column);
        const SumsBlock<T> row_sums{sums,     sums_stride,           false,
                                    at.image, group.out_begin + out, rows,
                                    pixel,    pixel + at.columns};
        send_rows(problem(), table_, arrays, row_sums, at.rows, cut.pitch, 1);
      }
    }
  }

  // How sums reach the output from registers, for the group's first channel: where the output's
  // columns are contiguous and the activation is a clamp. Lists the outputs of every vector, unless
  // those of a line are a row.
  std::optional<RowsEnd<T>> rows_end(const ConvArrays& arrays, const Place& at,
                                     const Scratch& scratch) const {
    const ConvProblem& p = problem();
    const std::optional<Clamp> clamp = clamp_of(p.activation);
    const bool columns_contiguous =
        p.axes[2].out == 1 || (arrays.out_strides.axis[2] == 1 &&
                               (!arrays.residual || arrays.residual_strides.axis[2] == 1));
    if (!clamp || !columns_contiguous) return std::nullopt;

    const std::int64_t width = at.columns;
    const Lines cut = lines(at.rows, width);
    std::int32_t count = 0;
    for (std::int64_t v = 0; !cut.are_rows && v < cut.vectors; ++v) {
      const std::int64_t begin = v * table_.lanes;
      const std::int64_t end = begin + table_.lanes;
      for (std::int64_t row = begin / layout_.pitch; row < at.rows && row * layout_.pitch < end;
           ++row) {
        const std::int64_t first = std::max(begin, row * layout_.pitch);
        const std::int64_t last = std::min(end, row * layout_.pitch + width);
        if (first >= last) continue;
        scratch.spans[count++] = {begin - row * layout_.pitch, static_cast<std::int32_t>(row),
                                  static_cast<std::int16_t>(first - begin),
                                  static_cast<std::int16_t>(last - begin)};
      }
      scratch.span_ends[v] = count;
    }

    const std::int64_t channel = p.groups[at.group].out_begin;
    RowsEnd<T> end{};
    end.spans = scratch.spans;
    end.ends = scratch.span_ends;
    end.bias = arrays.bias ? static_cast<const T*>(arrays.bias) + channel : nullptr;
    if (arrays.residual) {
      end.residual = static_cast<const T*>(arrays.residual) +
                     offset(arrays.residual_strides, at, channel, at.row);
      end.residual_channel = arrays.residual_strides.channel;
      end.residual_row = arrays.residual_strides.axis[1];
    }
    end.out = static_cast<T*>(arrays.out) + offset(arrays.out_strides, at, channel, at.row);
    end.out_channel = arrays.out_strides.channel;
    end.out_row = arrays.out_strides.axis[1];
    end.low = static_cast<T>(clamp->low);
    end.high = static_cast<T>(clamp->high);
    return end;
  }

  // The end of tiles of channels from `out` on, from that of the block.
  static RowsEnd<T> end_of(const RowsEnd<T>& block, std::int64_t out) {
    RowsEnd<T> end = block;
    if (end.bias) end.bias += out;
    if (end.residual) end.residual += out * end.residual_channel;
    end.out += out * end.out_channel;
    return end;
  }

  static std::int64_t offset(const Strides& strides, const Place& at, std::int64_t channel,
                             std::int64_t row) {
    return at.image * strides.batch + channel * strides.channel + at.depth * strides.axis[0] +
           row * strides.axis[1] + at.column * strides.axis[2];
  }

  const KernelTable<T>& table_;
  Split parts_;  // of rows
  RowLayout layout_;
  RowTiles<T> tiles_;
  std::int64_t widest_tile_ = 1;  // vectors
  std::int64_t rows_ = 1;         // output rows of a block
  std::int64_t channels_ = 1;     // input channels of a pass over a block
  std::int64_t channel_stride_ = 0;
  std::int64_t sums_rows_ = 0;
  std::int64_t most_vectors_ = 0;  // of a block
  std::vector<PadPhase> phases_;
  std::vector<Offsets> offsets_;  // per group
};

// Beyond these bounds a copy of padded rows is large for what it saves; they also keep offsets
// within 32 bits.
bool rows_fit(const ConvProblem& p) {
  for (const Axis& axis : p.axes) {
    const bool cut = &axis == &p.axes[2];
    if (axis.kernel > kMostTaps || (!cut && axis.out > kMostRowsBytes)) return false;
    if ((axis.kernel - 1) * axis.dilation / axis.stride > kMostRowsBytes) return false;
  }
  if (p.taps() > kMostTaps || most_in_channels(p) > kMostRowsBytes) return false;
  const RowLayout layout(p, row_parts(p).largest());
  // At most 2^10 phases, 2^10 taps of depth, 2^22 rows ... stay far below 2^63, one factor at a
  // time.
  const std::int64_t row_elements = layout.pitch * (1 + layout.height.reach);
  if (row_elements > kMostRowsBytes) return false;
  const std::int64_t element = element_bytes(p.dtype);
  return layout.channel(1) * element <=
         kMostRowsBytes / std::max<std::int64_t>(1, most_in_channels(p));
}

}  // namespace

std::string direct_refuses(const ConvProblem& problem) {
  if (rows_fit(problem)) return {};
  return "the padded rows under a part of an output row take more than 2 MiB";
}

LaneCosts::LaneCosts(const ConvProblem& p)
    : channels_last_(p.channels_last),
      taps_(static_cast<double>(p.taps())),
      width_(static_cast<double>(p.axes[2].out)),
      inside_(taps_inside(p)) {
  const RowLayout layout(p, p.axes[2].out);
  pitch_ = static_cast<double>(layout.pitch) / width_;
  // All parts of a row under stride 2 or 4 are told apart in registers, where a few short rows
  // share what they cost; those of others are not.
  const std::int64_t stride = p.axes[2].stride;
  const bool apart = stride <= 2 || (stride == 4 && layout.column_phases == 4);
  const bool short_rows = layout.pitch <= kFewPaddedColumns;
  copy_ = p.channels_last ? 16 * (1 + 20 / width_)
          : !apart        ? 39 * (1 + 10 / width_)
          : short_rows    ? 17 * (1 + 6 / width_)
                          : 20 * (1 + 10 / width_);
  const auto phases =
      static_cast<double>(layout.depth_taps * layout.row_phases * layout.column_phases);
  copy_ *= phases;
  channel_bytes_ = static_cast<double>(element_bytes(p.dtype)) * phases *
                   static_cast<double>(wanted_rows(p) + layout.height.reach) *
                   static_cast<double>(row_parts(p).largest() + layout.width.reach);
  for (const Axis* axis : {&p.axes[1], &p.axes[2]}) {
    read_ *= static_cast<double>(std::min(axis->stride, axis->kernel));
  }
}

double LaneCosts::pixels(std::int64_t in_channels, std::int64_t out_channels) const {
  const double ends = (channels_last_ ? 24 : 3) / static_cast<double>(in_channels);
  // Blocks that take many passes wait for their input.
  const bool far =
      !channels_last_ && static_cast<double>(in_channels) * channel_bytes_ > 2 * kTallRowsBytes;
  const double copy = (far ? 2 : 1) * copy_;
  return pitch_ * (static_cast<double>(out_channels) * (1.09 + ends / taps_) + copy / taps_);
}

double LaneCosts::channels(std::int64_t in_channels, std::int64_t out_channels) const {
  const auto whole = [](std::int64_t channels) {
    return static_cast<double>(round_up(channels, kChannelBlock));
  };
  const auto ins = static_cast<double>(in_channels);
  const double outs = whole(out_channels);
  const double out = channels_last_ ? 4.5 : 18;
  const double in = channels_last_ ? 4.5 : 11;
  return (outs + 4) * inside_ +
         (out * outs / ins + in * whole(in_channels) / ins * (1 + read_)) / taps_;
}

bool direct_pays(const ConvProblem& p) {
  if (p.taps() == 1 && !p.channels_last) return false;  // no tap shares the copy
  const std::int64_t ins = most_in_channels(p);
  const std::int64_t outs = most_out_channels(p);
  // Of many channels, single rows are better packed for im2col than copied in parts.
  if (p.axes[1].out == 1 && outs >= 32 && ins >= 16 && row_parts(p).count() > 1) return false;
  if (p.channels_last && p.padding_mode != PaddingMode::zeros) return false;
  const LaneCosts costs(p);
  return costs.pixels(ins, outs) < costs.channels(ins, outs);
}

std::unique_ptr<Plan> plan_direct(ConvProblem problem) {
  return plan_of_dtype<DirectPlan>(std::move(problem));
}

}  // namespace pyconv
