// 1x1 convolution of channels-last images, whose lanes are output channels: a tile broadcasts its
// pixels from where they stand. Pixels whose channels are not contiguous are copied first, and
// those of a strided image that would share a set of the L1 cache or whose rows are short.
#include <algorithm>

#include "algorithms/common.hpp"
#include "algorithms/output.hpp"
#include "algorithms/pointwise.hpp"
#include "algorithms/weight_panels.hpp"
#include "core/parallel.hpp"
#include "core/partition.hpp"
#include "core/workspace.hpp"

namespace pyconv {
namespace {

// The pixels of a task, and their outputs: each a quarter of a 1 MiB L2 cache. Pixels may take more
// where otherwise too few of them shared weights from beyond it.
constexpr std::int64_t kBlockBytes = 256 << 10;
constexpr std::int64_t kMostBlockBytes = 1 << 20;
constexpr std::int64_t kFewestPixels = 56;
constexpr std::int64_t kMostPixels = 1024;

// Tiles of fewer are not worth their weights, for the sake of an even cut.
constexpr std::int64_t kFewestTilePixels = 8;

// Rows of strided pixels in place should have more.
constexpr std::int64_t kShortRow = 4;

template <class T>
class PointwiseChannelsPlan final : public RowsPlan {
 public:
  explicit PointwiseChannelsPlan(ConvProblem problem_in)
      : RowsPlan(std::move(problem_in)), table_(kernels<T>()), panels_(problem(), table_) {
    const ConvProblem& p = problem();
    const std::int64_t element = sizeof(T);
    const std::int64_t in_bytes = most_in_channels(p) * element;
    const std::int64_t out_bytes = most_out_channels(p) * element;
    pixels_ = std::clamp<std::int64_t>(kBlockBytes / std::max(in_bytes, out_bytes), 1, kMostPixels);
    pixels_ = std::max(pixels_, std::min(kFewestPixels, kMostBlockBytes / in_bytes));
    pitch_ = in_bytes / element;
    // 512 channels are 1.05 to 1.2 times as fast so. In place, pixels 4 KiB apart did no harm.
    if (crowds_sets<T>(pitch_)) pitch_ += kAlignment / element;
  }

  std::string name() const override { return "pointwise"; }
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
    const ConvProblem& p = problem();
    ConvArrays contiguous{};
    contiguous.x_strides = contiguous_strides(p, p.in_channels, &Axis::in);
    contiguous.out_strides = contiguous_strides(p, p.out_channels, &Axis::out);
    return partition_of(blocking(make_reading(contiguous).flat, threads)).text();
  }

  std::string reason() const override {
    return "a 1x1 kernel reads its input where it stands; lanes are output channels";
  }

  void run(const ConvArrays& arrays, int threads) const override {
    const std::size_t bytes = carve(nullptr).bytes;
    const Workspace workspace(bytes * static_cast<std::size_t>(threads));
    const Reading reading = make_reading(arrays);
    const Blocking blocks = blocking(reading.flat, threads);
    const auto partition = partition_of(blocks);
    parallel_for(partition.tasks(), threads, [&](std::int64_t task, int thread) {
      const auto [image, group, block, part] = partition.at(task);
      Place at;
      at.image = image;
      at.group = static_cast<std::size_t>(group);
      at.begin = blocks.units.begin(block) * blocks.unit;
      at.end = blocks.units.end(block) * blocks.unit;
      const Split panels = Split::by_count(panels_.of(at.group).count(), blocks.parts);
      at.panel = panels.begin(part);
      at.panel_end = panels.end(part);
      if (at.panel == at.panel_end) return;  // another group has more
      run_task(arrays, at, reading,
               carve(workspace.get() + static_cast<std::size_t>(thread) * bytes));
    });
  }

  std::size_t rows_workspace_bytes() const override { return workspace_bytes(1); }

  void run_rows(const ConvArrays& arrays, std::int64_t begin, std::int64_t end,
                void* workspace) const override {
    const std::int64_t width = problem().axes[2].out;
    const Reading reading = make_reading(arrays);
    const Split blocks = Split::by_limit((end - begin) * width, pixels_);
    for (std::size_t group = 0; group < problem().groups.size(); ++group) {
      for (std::int64_t block = 0; block < blocks.count(); ++block) {
        const Place at{0,
                       group,
                       begin * width + blocks.begin(block),
                       begin * width + blocks.end(block),
                       0,
                       panels_.of(group).count()};
        run_task(arrays, at, reading, carve(workspace));
      }
    }
  }

 private:
  struct Scratch {
    T* copy;
    T* sums;
    std::size_t bytes;
  };

  // How all tasks of a call meet its arrays.
  struct Reading {
    bool flat;      // all pixels that a tile meets are equally far from the next
    bool in_place;  // without a copy of the input
    bool by_rows;   // a copy is made row by row
    bool ends;      // in registers
    std::int64_t x_step;
    std::int64_t out_step;
    std::int64_t residual_step;
  };

  // How the work is cut, which depends on the number of threads; the results do not.
  struct Blocking {
    std::int64_t unit;  // pixels that stay together
    Split units;
    std::int64_t parts;  // of a group's panels
  };

  Blocking blocking(bool flat, int threads) const {
    const ConvProblem& p = problem();
    const std::int64_t others = p.batch * static_cast<std::int64_t>(p.groups.size());
    // Whole rows, where pixels of two are in no tile together.
    const std::int64_t width = p.axes[2].out;
    Blocking blocks;
    blocks.unit = !flat && width <= pixels_ ? width : 1;
    const std::int64_t units = p.out_pixels() / blocks.unit;
    const std::int64_t most = blocks.unit > 1 ? units : ceil_div(units, kFewestTilePixels);
    blocks.units = Split::by_count(
        units, even_blocks(ceil_div(units, pixels_ / blocks.unit), others, most, threads));
    // Threads share the panels where pixels are too few for them.
    blocks.parts = others * most < threads ? std::min<std::int64_t>(threads, panels_.most()) : 1;
    return blocks;
  }

  Partition<4> partition_of(const Blocking& blocks) const {
    return Partition({{"images", problem().batch},
                      {"groups", static_cast<std::int64_t>(problem().groups.size())},
                      {"blocks of pixels", blocks.units.count()},
                      {"blocks of output channels", blocks.parts}});
  }

  // Pixels [begin, end) of one image under some panels of one group.
  struct Place {
    std::int64_t image;
    std::size_t group;
    std::int64_t begin;
    std::int64_t end;
    std::int64_t panel;
    std::int64_t panel_end;
  };

  Scratch carve(void* base) const {
    Carver carver(base);
    Scratch scratch;
    scratch.copy = carver.take<T>(pixels_ * pitch_);
    scratch.sums = carver.take<T>(pixels_ * panels_.vectors() * table_.lanes);
    scratch.bytes = carver.used();
    return scratch;
  }

  Reading make_reading(const ConvArrays& arrays) const {
    const ConvProblem& p = problem();
    const Strides steps = output_steps(problem(), arrays.x_strides);
    const auto x = pixel_stride(p, steps);
    const auto out = pixel_stride(p, arrays.out_strides);
    const auto residual = pixel_stride(p, arrays.residual_strides);
    const bool ends_flat = out && (!arrays.residual || residual);
    Reading reading;
    reading.by_rows = !x;
    reading.x_step = x ? *x : steps.axis[2];
    const bool copies_rows =
        !x && (shares_a_set<T>(reading.x_step) || (ends_flat && p.axes[2].out <= kShortRow));
    reading.in_place = steps.channel == 1 && !copies_rows;
    reading.flat = ends_flat && (x || !reading.in_place);
    reading.out_step = reading.flat ? *out : arrays.out_strides.axis[2];
    reading.residual_step = reading.flat && residual ? *residual : arrays.residual_strides.axis[2];
    reading.ends = channels_end_in_output(p, arrays);
    return reading;
  }

  // Where a pixel stands, given the strides of pixels.
  std::int64_t offset(const Strides& strides, std::int64_t pixel) const {
    const std::int64_t height = problem().axes[1].out;
    const std::int64_t width = problem().axes[2].out;
    const std::int64_t row = pixel / width;
    return row / height * strides.axis[0] + row % height * strides.axis[1] +
           pixel % width * strides.axis[2];
  }

  void run_task(const ConvArrays& arrays, const Place& at, const Reading& reading,
                const Scratch& scratch) const {
    const std::int64_t width = problem().axes[2].out;
    for (std::int64_t pixel = at.begin; pixel < at.end;) {
      Place run = at;
      run.begin = pixel;
      if (!reading.flat) run.end = std::min(at.end, (pixel / width + 1) * width);
      run_pixels(arrays, run, reading, scratch);
      pixel = run.end;
    }
  }

  // Pixels that are equally far from each other.
  void run_pixels(const ConvArrays& arrays, const Place& at, const Reading& reading,
                  const Scratch& scratch) const {
    const Group& group = problem().groups[at.group];
    const Strides steps = output_steps(problem(), arrays.x_strides);
    const T* const image =
        static_cast<const T*>(arrays.x) + at.image * steps.batch + group.in_begin * steps.channel;
    WindowTileArgs<T> tile{};
    if (reading.in_place) {
      tile.a = image + offset(steps, at.begin);
      tile.a_row = reading.x_step;
    } else {
      PixelRowArgs<T> copy{};
      copy.channel_stride = steps.channel;
      copy.column_stride = reading.x_step;
      copy.step = copy.phases = 1;
      copy.pitch = pitch_;
      copy.block_pitch = kChannelBlock;
      copy.channels = group.in_channels;
      copy.to = scratch.copy;
      const std::int64_t width = problem().axes[2].out;
      for (std::int64_t pixel = at.begin; pixel < at.end; pixel += copy.count) {
        const std::int64_t end =
            reading.by_rows ? std::min(at.end, (pixel / width + 1) * width) : at.end;
        copy.column_in = copy.count = copy.last = end - pixel;
        copy.from = image + offset(steps, pixel);
        table_.pixel_row(copy);
        copy.to += copy.count * pitch_;
      }
      tile.a = scratch.copy;
      tile.a_row = pitch_;
    }
    const WindowRow channels{0, 0};
    tile.rows = &channels;
    tile.row_count = 1;
    tile.length = group.in_channels;
    for (std::int64_t panel = at.panel; panel < at.panel_end; ++panel) {
      run_panel(arrays, at, reading, tile, panel, scratch);
    }
  }

  void run_panel(const ConvArrays& arrays, const Place& at, const Reading& reading,
                 WindowTileArgs<T> tile, std::int64_t panel, const Scratch& scratch) const {
    const Group& group = problem().groups[at.group];
    const Split& panels = panels_.of(at.group);
    const std::int64_t vectors = panels.size(panel);
    const std::int64_t width = vectors * table_.lanes;
    const std::int64_t first = panels.begin(panel) * table_.lanes;
    const std::int64_t channels = std::min(width, group.out_channels - first);
    const std::int64_t channel = group.out_begin + first;
    tile.b = panels_.find(arrays.packed_weights, at.group, panel);
    tile.c_stride = width;
    TileEnd<T> end{};
    if (reading.ends) {
      end = panel_end(problem(), arrays, table_, channel, channels, reading.out_step,
                      reading.residual_step);
      tile.end = &end;
    }
    const auto place = [&](const Strides& strides) {
      return at.image * strides.batch + channel + offset(strides, at.begin);
    };
    const std::int64_t residual = arrays.residual ? place(arrays.residual_strides) : 0;
    const std::int64_t out = place(arrays.out_strides);
    const bool low = ends_low(table_, channels);
    const T* const pixels = tile.a;
    const Split tiles = Split::by_limit(at.end - at.begin, table_.channels_rows[vectors - 1]);
    const bool asks_for_weights = panels_.bytes() > kL2WeightBytes && panel + 1 < at.panel_end;
    const std::int64_t weight_lines = ceil_div(width, tiles.count());
    for (std::int64_t part = 0; part < tiles.count(); ++part) {
      const std::int64_t pixel = tiles.begin(part);
      tile.a = pixels + pixel * tile.a_row;
      // The first panel meets pixels that no cache has, perhaps. Weights of the next one follow
      // those at hand, as many lines for every line of a pixel as it has columns.
      if (panel == at.panel && reading.in_place && tile.a_row == group.in_channels) {
        tile.ahead = pixels + tiles.end(part) * tile.a_row;
        tile.lines_ahead = tiles.size(part);
      } else if (asks_for_weights) {
        constexpr std::int64_t line = kAlignment / sizeof(T);
        const std::int64_t pixel_lines = ceil_div(group.in_channels, line);
        tile.ahead = tile.b + width * group.in_channels + part * weight_lines * pixel_lines * line;
        tile.lines_ahead = part * weight_lines < width ? weight_lines : 0;
      }
      if (reading.ends) {
        if (arrays.residual) {
          end.residual =
              static_cast<const T*>(arrays.residual) + residual + pixel * reading.residual_step;
        }
        end.out = static_cast<T*>(arrays.out) + out + pixel * reading.out_step;
      } else {
        tile.c = scratch.sums + pixel * width;
      }
      table_.window_tile[low][tiles.size(part) - 1][vectors - 1](tile);
    }
    if (reading.ends) return;
    const SumsBlock<T> sums{scratch.sums, width,    true,     at.image,
                            channel,      channels, at.begin, at.end};
    send_sums(problem(), table_, arrays, sums);
  }

  const KernelTable<T>& table_;
  ChannelPanels<T> panels_;
  std::int64_t pixels_ = 1;  // of a task
  std::int64_t pitch_ = 1;   // of copied pixels
};

}  // namespace

std::unique_ptr<Plan> plan_pointwise_channels(ConvProblem problem) {
  return plan_of_dtype<PointwiseChannelsPlan>(std::move(problem));
}

}  // namespace pyconv
