// 1x1 convolution that reads its input where it stands. An input channel serves so few output
// channels that packing it would cost a noticeable part of the multiplication. Here lanes are
// pixels, in pointwise_channels.cpp they are output channels; the last pixels of an image, and
// pixels that are not contiguous in an image or that a stride takes from it, are packed all the
// same. Where tiles have few rows, or many outputs share a copy, pointwise_panels.cpp copies all
// pixels. plan_pointwise() chooses among the three.
#include <algorithm>
#include <limits>

#include "algorithms/common.hpp"
#include "algorithms/output.hpp"
#include "algorithms/pointwise.hpp"
#include "algorithms/weight_panels.hpp"
#include "core/parallel.hpp"
#include "core/partition.hpp"
#include "core/workspace.hpp"

namespace pyconv {
namespace {

// The pixels of a task under all input channels: a quarter of a 1 MiB L2.
constexpr std::int64_t kBlockBytes = 256 << 10;
constexpr std::int64_t kMostVectors = 64;
constexpr std::int64_t kTileBytes = 32 << 10;  // of pixels, most of an L1 cache

// Larger outputs are written in long runs, a few channels at a time, and so are those on planes
// that crowd the sets of a cache: a column of tiles would open a page and a line of every channel.
constexpr std::int64_t kLargeOutputBytes = 4 << 20;

constexpr std::int64_t kSetsBytes = 64 << 10;  // of the lines that one way of an L2 cache holds

// The least block of pixels takes 6 vectors of each channel.
constexpr std::int64_t kMostPlanes = 4096;

// Tiles of few output channels wait for memory where no cache holds the image, and ask for all of
// the pixels that come next: 64 to 2 channels on 388 x 388 are 1.25 times as fast so, on 100 x 100
// or to 16 channels slower.
constexpr std::int64_t kFewOutputs = 4;
constexpr std::int64_t kFewestWaiting = 16;  // input channels

// Of the pixels that one group reads of one image, in elements of T.
template <class T>
double input_bytes(const ConvProblem& problem) {
  return static_cast<double>(most_in_channels(problem)) *
         static_cast<double>(problem.out_pixels()) * sizeof(T);
}

template <class T>
class PointwisePlan final : public RowsPlan {
 public:
  explicit PointwisePlan(ConvProblem problem_in)
      : RowsPlan(std::move(problem_in)), table_(kernels<T>()), tiles_(problem(), table_) {
    const ConvProblem& p = problem();
    channels_ = std::max<std::int64_t>(1, most_in_channels(p));  // what the analyzer cannot know
    const std::int64_t vector_bytes = channels_ * table_.lanes * std::int64_t(sizeof(T));
    const std::int64_t plane_bytes = p.out_pixels() * std::int64_t(sizeof(T));
    const bool far =
        crowds_sets<T>(p.out_pixels()) || p.out_channels > kLargeOutputBytes / plane_bytes;
    columns_first_ =
        !far && vector_bytes * table_.direct_vectors[table_.tile_rows - 1] <= kTileBytes;
    waits_for_memory_ = most_out_channels(p) <= kFewOutputs && channels_ >= kFewestWaiting &&
                        input_bytes<T>(p) > kFarBytes;
    vectors_ = std::clamp<std::int64_t>(kBlockBytes / vector_bytes, 6, kMostVectors);
  }

  std::string name() const override { return "pointwise"; }
  std::string packing() const override { return tiles_.packing(); }

  std::size_t packed_bytes() const override { return static_cast<std::size_t>(tiles_.bytes()); }

  void pack(const std::vector<WeightView>& weights, void* packed) const override {
    tiles_.pack(weights, packed);
  }

  std::size_t workspace_bytes(int threads) const override {
    return offsets_bytes() + static_cast<std::size_t>(threads) * carve(nullptr).bytes;
  }

  std::string tile() const override { return tiles_.tile(); }

  std::string partition(int threads) const override {
    return partition_of(pixel_blocks(threads)).text();
  }

  std::string reason() const override { return "a 1x1 kernel reads its input where it stands"; }

  void run(const ConvArrays& arrays, int threads) const override {
    const ConvProblem& p = problem();
    const std::size_t bytes = carve(nullptr).bytes;
    const Workspace workspace(offsets_bytes() + bytes * static_cast<std::size_t>(threads));
    auto* const base = workspace.get();
    const Reading reading = make_reading(arrays, workspace.get());
    const Split blocks = pixel_blocks(threads);
    const auto partition = partition_of(blocks);
    parallel_for(partition.tasks(), threads, [&](std::int64_t task, int thread) {
      const auto [image, group, block] = partition.at(task);
      Place at;
      at.image = image;
      at.group = static_cast<std::size_t>(group);
      at.begin = blocks.begin(block) * table_.lanes;
      at.end = std::min(blocks.end(block) * table_.lanes, p.out_pixels());
      const Scratch scratch =
          carve(base + offsets_bytes() + static_cast<std::size_t>(thread) * bytes);
      run_task(arrays, at, reading, scratch);
    });
  }

  std::size_t rows_workspace_bytes() const override { return workspace_bytes(1); }

  void run_rows(const ConvArrays& arrays, std::int64_t begin, std::int64_t end,
                void* workspace) const override {
    const std::int64_t width = problem().axes[2].out;
    const Reading reading = make_reading(arrays, workspace);
    const Scratch scratch = carve(static_cast<std::byte*>(workspace) + offsets_bytes());
    const std::int64_t vectors = ceil_div((end - begin) * width, table_.lanes);
    // Where pixels stay in the cache for all output channels, no other cut would help.
    const bool at_once = reading.in_place && columns_first_;
    const Split blocks = Split::by_limit(vectors, at_once ? vectors : vectors_);
    for (std::size_t group = 0; group < problem().groups.size(); ++group) {
      for (std::int64_t block = 0; block < blocks.count(); ++block) {
        const Place at{0, group, begin * width + blocks.begin(block) * table_.lanes,
                       std::min(begin * width + blocks.end(block) * table_.lanes, end * width)};
        run_task(arrays, at, reading, scratch);
      }
    }
  }

 private:
  struct Scratch {
    T* panel;  // [channel][panel_pitch]
    T* sums;
    std::int32_t* offsets;  // of channels in the panel
    std::size_t bytes;
  };

  // How all tasks of a call meet its arrays.
  struct Reading {
    bool in_place;
    bool ends;                    // in registers
    const std::int32_t* offsets;  // of channels, in place
  };

  // Pixels [begin, end) of one group of one image.
  struct Place {
    std::int64_t image;
    std::size_t group;
    std::int64_t begin;
    std::int64_t end;
  };

  // Lists offsets at the beginning of the workspace.
  Reading make_reading(const ConvArrays& arrays, void* workspace) const {
    auto* const offsets = static_cast<std::int32_t*>(workspace);
    const bool in_place = reads_in_place(arrays);
    for (std::int64_t c = 0; in_place && c < channels_; ++c) {
      offsets[c] = static_cast<std::int32_t>(c * arrays.x_strides.channel);
    }
    return {in_place, pixels_end_in_output(problem(), arrays), offsets};
  }

  std::size_t offsets_bytes() const {
    return align_up(static_cast<std::size_t>(channels_) * sizeof(std::int32_t));
  }

  Scratch carve(void* base) const {
    Carver carver(base);
    Scratch scratch;
    scratch.panel = carver.take<T>(channels_ * panel_pitch(vectors_));
    scratch.sums = carver.take<T>(table_.tile_rows * kMaxDirectVectors * table_.lanes);
    scratch.offsets = carver.take<std::int32_t>(channels_);
    scratch.bytes = carver.used();
    return scratch;
  }

  // Elements from one channel of the panel to the next: an odd number of cache lines, so that not
  // all channels under a tile share a few sets of the L1 cache.
  std::int64_t panel_pitch(std::int64_t vectors) const {
    return odd_lines(vectors * table_.lanes, kAlignment / sizeof(T));
  }

  Split pixel_blocks(int threads) const {
    const ConvProblem& p = problem();
    const std::int64_t vectors = ceil_div(p.out_pixels(), table_.lanes);
    const std::int64_t blocks = ceil_div(vectors, vectors_);
    const std::int64_t others = p.batch * static_cast<std::int64_t>(p.groups.size());
    return Split::by_count(vectors, even_blocks(blocks, others, vectors, threads));
  }

  Partition<3> partition_of(const Split& blocks) const {
    return Partition({{"images", problem().batch},
                      {"groups", static_cast<std::int64_t>(problem().groups.size())},
                      {"blocks of pixels", blocks.count()}});
  }

  bool reads_in_place(const ConvArrays& arrays) const {
    if (pixel_stride(problem(), output_steps(problem(), arrays.x_strides)) != 1) return false;
    const std::int64_t channel = arrays.x_strides.channel;
    const std::int64_t limit = std::numeric_limits<std::int32_t>::max() / channels_;
    return channel <= limit && channel >= -limit;
  }

  void run_task(const ConvArrays& arrays, const Place& at, const Reading& reading,
                const Scratch& scratch) const {
    const Group& group = problem().groups[at.group];
    const Split& tiles = tiles_.of(at.group);
    const std::int64_t pixels = at.end - at.begin;
    const std::int64_t vectors = ceil_div(pixels, table_.lanes);
    const T* const image = static_cast<const T*>(arrays.x) + at.image * arrays.x_strides.batch +
                           group.in_begin * arrays.x_strides.channel;
    // The vectors that are read in place; the others are packed.
    const std::int64_t whole = arrays.x_ends_in_whole_lines ? vectors : pixels / table_.lanes;
    const std::int64_t in_place = reading.in_place ? whole : 0;
    if (in_place < vectors) {
      pack_pixels(arrays, at, reading, in_place, image, group.in_channels, scratch);
    }
    TileEnd<T> end = reading.ends ? pixels_end<T>(problem(), arrays) : TileEnd<T>{};
    const Columns columns[] = {
        {image + at.begin, reading.offsets, 0, Split::by_limit(in_place, widest(tiles))},
        {scratch.panel, scratch.offsets, in_place,
         Split::by_limit(vectors - in_place, widest(tiles))},
    };
    for (const Columns& side : columns) {
      if (columns_first_) {
        for (std::int64_t part = 0; part < side.parts.count(); ++part) {
          for (std::int64_t tile = 0; tile < tiles.count(); ++tile) {
            run_tile(arrays, at, reading, end, side, part, tile, scratch);
          }
        }
      } else {
        for (std::int64_t tile = 0; tile < tiles.count(); ++tile) {
          for (std::int64_t part = 0; part < side.parts.count(); ++part) {
            run_tile(arrays, at, reading, end, side, part, tile, scratch);
          }
        }
      }
    }
  }

  // Vectors of pixels that are read from one place, in parts of a tile.
  struct Columns {
    const T* from;
    const std::int32_t* offsets;  // of channels
    std::int64_t first;           // vector of the task
    Split parts;
  };

  // Vectors of the widest tile.
  std::int64_t widest(const Split& tiles) const {
    return table_.direct_vectors[tiles.largest() - 1];
  }

  void run_tile(const ConvArrays& arrays, const Place& at, const Reading& reading, TileEnd<T>& end,
                const Columns& side, std::int64_t part, std::int64_t tile,
                const Scratch& scratch) const {
    const Group& group = problem().groups[at.group];
    const Split& tiles = tiles_.of(at.group);
    const std::int64_t rows = tiles.size(tile);
    const std::int64_t channel = group.out_begin + tiles.begin(tile);
    const std::int64_t vectors = side.parts.size(part);
    const std::int64_t begin = at.begin + (side.first + side.parts.begin(part)) * table_.lanes;
    const std::int64_t pixels = std::min(vectors * table_.lanes, at.end - begin);
    if (reading.ends) {
      // In place: to copy a struct that was just written is to wait for the outputs before it.
      const auto offset = [&](const Strides& strides) {
        return at.image * strides.batch + begin + channel * strides.channel;
      };
      if (arrays.bias) end.bias = static_cast<const T*>(arrays.bias) + channel;
      if (arrays.residual) {
        end.residual = static_cast<const T*>(arrays.residual) + offset(arrays.residual_strides);
      }
      end.out = static_cast<T*>(arrays.out) + offset(arrays.out_strides);
      end.tail = pixels - (vectors - 1) * table_.lanes;
    }
    const T* const from = side.from + side.parts.begin(part) * table_.lanes;
    const T* ahead = nullptr;
    constexpr std::int64_t line = kAlignment / sizeof(T);
    if (!reading.in_place) {
      const std::int64_t calls =
          columns_first_ ? part * tiles.count() + tile : tile * side.parts.count() + part;
      ahead = line_to_pack(arrays, at, calls);
    } else if (side.offsets == reading.offsets && tile * line <= vectors * table_.lanes) {
      const std::int64_t next =
          columns_first_ ? vectors : side.parts.largest() * side.parts.count();
      ahead = from + next * table_.lanes + tile * line;
      if (waits_for_memory_) {
        for (std::int64_t c = 0; c < group.in_channels; ++c) {
          prefetch<false>(ahead + reading.offsets[c], vectors * table_.lanes);
        }
      }
    }
    DirectTileArgs<T> args{};
    args.tiles = 1;
    args.depth = group.in_channels;
    args.a = tiles_.find(arrays.packed_weights, at.group, tile);
    args.b = from;
    args.offsets = side.offsets;
    args.ahead = ahead;
    args.ahead_step = ahead ? arrays.x_strides.channel : 0;
    args.c = scratch.sums;
    args.c_stride = vectors * table_.lanes;
    args.end = reading.ends ? &end : nullptr;
    table_.direct[rows - 1][vectors - 1](args);
    if (reading.ends) return;
    const SumsBlock<T> sums{scratch.sums, vectors * table_.lanes, false, at.image, channel, rows,
                            begin,        begin + pixels};
    send_sums(problem(), table_, arrays, sums);
  }

  // The `number`-th cache line of the first channel of what follows a task's pixels, if there is
  // one. Each input channel is in a page of its own, which no hardware prefetcher follows: tiles
  // ask for a line of every channel.
  const T* line_to_pack(const ConvArrays& arrays, const Place& at, std::int64_t number) const {
    const auto& [depth, height, width] = problem().axes;
    const Strides& strides = arrays.x_strides;
    constexpr std::int64_t line = kAlignment / sizeof(T);
    const std::int64_t lines = (width.out - 1) * width.stride * strides.axis[2] / line + 1;
    const std::int64_t row = at.end / width.out + (lines > 0 ? number / lines : 0);
    const std::int64_t last = std::min(2 * at.end - at.begin, problem().out_pixels() - 1);
    if (lines < 1 || row > last / width.out) return nullptr;
    return static_cast<const T*>(arrays.x) + at.image * strides.batch +
           problem().groups[at.group].in_begin * strides.channel +
           row / height.out * depth.stride * strides.axis[0] +
           row % height.out * height.stride * strides.axis[1] + number % lines * line;
  }

  // Packs the pixels that do not stand in place: [channel][panel_pitch], or [channel][lanes] of a
  // last vector.
  void pack_pixels(const ConvArrays& arrays, const Place& at, const Reading& reading,
                   std::int64_t in_place, const T* image, std::int64_t channels,
                   const Scratch& scratch) const {
    const Strides& strides = arrays.x_strides;
    const std::int64_t begin = at.begin + in_place * table_.lanes;
    const std::int64_t vectors = ceil_div(at.end - begin, table_.lanes);
    const std::int64_t pitch = reading.in_place ? table_.lanes : panel_pitch(vectors);
    for (std::int64_t c = 0; c < channels; ++c) {
      scratch.offsets[c] = static_cast<std::int32_t>(c * pitch);
    }
    if (reading.in_place) {
      // One vector, for all channels at once: 512 to 48 on 13 x 6 are 1.5 times as fast so.
      const std::int32_t one = 1;
      SplitRowsArgs<T> tail{};
      tail.from = image + begin;
      tail.row_stride = strides.channel;
      tail.rows = channels;
      tail.count = at.end - begin;
      tail.panel_vectors = &one;
      tail.panel_count = 1;
      tail.pitch = channels;
      tail.to = scratch.panel;
      return table_.split_rows(tail);
    }
    for (std::int64_t c = 0; c < channels; ++c) {
      T* const to = scratch.panel + c * pitch;
      copy_pixels(problem(), table_, strides, image + c * strides.channel, begin, at.end, to);
      std::fill(to + (at.end - begin), to + vectors * table_.lanes, T(0));
    }
  }

  const KernelTable<T>& table_;
  RowTiles<T> tiles_;
  std::int64_t channels_ = 1;  // most input channels of a group
  std::int64_t vectors_ = 1;   // of pixels, per task
  // Whether a tile's pixels stay in the L1 cache for all output channels, or else its weights for
  // all pixels.
  bool columns_first_ = true;
  bool waits_for_memory_ = false;
};

// Whether pixels are the better lanes. Lanes that idle past the last pixel, against changing the
// layout of input and output for lanes of output channels: some 5 multiply-add instructions per
// vector of each, as measured, fewer on small planes, where lanes of pixels pack their last vector
// for few others, for a loop that takes `loop` of the time; 8 and 0.985 of the time with a stride.
bool lanes_are_pixels(const ConvProblem& problem, std::int64_t lanes, double loop) {
  if (problem.channels_last || problem.out_pixels() < 16) return false;
  if (most_in_channels(problem) > kMostPlanes) return false;
  const auto pixels = static_cast<double>(problem.out_pixels());
  const double whole = static_cast<double>(round_up(problem.out_pixels(), lanes));
  const double cost = strided(problem) ? 8 : pixels < 128 ? 3.5 : 5;
  if (strided(problem)) loop = 0.985;
  const auto each = [cost](std::int64_t channels) { return cost / static_cast<double>(channels); };
  const double layouts = each(most_in_channels(problem)) + each(most_out_channels(problem));
  return whole == pixels || whole / pixels < loop + layouts;
}

// The choice of an algorithm looks at the problem alone.
bool lanes_are_pixels(const ConvProblem& problem) { return lanes_are_pixels(problem, 16, 1); }

// Whether channels read in place share sets of the L1 cache, but for an element, or more sets of
// the L2 cache than their lines find room in: lines as far apart as a power of two of bytes share
// 64 KiB of sets of 16 ways with as many others. Planes of a multiple of 2 KiB do no harm up to 768
// channels; 1024 to 256 on 48 x 48 take 1.1 times as long, 2048 on 16 x 48 1.3 times.
template <class T>
bool planes_share_sets(const ConvProblem& problem) {
  const std::int64_t pixels = problem.out_pixels();
  if (shares_a_set<T>(pixels - 1) || shares_a_set<T>(pixels) || shares_a_set<T>(pixels + 1)) {
    return true;
  }
  const std::int64_t bytes = pixels * std::int64_t(sizeof(T));
  const std::int64_t power_of_two = bytes & -bytes;
  const std::int64_t channels = most_in_channels(problem);
  return channels >= 1024 && channels * power_of_two >= 16 * kSetsBytes;
}

// Whether panels of copied pixels pay, which are read without crossing cache lines. On 32 registers
// where output channels are many enough to share the copy: 1.03 to 1.2 times as fast from 16 to 32
// channels up to 512 to 512, with twice as many inputs as outputs 0.8 to 0.95. A strided image of
// many channels is copied faster as pointwise does it. On planes that share sets 1.1 to 1.6 from 24
// outputs on, 0.7 to 1 below.
template <class T>
bool copies_pixels_for_tall_tiles(const ConvProblem& problem, const KernelTable<T>& table) {
  if (!lanes_are_pixels(problem, table.lanes, 1)) return false;
  const std::int64_t ins = most_in_channels(problem);
  const std::int64_t outs = most_out_channels(problem);
  if (strided(problem)) return outs > ins && ins <= 128;
  return (outs >= 24 && planes_share_sets<T>(problem)) || outs > ins || (outs == ins && ins >= 96);
}

// The same where tiles have few rows, which meet each pixel too seldom to wait for two cache lines
// of most vectors. On AVX2 1.1 to 1.5 times as fast for over 6 outputs. A single tile of rows meets
// pixels once, and copies them only where they would wait for memory, or for a cache whose sets
// planes crowd: there 1.2 to 2 times as fast, elsewhere 0.7 to 1.
// Tiles of copied pixels also gain a little on lanes of output channels, but not with a stride. The
// baseline has tiles as small.
template <class T>
bool copies_pixels_for_low_tiles(const ConvProblem& problem, const KernelTable<T>& table) {
  if (!lanes_are_pixels(problem, table.lanes, 1.01)) return false;
  const std::int64_t outs = most_out_channels(problem);
  if (outs > table.tile_rows) return true;
  const double far = input_bytes<T>(problem) / kFarBytes;
  return outs == 1 ? far > 1 : far > 0.5 || (outs > 2 && crowds_sets<T>(problem.out_pixels()));
}

template <class T>
bool copies_pixels(const ConvProblem& problem, const KernelTable<T>& table) {
  return table.tile_rows > 6 ? copies_pixels_for_tall_tiles(problem, table)
                             : copies_pixels_for_low_tiles(problem, table);
}

}  // namespace

std::string pointwise_refuses(const ConvProblem& problem) {
  for (const Axis& axis : problem.axes) {
    if (axis.kernel != 1 || axis.pad_before != 0 || (axis.out - 1) * axis.stride >= axis.in) {
      return "it computes 1x1 kernels without padding";
    }
  }
  // A copied pixel takes 2 MiB at most.
  if (most_in_channels(problem) > (std::int64_t(1) << 18)) return "a group has over 2^18 channels";
  return {};
}

bool pointwise_pays(const ConvProblem& problem) {
  const std::int64_t outs = most_out_channels(problem);
  if (problem.channels_last) {
    // Turning rows around for a single output is worth it, but not where no cache holds the image.
    return outs > 1 || input_bytes<float>(problem) > kFarBytes;
  }
  const bool pixels_fit = lanes_are_pixels(problem);
  // Elsewhere, changing the layout of few channels costs more than im2col.
  const bool channels_fit = 2 * outs >= kChannelBlock;
  if (!strided(problem)) return pixels_fit || channels_fit;
  const std::int64_t ins = most_in_channels(problem);
  const std::int64_t pixels = problem.out_pixels();
  // Few pixels a stride apart are gathered one by one: in panels 1.1 to 1.3 times as fast.
  if (ins >= kChannelBlock && pixels > 1 && pixels < (ins < 64 ? 64 : 20)) return false;
  // The copy of many channels is read faster as the panel that im2col packs, for few outputs by a
  // third.
  if (pixels_fit) return ins < 256 || 2 * outs > ins;
  // The change of layout costs more also where pixels as lanes would leave few of them idle.
  return channels_fit && (ins >= 512 || pixels < 256 || outs >= 256);
}

std::unique_ptr<Plan> plan_pointwise(ConvProblem problem) {
  const bool is_double = problem.dtype == DataType::float64;
  if (is_double ? copies_pixels(problem, kernels<double>())
                : copies_pixels(problem, kernels<float>())) {
    return plan_pointwise_panels(std::move(problem));
  }
  if (!lanes_are_pixels(problem)) return plan_pointwise_channels(std::move(problem));
  return plan_of_dtype<PointwisePlan>(std::move(problem));
}

}  // namespace pyconv
