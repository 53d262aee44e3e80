// Direct convolution whose lanes are output channels. A block of output pixels reads a copy of the
// input pixels under it, in blocks of channels and split by the column stride:
//
//   [block of 16 channels][depth tap][input row][column phase][column][16 channels]
//
// in which every tap is a constant offset, so that pixels are broadcast from where they stand:
//
//        weights: [panel of output channels][k][width]
//                     +------------------+
//                   k |        b         |
//                     +------------------+
//     +-----------+   +------------------+
//     | pixels: a |   |       sums       |  a tile of neighbouring pixels of one output row
//     +-----------+   +------------------+
//           k
//
// The copy takes each input element once, not once per tap as im2col does, and turns channels-first
// images channels-last in registers on the way. Taps that meet zero padding under all pixels of an
// output row or of a band of columns, or under the first or last pixel of a row, are left out.
//
// Up to 16 channels stand without gaps, [depth tap][input row][column][channels]: all width taps of
// a pixel are then one row of consecutive k, which takes zero padding in and needs no phases.
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

// A block's copy of its input: a third of a 1 MiB L2 cache, which weights stream through. What it
// may take if even one row of a few pixels needs more.
constexpr std::int64_t kCopyBytes = 352 << 10;
constexpr std::int64_t kMostCopyBytes = 2 << 20;
constexpr std::int64_t kFewestColumns = 8;

// Pixels of a block, at most: their sums under one panel stay in L1 and the near part of L2.
constexpr std::int64_t kMostPixels = 1024;

// Pixels of a block that meet a tap, at least, where weights come from beyond the L2 cache: 2048 to
// 256 channels on 32 x 32 under a dilation of 12 to 18 take 4 to 8 percent longer with 128, layers
// without dilation as long.
constexpr std::int64_t kFewestPixels = 512;

// Sums of all output channels, which several passes over the input channels add to, and the fewest
// channels of a pass, in blocks. Of few outputs these sums are small.
constexpr std::int64_t kMostSumsBytes = 1 << 20;
constexpr std::int64_t kFewestPassBlocks = 8;
constexpr std::int64_t kFewOutputs = 64;

// Channels-last channels that are copied at once, if these are whole blocks: those of a group may
// be a small piece of each pixel.
constexpr std::int64_t kChannelsTogether = 128;

// Channels-last outputs of a block: each panel writes a piece of every pixel, and pieces of one
// pixel should meet in the L2 cache.
constexpr std::int64_t kOutputBytes = 256 << 10;

// k that a tile takes at once, while its weights come from the L2 cache: a stop costs it as much as
// 4 of them.
constexpr std::int64_t kTileDepth = 512;

constexpr std::int64_t kEverywhere = std::int64_t(1) << 60;  // further than any column

// Narrow pixels meet zero padding under every tap: not worth it where that is much.
constexpr double kNarrowMet = 0.75;

// Columns of a row that tiles of different width may cover unlike well.
constexpr std::int64_t kMostUnevenColumns = 16;

// Columns whose taps are looked at one by one: narrower bands would make tiles of few pixels.
constexpr std::int64_t kNarrowestBand = 4;

// Output columns under which the same width taps meet the input.
struct Band {
  std::int64_t begin;
  std::int64_t end;
  std::vector<std::int64_t> taps;
};

// Whether all taps of an axis read the same of its phases: the others need no copy.
bool one_phase(const Axis& axis) { return axis.kernel == 1 || axis.dilation % axis.stride == 0; }

// Only one, if all taps are to be met everywhere.
std::vector<Band> column_bands(const Axis& axis, bool met) {
  std::vector<std::int64_t> all(static_cast<std::size_t>(axis.kernel));
  for (std::int64_t tap = 0; tap < axis.kernel; ++tap) all[static_cast<std::size_t>(tap)] = tap;
  if (met) return {{0, axis.out, all}};
  const std::vector<TapRange> ranges = tap_ranges(axis);
  std::vector<std::int64_t> ends = {axis.out};
  for (const TapRange& range : ranges) {
    ends.push_back(range.first);
    ends.push_back(range.last);
  }
  std::sort(ends.begin(), ends.end());
  ends.erase(std::unique(ends.begin(), ends.end()), ends.end());
  std::vector<Band> bands;
  std::int64_t begin = 0;
  for (const std::int64_t end : ends) {
    const bool narrow = end - begin < kNarrowestBand || axis.out - end < kNarrowestBand;
    if (end <= begin || (narrow && end < axis.out)) continue;  // joins the next
    Band band{begin, end, {}};
    for (const std::int64_t tap : all) {
      const TapRange& range = ranges[static_cast<std::size_t>(tap)];
      if (range.first < end && begin < range.last) band.taps.push_back(tap);
    }
    bands.push_back(band);
    begin = end;
  }
  return bands;
}

bool inputs_are_alike(const ConvProblem& p) {
  const std::int64_t in_channels = most_in_channels(p);
  return std::all_of(p.groups.begin(), p.groups.end(),
                     [&](const Group& group) { return group.in_channels == in_channels; });
}

// Whether the same panels stand for every group.
bool groups_are_alike(const ConvProblem& p) {
  const std::int64_t out_channels = most_out_channels(p);
  return inputs_are_alike(p) &&
         std::all_of(p.groups.begin(), p.groups.end(),
                     [&](const Group& group) { return group.out_channels == out_channels; });
}

// Whether pixels stand without gaps.
bool has_narrow_pixels(const ConvProblem& p) {
  return inputs_are_alike(p) && most_in_channels(p) <= kChannelBlock &&
         met_share(p.axes[2], p.padding_mode) > kNarrowMet;
}

// Vectors of output channels to a panel. Where a row has few columns, the usual tiles may leave
// fewer sums than keep the multipliers busy; on 16 registers, tiles of 3 columns x 4 vectors may do
// better.
template <class T>
std::int64_t panel_vectors(const ConvProblem& p, const KernelTable<T>& table) {
  constexpr std::int64_t kUsualVectors = ChannelPanels<T>::kUsualVectors;
  const Axis& width = p.axes[2];
  const bool choice = table.channels_vectors > kUsualVectors;
  if (!choice || width.out > kMostUnevenColumns) return kUsualVectors;
  const bool skips = p.padding_mode == PaddingMode::zeros && !has_narrow_pixels(p);
  const std::vector<TapRange> taps = tap_ranges(width);
  // Of one k in a row under a panel: two sums per cycle, each of which waits four for its last.
  const auto row_cycles = [&](std::int64_t vectors) {
    const Split tiles = Split::by_limit(width.out, table.channels_rows[vectors - 1]);
    double cycles = 0;
    for (const TapRange& tap : taps) {
      for (std::int64_t i = 0; i < tiles.count(); ++i) {
        const bool padded = skips && ((i == 0 && tap.first > 0) ||
                                      (i == tiles.count() - 1 && tap.last < width.out));
        const std::int64_t columns = tiles.size(i) - (padded ? 1 : 0);
        if (columns > 0) cycles += std::max(4.0, static_cast<double>(columns * vectors) / 2);
      }
    }
    return cycles;
  };
  const auto cycles = [&](std::int64_t limit) {
    const Split panels = Split::by_limit_even(ceil_div(most_out_channels(p), table.lanes), limit);
    double sum = 0;
    for (std::int64_t panel = 0; panel < panels.count(); ++panel) {
      sum += row_cycles(panels.size(panel));
    }
    return sum;
  };
  // More weights per sum come from the L2 cache.
  const bool wide = 1.04 * cycles(table.channels_vectors) < cycles(kUsualVectors);
  return wide ? table.channels_vectors : kUsualVectors;
}

template <class T>
class DirectChannelsPlan final : public Plan {
 public:
  explicit DirectChannelsPlan(ConvProblem problem_in)
      : Plan(std::move(problem_in)),
        table_(kernels<T>()),
        panels_(problem(), table_, panel_vectors(problem(), table_)),
        axes_(problem().axes) {
    const ConvProblem& p = problem();
    const std::int64_t in_channels = most_in_channels(p);
    widest_ = round_up(most_out_channels(p), table_.lanes);
    narrow_ = has_narrow_pixels(p);
    if (narrow_) pitch_ = in_channels;
    group_blocks_ = ceil_div(in_channels, kChannelBlock);
    const Axis& width = axes_[2];
    if (one_phase(width)) {
      column_step_ = width.stride;
    } else if (narrow_) {
      pixel_step_ = width.stride;
    } else {
      phases_ = width.stride;
    }
    reach_ = (width.kernel - 1) * width.dilation / (column_step_ * phases_);
    if (width.dilation == 1) row_taps_ = width.kernel;
    list_width_taps();
    bands_ = column_bands(width, narrow_ || p.padding_mode != PaddingMode::zeros);
    find_margins();
    if (groups_are_alike(p) && p.channels_last && in_channels % kChannelBlock == 0) {
      groups_together_ = std::clamp<std::int64_t>(kChannelsTogether / in_channels, 1,
                                                  static_cast<std::int64_t>(p.groups.size()));
    }
    const auto fit = [this] {
      pass_blocks_ = groups_together_ * group_blocks_;
      return copy_elements(1, kFewestColumns) * std::int64_t(sizeof(T)) <= kCopyBytes;
    };
    while (!fit() && groups_together_ > 1) --groups_together_;
    choose_block();
  }

  std::string name() const override { return "direct_channels"; }
  std::string packing() const override { return panels_.packing(); }

  std::size_t packed_bytes() const override { return static_cast<std::size_t>(panels_.bytes()); }

  void pack(const std::vector<WeightView>& weights, void* packed) const override {
    panels_.pack(weights, packed);
  }

  std::size_t workspace_bytes(int threads) const override {
    return static_cast<std::size_t>(threads) * carve(nullptr).bytes;
  }

  std::string tile() const override { return panels_.tile(); }

  std::string partition(int threads) const override {
    return partition_of(blocking(threads)).text();
  }

  std::string reason() const override {
    return "lanes are output channels, so that no lane idles at the end of a row";
  }

  void run(const ConvArrays& arrays, int threads) const override {
    const ConvProblem& p = problem();
    const std::size_t bytes = carve(nullptr).bytes;
    const Workspace workspace(bytes * static_cast<std::size_t>(threads));
    const Blocking blocks = blocking(threads);
    const bool ends = channels_end_in_output(p, arrays);
    const auto partition = partition_of(blocks);
    parallel_for(partition.tasks(), threads, [&](std::int64_t task, int thread) {
      const auto [image, groups, depth, row, column, part] = partition.at(task);
      Place at;
      at.image = image;
      at.group = static_cast<std::size_t>(groups * blocks.groups);
      at.group_end = std::min(at.group + static_cast<std::size_t>(blocks.groups), p.groups.size());
      at.depth = depth;
      at.row = blocks.rows.begin(row);
      at.rows = blocks.rows.size(row);
      at.column = blocks.columns.begin(column);
      at.columns = blocks.columns.size(column);
      const Split& panels = panels_.of(at.group);
      const Split parts = Split::by_count(panels.count(), blocks.panel_parts);
      at.panel = parts.begin(part);
      at.panel_end = parts.end(part);
      const Scratch scratch = carve(workspace.get() + static_cast<std::size_t>(thread) * bytes);
      run_task(arrays, at, ends, scratch);
    });
  }

 private:
  // How the work is cut, which depends on the number of threads; the results do not.
  struct Blocking {
    std::int64_t groups = 1;  // that are copied together
    Split rows;
    Split columns;
    std::int64_t panel_parts = 1;
  };

  bool has_far_weights() const { return panels_.bytes() > kL2WeightBytes; }

  Partition<6> partition_of(const Blocking& blocks) const {
    return Partition(
        {{"images", problem().batch},
         {blocks.groups > 1 ? "blocks of groups" : "groups", group_parts(blocks.groups)},
         {"planes", axes_[0].out},
         {"blocks of rows", blocks.rows.count()},
         {"blocks of columns", blocks.columns.count()},
         {"blocks of output channels", blocks.panel_parts}});
  }

  struct Scratch {
    T* copy;
    T* sums;
    TapUnit* units;  // or, of narrow pixels,
    WindowRow* window_rows;
    std::int32_t* unit_ends;  // per output row and band
    std::int32_t* slots;      // of input rows in the copy, or -1
    std::int64_t* sources;    // the input rows, per slot
    std::size_t bytes;
  };

  // A block of output pixels under some panels of one group, or of each of a few that are alike.
  struct Place {
    std::int64_t image;
    std::size_t group;
    std::size_t group_end;
    std::int64_t depth;
    std::int64_t row;
    std::int64_t rows;
    std::int64_t column;
    std::int64_t columns;
    std::int64_t panel;
    std::int64_t panel_end;
  };

  // Where a pixel's row finds a width tap, and at which edge its pixel meets zero padding.
  struct WidthTap {
    std::int64_t phase;
    std::int64_t column;
    std::int16_t edge;
  };

  // Where the copy of a block has what.
  struct Layout {
    std::int64_t phase_pitch;
    std::int64_t row_pitch;
    std::int64_t depth_pitch;
    std::int64_t block_pitch;
  };

  Layout layout(std::int64_t rows, std::int64_t columns) const {
    Layout l;
    l.phase_pitch =
        std::min(copied_columns(columns), margin_before_ + axes_[2].in + margin_after_) * pitch_;
    l.row_pitch = phases_ * l.phase_pitch;
    if (shares_a_set<T>(l.row_pitch)) l.row_pitch += kChannelBlock;
    l.depth_pitch = input_rows(rows) * l.row_pitch;
    l.block_pitch = axes_[0].kernel * l.depth_pitch;
    return l;
  }

  // Of one phase, under so many output columns.
  std::int64_t copied_columns(std::int64_t columns) const {
    return (columns - 1) * pixel_step_ + reach_ + 1;
  }

  // The most input rows that so many output rows read; rows that padding repeats count anew.
  std::int64_t input_rows(std::int64_t rows) const {
    const std::int64_t read = std::min(rows * axes_[1].kernel, row_span(rows));
    if (problem().padding_mode != PaddingMode::zeros) return read;
    return std::min(read, std::max<std::int64_t>(1, axes_[1].in));
  }

  // From the first to the last of them.
  std::int64_t row_span(std::int64_t rows) const { return axes_[1].span(rows); }

  std::int64_t copy_elements(std::int64_t rows, std::int64_t columns) const {
    return pass_blocks_ * layout(rows, columns).block_pitch;
  }

  // How far into the padding on both sides the taps of bands look: a wide dilation leaves out most
  // of it.
  void find_margins() {
    const Axis& width = axes_[2];
    margin_before_ = margin_after_ = kEverywhere;
    if (width.stride > 1 || problem().padding_mode != PaddingMode::zeros) return;
    margin_before_ = margin_after_ = 0;
    for (const Band& band : bands_) {
      for (const std::int64_t tap : band.taps) {
        const std::int64_t shift = tap * width.dilation - width.pad_before;
        margin_before_ = std::max(margin_before_, -(band.begin + shift));
        margin_after_ = std::max(margin_after_, band.end + shift - width.in);
      }
    }
  }

  // The first column of a block's copy, relative to what its first pixel's first tap meets.
  std::int64_t copy_begin(const Place& at) const {
    const std::int64_t start = at.column * axes_[2].stride - axes_[2].pad_before;
    return std::max<std::int64_t>(0, -margin_before_ - start);
  }

  void list_width_taps() {
    const Axis& width = axes_[2];
    for (const TapRange& range : tap_ranges(width)) {
      const std::int64_t shift = range.shift + width.pad_before;
      WidthTap tap{shift % phases_, shift / (column_step_ * phases_), kNoEdge};
      if (problem().padding_mode == PaddingMode::zeros) {
        const int edges = (range.first > 0 ? kFirstPixel : kNoEdge) |
                          (range.last < width.out ? kLastPixel : kNoEdge);
        if (edges != (kFirstPixel | kLastPixel)) tap.edge = static_cast<std::int16_t>(edges);
      }
      width_taps_.push_back(tap);
    }
  }

  void choose_block() {
    const ConvProblem& p = problem();
    const auto elements = [](std::int64_t bytes) { return bytes / std::int64_t(sizeof(T)); };
    const std::int64_t width = axes_[2].out;
    const std::int64_t height = axes_[1].out;
    std::int64_t most_pixels = kMostPixels;
    if (p.channels_last) {
      const std::int64_t pixel_bytes = most_out_channels(p) * std::int64_t(sizeof(T));
      most_pixels = std::clamp<std::int64_t>(kOutputBytes / pixel_bytes, 64, kMostPixels);
    }
    // Up to so many pixels whose copy takes no more than so much.
    const auto cut = [&](std::int64_t pixels, std::int64_t bytes) {
      columns_ = std::min(width, most_pixels);
      while (columns_ > kFewestColumns && copy_elements(1, columns_) > elements(bytes)) {
        columns_ = std::max(kFewestColumns, columns_ / 2);
      }
      rows_ = 1;
      while (columns_ == width && rows_ < height && rows_ * columns_ < pixels &&
             (rows_ + 1) * columns_ <= most_pixels && row_span(rows_ + 1) <= kMostRowSpan &&
             copy_elements(rows_ + 1, columns_) <= elements(bytes)) {
        ++rows_;
      }
    };
    const auto halve_passes = [&](std::int64_t bytes) {
      one_pass_ = false;
      pass_blocks_ = ceil_div(pass_blocks_, 2);
      cut(most_pixels, bytes);
    };
    cut(most_pixels, kCopyBytes);
    // Few output channels do not pay for input rows that blocks of few rows copy anew: their sums
    // are small, so that several passes may copy fewer channels of more rows.
    const auto copies_anew = [&] {
      return columns_ < width ||
             (rows_ < height && 4 * input_rows(rows_) > 5 * rows_ * axes_[1].stride);
    };
    while (widest_ <= kFewOutputs && groups_together_ == 1 && pass_blocks_ > kFewestPassBlocks &&
           copies_anew()) {
      halve_passes(kCopyBytes);
    }
    if (panels_.bytes() <= kCopyBytes || groups_together_ > 1) return;

    // Weights that no L2 cache holds come anew for each block. It may then take more than a cache
    // holds, too: each panel goes through it in the order of its channels. Nor is one pass over the
    // channels needed, where the sums of several are near.
    const double met = taps_inside(p);
    const double all = static_cast<double>(height) * static_cast<double>(width);
    const auto pixels =
        static_cast<std::int64_t>(std::min({met > 0 ? static_cast<double>(kFewestPixels) / met : 0,
                                            all, static_cast<double>(most_pixels)}));
    if (rows_ * columns_ < pixels) cut(pixels, kMostCopyBytes);
    most_pixels = std::max(kFewestColumns, std::min(pixels, elements(kMostSumsBytes) / widest_));
    while (rows_ * columns_ < std::min(pixels, most_pixels) && pass_blocks_ > kFewestPassBlocks) {
      halve_passes(kMostCopyBytes);
    }
  }

  std::int64_t group_parts(std::int64_t together) const {
    return ceil_div(static_cast<std::int64_t>(problem().groups.size()), together);
  }

  Blocking blocking(int threads) const {
    const ConvProblem& p = problem();
    Blocking blocks;
    blocks.columns = Split::by_count(axes_[2].out, ceil_div(axes_[2].out, columns_));
    blocks.rows = Split::by_count(axes_[1].out, ceil_div(axes_[1].out, rows_));
    blocks.groups = groups_together_;
    const auto tasks = [&] {
      return p.batch * group_parts(blocks.groups) * axes_[0].out * blocks.rows.count() *
             blocks.columns.count();
    };
    while (tasks() < 2 * threads && blocks.groups > 1) blocks.groups = ceil_div(blocks.groups, 2);
    if (tasks() >= 8 * threads || tasks() % threads == 0) return blocks;

    // Few tasks must be a multiple of the threads, or some would wait for the last: cut whatever
    // axis comes out most even.
    const std::int64_t panels = panels_.most();
    const auto uneven = [&](std::int64_t total) {
      return total < threads
                 ? 1e9
                 : static_cast<double>(round_up(total, threads)) / static_cast<double>(total);
    };
    const double rows = uneven(axes_[1].out);
    const double columns = blocks.rows.count() > 1 ? 1e9 : uneven(ceil_div(axes_[2].out, 8));
    const double channels = 1.03 * uneven(panels);  // each part copies the input
    const auto cut = [&](const Split& split, std::int64_t total) {
      return Split::by_count(total, std::min(total, round_up(split.count(), threads)));
    };
    if (rows <= columns && rows <= channels) {
      blocks.rows = cut(blocks.rows, axes_[1].out);
    } else if (columns <= channels) {
      blocks.columns = cut(blocks.columns, axes_[2].out);
    } else {
      blocks.panel_parts = std::min<std::int64_t>(threads, panels);
    }
    return blocks;
  }

  Scratch carve(void* base) const {
    Carver carver(base);
    Scratch scratch;
    // A block of fewer columns may be the one whose narrow rows are moved apart.
    const std::int64_t apart =
        narrow_ ? axes_[0].kernel * input_rows(rows_) * kChannelBlock : std::int64_t(0);
    scratch.copy = carver.take<T>(copy_elements(rows_, columns_) + apart);
    const std::int64_t width = one_pass_ ? panels_.vectors() * table_.lanes : widest_;
    scratch.sums = carver.take<T>(rows_ * columns_ * width);
    std::int64_t taps = 0;
    for (const Band& band : bands_) taps += static_cast<std::int64_t>(band.taps.size());
    const std::int64_t units = axes_[0].kernel * axes_[1].kernel * taps * rows_;
    scratch.units = carver.take<TapUnit>(narrow_ ? 0 : units);
    scratch.window_rows = carver.take<WindowRow>(narrow_ ? units : 0);
    scratch.unit_ends = carver.take<std::int32_t>(rows_ * static_cast<std::int64_t>(bands_.size()));
    scratch.slots = carver.take<std::int32_t>(row_span(rows_));
    scratch.sources = carver.take<std::int64_t>(input_rows(rows_));
    scratch.bytes = carver.used();
    return scratch;
  }

  void run_task(const ConvArrays& arrays, const Place& at, bool ends,
                const Scratch& scratch) const {
    const Layout l = layout(at.rows, at.columns);
    const std::int64_t in_channels = problem().groups[at.group].in_channels;
    const std::int32_t slots = list_slots(at, scratch);
    list_units(at, l, scratch);
    RowsAhead ahead = rows_ahead(arrays, at);
    std::int64_t pass = 0;
    do {
      const std::int64_t end = std::min(pass + pass_blocks_ * kChannelBlock, in_channels);
      copy_input(arrays, at, l, pass, end, slots, scratch);
      const T* copy = scratch.copy;
      for (std::size_t g = at.group; g < at.group_end; ++g, copy += group_blocks_ * l.block_pitch) {
        for (std::int64_t panel = at.panel; panel < at.panel_end; ++panel) {
          run_panel(arrays, at, ends, g, panel, {copy, l.block_pitch, pass, end}, ahead, scratch);
        }
      }
      pass = end;
    } while (pass < in_channels);
  }

  // Input rows that the next block copies, of planes whose rows follow each other. Tiles ask for
  // them: no prefetcher follows so many planes.
  struct RowsAhead {
    const T* from = nullptr;  // of the first plane that is left
    std::int64_t planes = 0;  // that are left
    std::int64_t plane_stride = 0;
    std::int64_t lines = 0;    // cache lines of a plane
    std::int64_t line = 0;     // the first that is left
    std::int64_t at_once = 0;  // that a tile asks for whenever it does

    // The next `count` lines, of one plane.
    const T* take(std::int64_t count) {
      const T* const next = from + line * kAlignment / std::int64_t(sizeof(T));
      line += count;
      if (line >= lines) {
        line = 0;
        from += plane_stride;
        --planes;
      }
      return next;
    }
  };

  // None where tiles have weights to ask for, a block goes through its input in passes, or the next
  // block reads the same rows.
  RowsAhead rows_ahead(const ConvArrays& arrays, const Place& at) const {
    constexpr std::int64_t kMostAtOnce = 4;
    const ConvProblem& p = problem();
    const auto& [depth, height, width] = axes_;
    const Strides& strides = arrays.x_strides;
    const std::int64_t after = at.row * height.stride - height.pad_before + height.span(at.rows);
    const std::int64_t first = std::max<std::int64_t>(0, after);
    const std::int64_t rows = std::min(at.rows * height.stride, height.in - first);
    const Group& group = p.groups[at.group];
    const std::int64_t channels =
        group.in_channels * static_cast<std::int64_t>(at.group_end - at.group);
    // A plane is all channels of the rows where these are next to each other.
    const bool one_plane = strides.channel == 1;
    const std::int64_t pixel = one_plane ? channels : 1;
    const bool whole =
        at.columns == width.out && at.panel == 0 && at.panel_end == panels_.of(at.group).count();
    RowsAhead ahead;
    if (rows <= 0 || has_far_weights() || !one_pass_ || !whole || depth.kernel > 1 ||
        at.depth * depth.stride >= depth.in || depth.pad_before > 0 || strides.axis[2] != pixel ||
        strides.axis[1] != width.in * pixel) {
      return ahead;
    }
    ahead.from = static_cast<const T*>(arrays.x) + at.image * strides.batch +
                 group.in_begin * strides.channel + at.depth * depth.stride * strides.axis[0] +
                 first * strides.axis[1];
    ahead.planes = one_plane ? 1 : channels;
    ahead.plane_stride = strides.channel;
    ahead.lines =
        ceil_div(rows * strides.axis[1] * std::int64_t(sizeof(T)), std::int64_t(kAlignment)) + 1;
    const std::int64_t tiles =
        at.rows * ceil_div(at.columns, table_.channels_rows[panels_.vectors() - 1]) *
        (at.panel_end - at.panel) * static_cast<std::int64_t>(at.group_end - at.group);
    const std::int64_t stops = narrow_ ? height.kernel * ceil_div(width.kernel, row_taps_) *
                                             ceil_div(row_taps_ * pitch_ * std::int64_t(sizeof(T)),
                                                      std::int64_t(kAlignment))
                                       : p.taps() * ceil_div(group.in_channels, kChannelBlock);
    ahead.at_once = std::min(kMostAtOnce, ceil_div(ahead.planes * ahead.lines,
                                                   std::max<std::int64_t>(1, tiles * stops)));
    return ahead;
  }

  // Channels [begin, end) of a group in the copy.
  struct Pass {
    const T* copy;
    std::int64_t block_pitch;
    std::int64_t begin;
    std::int64_t end;
  };

  void run_panel(const ConvArrays& arrays, const Place& at, bool ends, std::size_t g,
                 std::int64_t panel, const Pass& pass, RowsAhead& rows,
                 const Scratch& scratch) const {
    const Group& group = problem().groups[g];
    const Split& panels = panels_.of(g);
    const std::int64_t taps = problem().taps();
    const std::int64_t block_depth = std::min(kChannelBlock, group.in_channels) * taps;
    const std::int64_t chunk = kChannelBlock * std::max<std::int64_t>(1, kTileDepth / block_depth);
    const std::int64_t vectors = panels.size(panel);
    const std::int64_t width = vectors * table_.lanes;
    const std::int64_t first = panels.begin(panel) * table_.lanes;
    const std::int64_t channels = std::min(width, group.out_channels - first);
    const std::int64_t channel = group.out_begin + first;
    const T* const weights = panels_.find(arrays.packed_weights, g, panel);
    T* const sums = scratch.sums + (one_pass_ ? 0 : at.rows * at.columns * first);
    std::int64_t begin = pass.begin;
    do {
      ChannelsTileArgs<T> tile{};
      tile.channels = std::min(chunk, pass.end - begin);
      tile.taps = taps;
      tile.a = pass.copy + (begin - pass.begin) / kChannelBlock * pass.block_pitch;
      tile.a_block = pass.block_pitch;
      tile.b = weights + begin * taps * width;
      tile.c = sums;
      tile.c_stride = width;
      tile.accumulate = begin > 0;
      begin += tile.channels;
      const bool last = begin == group.in_channels;
      multiply(arrays, at, ends, tile, channel, vectors, channels, last, rows, scratch);
    } while (begin < pass.end);
    if (pass.end == group.in_channels && !ends) {
      const std::int64_t pixel = problem().out_pixel(at.depth, at.row, at.column);
      const SumsBlock<T> row_sums{sums,    width,    true,  at.image,
                                  channel, channels, pixel, pixel + at.columns};
      send_rows(problem(), table_, arrays, row_sums, at.rows, at.columns * width, 1);
    }
  }

  // Copies channels [begin, end) of each group in the input rows that the block reads.
  void copy_input(const ConvArrays& arrays, const Place& at, const Layout& l, std::int64_t begin,
                  std::int64_t end, std::int32_t slots, const Scratch& scratch) const {
    const ConvProblem& p = problem();
    const Group& group = p.groups[at.group];
    const Axis& width = axes_[2];
    const Strides& strides = arrays.x_strides;
    const T* const image = static_cast<const T*>(arrays.x) + at.image * strides.batch +
                           (group.in_begin + begin) * strides.channel;

    PixelRowArgs<T> args{};
    args.channel_stride = strides.channel;
    args.column_stride = strides.axis[2];
    args.column_in = width.in;
    args.padding_mode = p.padding_mode;
    args.phases = phases_;
    args.phase_pitch = l.phase_pitch;
    args.pitch = pitch_;
    args.block_pitch = l.block_pitch;
    const std::int64_t channels =
        (end - begin) * static_cast<std::int64_t>(at.group_end - at.group);
    args.step = column_step_;
    const std::int64_t skipped = copy_begin(at);
    args.start = at.column * width.stride - width.pad_before + skipped;
    args.count = phases_ == 1 ? copied_columns(at.columns) - skipped : width.span(at.columns);
    args.count =
        std::max<std::int64_t>(0, std::min(args.count, margin_after_ + width.in - args.start));
    const auto inside = [&](std::int64_t upto) {
      const std::int64_t distance = upto - args.start;
      return std::clamp<std::int64_t>(distance > 0 ? ceil_div(distance, args.step) : 0, 0,
                                      args.count);
    };
    args.first = inside(0);
    args.last = std::max(args.first, inside(width.in));

    // Planes are read a few at a time, through all of their rows: no prefetcher follows more.
    const std::int64_t together = strides.channel == 1 ? channels : kChannelBlock;
    for (std::int64_t c = 0; c < channels; c += together) {
      args.channels = std::min(together, channels - c);
      for (std::int32_t slot = 0; slot < slots; ++slot) {
        const T* const row = image + c * strides.channel + scratch.sources[slot] * strides.axis[1];
        T* const to = scratch.copy + c / kChannelBlock * l.block_pitch + slot * l.row_pitch;
        for (std::int64_t d = 0; d < axes_[0].kernel; ++d) {
          const std::int64_t depth = input_depth(at, d);
          if (depth < 0) continue;
          args.from = row + depth * strides.axis[0];
          args.to = to + d * l.depth_pitch;
          table_.pixel_row(args);
        }
      }
    }
  }

  // Lists the input rows that the block reads, one per slot of the copy, and says how many.
  std::int32_t list_slots(const Place& at, const Scratch& scratch) const {
    const Axis& height = axes_[1];
    std::fill_n(scratch.slots, row_span(at.rows), -1);
    std::int32_t count = 0;
    for (std::int64_t r = 0; r < at.rows; ++r) {
      for (std::int64_t tap = 0; tap < height.kernel; ++tap) {
        const std::int64_t relative = r * height.stride + tap * height.dilation;
        if (scratch.slots[relative] >= 0) continue;
        const std::int64_t row = padded_index(at.row * height.stride - height.pad_before + relative,
                                              height.in, problem().padding_mode);
        if (row < 0) continue;
        scratch.sources[count] = row;
        scratch.slots[relative] = count++;
      }
    }
    return count;
  }

  std::int64_t input_depth(const Place& at, std::int64_t tap) const {
    return input_index(axes_[0], at.depth, tap, problem().padding_mode);
  }

  // For each output row and band, the taps that meet the input.
  void list_units(const Place& at, const Layout& l, const Scratch& scratch) const {
    const Axis& height = axes_[1];
    const std::int64_t skipped = copy_begin(at) * pitch_;
    std::int32_t count = 0;
    std::int32_t* end = scratch.unit_ends;
    for (std::int64_t r = 0; r < at.rows; ++r) {
      for (const Band& band : bands_) {
        for (std::int64_t d = 0; d < axes_[0].kernel; ++d) {
          if (input_depth(at, d) < 0) continue;
          for (std::int64_t h = 0; h < height.kernel; ++h) {
            const std::int64_t slot = scratch.slots[r * height.stride + h * height.dilation];
            if (slot < 0) continue;
            for (const std::int64_t w : band.taps) {
              if (narrow_ && w % row_taps_ != 0) continue;
              const WidthTap& width_tap = width_taps_[static_cast<std::size_t>(w)];
              const std::int64_t offset = d * l.depth_pitch + slot * l.row_pitch +
                                          width_tap.phase * l.phase_pitch +
                                          width_tap.column * pitch_ - skipped;
              const std::int64_t tap = (d * height.kernel + h) * axes_[2].kernel + w;
              if (narrow_) {
                scratch.window_rows[count++] = {static_cast<std::int32_t>(offset),
                                                static_cast<std::int32_t>(tap * pitch_)};
              } else {
                scratch.units[count++] = {static_cast<std::int32_t>(offset),
                                          static_cast<std::int16_t>(tap), width_tap.edge};
              }
            }
          }
        }
        *end++ = count;
      }
    }
  }

  // Adds a chunk of input channels to the sums of the block under one panel.
  void multiply(const ConvArrays& arrays, const Place& at, bool ends, ChannelsTileArgs<T> tile,
                std::int64_t channel, std::int64_t vectors, std::int64_t channels, bool last,
                RowsAhead& rows, const Scratch& scratch) const {
    const bool low = ends_low(table_, channels);
    const T* const copy = tile.a;
    T* const sums = tile.c;
    const std::int32_t* unit_end = scratch.unit_ends;
    std::int32_t unit = 0;
    TileEnd<T> tile_end{};
    if (last && ends) {
      tile_end = panel_end(problem(), arrays, table_, channel, channels, arrays.out_strides.axis[2],
                           arrays.residual_strides.axis[2]);
      tile.end = &tile_end;
    }
    const auto columns_of = [&](const Band& band) {
      const std::int64_t width =
          std::min(band.end, at.column + at.columns) - std::max(band.begin, at.column);
      return Split::by_limit(std::max<std::int64_t>(0, width), table_.channels_rows[vectors - 1]);
    };
    // The tiles of a chunk read the same weights, the first of them from beyond the L2 cache unless
    // those of the chunk before have asked for them, each for its share.
    constexpr std::int64_t line = kAlignment / sizeof(T);
    std::int64_t lines = 0;
    if (has_far_weights()) {
      std::int64_t tiles = 0;
      for (const Band& band : bands_) tiles += at.rows * columns_of(band).count();
      const std::int64_t elements = tile.channels * tile.taps * tile.c_stride;
      tile.ahead = tile.b + elements;
      lines = ceil_div(elements, line * tiles);
    }
    WindowTileArgs<T> window{};
    window.a_row = pixel_step_ * pitch_;
    window.length = row_taps_ * pitch_;
    window.b = tile.b;
    window.c_stride = tile.c_stride;
    window.end = tile.end;
    const std::int64_t stops =
        narrow_ ? ceil_div(window.length, line) : ceil_div(tile.channels, kChannelBlock);
    const T* ahead = tile.ahead;
    for (std::int64_t r = 0; r < at.rows; ++r) {
      const auto row_offset = [&](const Strides& strides) {
        return at.image * strides.batch + channel + at.depth * strides.axis[0] +
               (at.row + r) * strides.axis[1];
      };
      const std::int64_t out_row = row_offset(arrays.out_strides);
      const std::int64_t residual_row = row_offset(arrays.residual_strides);
      for (const Band& band : bands_) {
        const std::int32_t begin = unit;
        unit = *unit_end++;
        tile.units = scratch.units + begin;
        window.rows = scratch.window_rows + begin;
        tile.unit_count = window.row_count = unit - begin;
        const std::int64_t share =
            ceil_div(lines, std::max<std::int64_t>(1, stops * tile.unit_count));
        const std::int64_t first = std::max(band.begin, at.column);
        const Split columns = columns_of(band);
        for (std::int64_t part = 0; part < columns.count(); ++part) {
          const std::int64_t column = first + columns.begin(part);
          const std::int64_t count = columns.size(part);
          const std::int64_t in_block = column - at.column;
          tile.a = window.a = copy + in_block * window.a_row;
          tile.c = window.c = sums + (r * at.columns + in_block) * tile.c_stride;
          if (lines > 0) {
            tile.ahead = window.ahead = ahead;
            tile.lines_ahead = window.lines_ahead = share;
            ahead += lines * line;
          } else if (rows.planes > 0) {
            tile.ahead = window.ahead = rows.take(stops * tile.unit_count * rows.at_once);
            tile.lines_ahead = window.lines_ahead = rows.at_once;
          } else {
            tile.lines_ahead = window.lines_ahead = 0;
          }
          if (tile.end) {
            tile_end.out = static_cast<T*>(arrays.out) + out_row + column * tile_end.out_stride;
            if (arrays.residual) {
              tile_end.residual = static_cast<const T*>(arrays.residual) + residual_row +
                                  column * tile_end.residual_stride;
            }
          }
          if (narrow_) {
            table_.window_tile[low][count - 1][vectors - 1](window);
            continue;
          }
          tile.edges = (column == 0 ? kFirstPixel : kNoEdge) |
                       (column + count == axes_[2].out ? kLastPixel : kNoEdge);
          table_.channels_tile[low][count - 1][vectors - 1](tile);
        }
      }
    }
  }

  const KernelTable<T>& table_;
  ChannelPanels<T> panels_;
  const std::array<Axis, kSpatialAxes>& axes_;
  bool narrow_ = false;
  std::int64_t pitch_ = kChannelBlock;
  std::int64_t groups_together_ = 1;  // that are copied at once
  std::int64_t group_blocks_ = 0;     // of input channels
  std::int64_t pass_blocks_ = 0;      // in each pass over a block
  bool one_pass_ = true;
  std::int64_t widest_ = 1;       // output channels of a group, in whole vectors
  std::int64_t column_step_ = 1;  // input columns from one that is copied to the next
  std::int64_t pixel_step_ = 1;   // copied columns of a phase from one output pixel to the next
  std::int64_t phases_ = 1;       // of columns
  std::int64_t reach_ = 0;        // copied columns of a phase beyond those of the first tap
  std::int64_t row_taps_ = 1;     // width taps that follow each other among narrow pixels
  std::int64_t margin_before_ = 0;
  std::int64_t margin_after_ = 0;
  std::vector<WidthTap> width_taps_;
  std::vector<Band> bands_;
  std::int64_t rows_ = 1;  // output pixels of a block
  std::int64_t columns_ = 1;
};

}  // namespace

std::string direct_channels_refuses(const ConvProblem& p) {
  // Also keeps offsets within 32 bits, and their products within 64.
  constexpr std::int64_t kMost = kMostCopyBytes;
  std::int64_t elements = kFewestColumns;
  const Axis& width = p.axes[2];
  if (p.taps() > kMostTaps || width.kernel > kMostTaps) return "the kernel has over 1024 taps";
  const char* const large = "the input under a few output pixels takes more than 2 MiB";
  for (const Axis& axis : p.axes) {
    if (axis.kernel > kMostTaps || axis.stride > kMost || axis.dilation > kMost) return large;
  }
  elements += (width.kernel - 1) * width.dilation / width.stride;
  elements *= (one_phase(width) ? 1 : width.stride) * p.axes[0].kernel * p.axes[1].kernel;
  const std::int64_t channels = std::min<std::int64_t>(most_in_channels(p), kMost);
  const std::int64_t element = element_bytes(p.dtype);
  if (elements > kMost || elements * (channels + kChannelBlock) * element > kMost) return large;
  if ((p.axes[1].kernel - 1) * p.axes[1].dilation >= kMostRowSpan) return large;
  return {};
}

// Measured in float32 against the algorithms that follow in the list.
bool direct_channels_pays(const ConvProblem& p) {
  if (p.channels_last) return true;
  // Half of the lanes would idle, which is still better than to pack phases of rows.
  if (2 * most_out_channels(p) < kChannelBlock && !strided(p)) return false;
  if (p.taps() == 1) return false;  // no tap shares the copy
  // Two or three taps share little of the cost of changing the layout of input and output, 14
  // multiply-adds per channel of the other, of which a twentieth is enough; im2col copies whole
  // vectors of long rows.
  const bool long_rows = p.axes[2].out >= 256 && p.axes[2].stride == 1;
  const double layout =
      1 / static_cast<double>(most_in_channels(p)) + 1 / static_cast<double>(most_out_channels(p));
  return !long_rows || 14 * layout < 0.05 * static_cast<double>(p.taps());
}

std::unique_ptr<Plan> plan_direct_channels(ConvProblem problem) {
  return plan_of_dtype<DirectChannelsPlan>(std::move(problem));
}

}  // namespace pyconv
