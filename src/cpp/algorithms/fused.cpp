#include "algorithms/fused.hpp"

#include <algorithm>
#include <array>
#include <cstring>

#include "algorithms/common.hpp"
#include "core/parallel.hpp"
#include "core/workspace.hpp"

namespace pyconv {
namespace {

// What the buffers of a block may hold together: they share an L2 cache with weights and arrays.
// 448 KiB were up to 5 % faster than 256 KiB (deep layers read their weights less often), and
// never slower, with 1 MiB of L2.
constexpr std::size_t kBuffersBytes = 448 << 10;

// Blocks of this many rows leave no tile of the depthwise kernels half empty.
constexpr std::int64_t kRowsWherePixelsAreLanes[] = {7, 4, 2, 1};
constexpr std::int64_t kRowsWhereChannelsAreLanes[] = {2, 1};

// Smaller planes would leave too many lanes empty where these are pixels.
constexpr std::int64_t kLeastPixels = 128;

// Among the direct algorithms, whose bits are the same, only some go by rows. The input of a
// 1x1 kernel stands in a near buffer, where it may be read or copied from.
std::unique_ptr<Plan> plan_stage(const ConvProblem& problem, const std::string& algorithm) {
  if (algorithm != "auto" && algorithm != "auto_direct") return make_plan(problem, algorithm);
  if (depthwise_refuses(problem).empty() && depthwise_pays(problem)) return plan_depthwise(problem);
  if (pointwise_refuses(problem).empty() &&
      (problem.channels_last || problem.out_pixels() >= kLeastPixels)) {
    return plan_pointwise(problem);
  }
  return plan_im2col_gemm(problem);
}

// Whether buffers have their channels next to each other also where the arrays have not. A 1x1
// convolution in front transposes its few input channels on their way in, and the last one its few
// output channels on their way out; inside, depthwise kernels then read whole lines, and no lane is
// idle in small planes: 1.1 to 1.4 times on the blocks of MobileNetV2.
bool lanes_are_channels_inside(const std::vector<ConvProblem>& problems) {
  const auto fills_lanes = [](const ConvProblem& problem) { return problem.out_channels >= 16; };
  return pointwise_refuses(problems.front()).empty() && problems.front().groups.size() == 1 &&
         std::all_of(problems.begin(), problems.end(), fills_lanes);
}

std::byte* moved(void* base, std::int64_t elements, std::int64_t element) {
  return static_cast<std::byte*>(base) + elements * element;
}

const std::byte* moved(const void* base, std::int64_t elements, std::int64_t element) {
  return base ? static_cast<const std::byte*>(base) + elements * element : nullptr;
}

}  // namespace

// What one thread works with: the arrays of one image, the buffers, and which rows they hold.
struct FusedPlan::Buffers {
  std::array<ConvArrays, kMostStages> arrays;
  std::array<void*, kMostStages> memory;  // of the output of each stage but the last
  std::array<Range, kMostStages> held;
  void* workspace;  // of the stages
};

FusedPlan::FusedPlan(std::vector<ConvProblem> problems, const std::string& algorithm)
    : first_(problems.front()),
      last_(problems.back()),
      channels_inside_(first_.channels_last || lanes_are_channels_inside(problems)) {
  bool by_rows = true;
  for (ConvProblem& problem : problems) {
    problem.batch = 1;
    problem.channels_last = channels_inside_;
    const bool padded_by_values = problem.padding_mode != PaddingMode::zeros;
    if (!stages_.empty() && padded_by_values) by_rows = false;  // which a buffer may not hold
    stages_.push_back(plan_stage(problem, algorithm));
    const auto* plan = dynamic_cast<const RowsPlan*>(stages_.back().get());
    by_rows_.push_back(plan);
    by_rows = by_rows && plan != nullptr;
  }
  if (!by_rows) by_rows_.clear();
  rows_ = choose_rows();
}

std::string FusedPlan::name() const {
  std::string names;
  for (const auto& stage : stages_) names += (names.empty() ? "" : " + ") + stage->name();
  return names;
}

std::string FusedPlan::tile() const {
  std::string tiles;
  for (const auto& stage : stages_) tiles += (tiles.empty() ? "" : ", then ") + stage->tile();
  return tiles;
}

std::string FusedPlan::partition(int threads) const {
  if (!is_whole(threads)) return partition_of(ranges(threads)).text();
  std::string partitions;
  for (const auto& stage : stages_) {
    partitions += (partitions.empty() ? "" : ", then ") + stage->partition(threads);
  }
  return (first_.batch > 1 ? std::to_string(first_.batch) + " images, each " : "") + partitions;
}

std::string FusedPlan::reason() const {
  if (by_rows_.empty()) return "whole images, one part after the other: not all can go by rows";
  return "one pass: blocks of " + std::to_string(rows_) + " output rows stay in the cache";
}

int FusedPlan::useful_threads(int limit) const {
  std::int64_t worth = 1;
  for (const auto& stage : stages_) {
    worth += first_.batch * stage->problem().macs() / kMacsPerThread;
  }
  return static_cast<int>(std::min<std::int64_t>(limit, worth));
}

std::size_t FusedPlan::workspace_bytes(int threads) const {
  if (is_whole(threads)) {
    std::size_t most = 0;
    for (const auto& stage : stages_) most = std::max(most, stage->workspace_bytes(threads));
    return whole_bytes() + most;
  }
  return static_cast<std::size_t>(threads) * (buffers_bytes(rows_) + stage_workspace_bytes());
}

void FusedPlan::run(const std::vector<ConvArrays>& arrays, int threads) const {
  if (is_whole(threads)) return run_whole(arrays, threads);
  const std::size_t bytes = buffers_bytes(rows_) + stage_workspace_bytes();
  const Workspace workspace(static_cast<std::size_t>(threads) * bytes);
  const Split parts = ranges(threads);
  const auto partition = partition_of(parts);
  parallel_for(partition.tasks(), threads, [&](std::int64_t task, int thread) {
    const auto [image, part] = partition.at(task);
    run_range(arrays, image, {parts.begin(part), parts.end(part)},
              workspace.get() + static_cast<std::size_t>(thread) * bytes);
  });
}

// The rows of a stage's input that its output rows `out` read.
Range FusedPlan::rows_under(std::size_t stage, Range out) const {
  return stages_[stage]->problem().axes[1].inputs_under(out.begin, out.end);
}

std::int64_t FusedPlan::most_rows_under(std::size_t stage, std::int64_t out_rows) const {
  const Axis& axis = stages_[stage]->problem().axes[1];
  return std::min(axis.in, axis.span(out_rows));
}

// Of `rows` rows of the output of a stage, in the layout of the arrays.
Strides FusedPlan::buffer_strides(std::size_t stage, std::int64_t rows) const {
  const ConvProblem& p = stages_[stage]->problem();
  const std::int64_t width = p.axes[2].out;
  Strides strides;
  if (channels_inside_) {
    strides.channel = 1;
    strides.axis[2] = p.out_channels;
  } else {
    strides.channel = odd_lines(rows * width, std::int64_t(kAlignment) / element());
    strides.axis[2] = 1;
  }
  strides.axis[1] = width * strides.axis[2];
  return strides;
}

std::size_t FusedPlan::buffer_bytes(std::size_t stage, std::int64_t rows) const {
  const Strides strides = buffer_strides(stage, rows);
  const ConvProblem& p = stages_[stage]->problem();
  const std::int64_t elements =
      channels_inside_ ? rows * strides.axis[1] : p.out_channels * strides.channel;
  return align_up(static_cast<std::size_t>(elements * element()));
}

// Of all buffers of a block of `out_rows`.
std::size_t FusedPlan::buffers_bytes(std::int64_t out_rows) const {
  std::size_t bytes = 0;
  for (std::size_t stage = stages_.size() - 1; stage > 0; --stage) {
    out_rows = most_rows_under(stage, out_rows);
    bytes += buffer_bytes(stage - 1, out_rows);
  }
  return bytes;
}

std::int64_t FusedPlan::choose_rows() const {
  const std::int64_t out = std::max<std::int64_t>(1, last().axes[1].out);
  std::int64_t most = 1;
  for (std::int64_t too_many = out + 1; too_many - most > 1;) {
    const std::int64_t middle = most + (too_many - most) / 2;
    (buffers_bytes(middle) <= kBuffersBytes ? most : too_many) = middle;
  }
  if (most == out) return out;
  const auto fitting = [most](const auto& units) {
    for (const std::int64_t unit : units) {
      if (unit <= most) return most / unit * unit;
    }
    return most;
  };
  return channels_inside_ ? fitting(kRowsWhereChannelsAreLanes) : fitting(kRowsWherePixelsAreLanes);
}

// Parts of an image's output rows, each of which one thread computes from top to bottom.
Split FusedPlan::ranges(int threads) const {
  const std::int64_t rows = last().axes[1].out;
  return Split::by_count(rows, even_blocks(1, first_.batch, rows, threads));
}

Partition<2> FusedPlan::partition_of(const Split& ranges) const {
  return Partition({{"images", first_.batch}, {"ranges of rows", ranges.count()}});
}

// Whether to compute image after image, stage after stage, with all threads: where whole images fit
// the buffers and are too few for the threads.
bool FusedPlan::is_whole(int threads) const {
  return by_rows_.empty() || (rows_ == last().axes[1].out && ranges(threads).count() > 1);
}

std::size_t FusedPlan::whole_bytes() const {
  std::size_t bytes = 0;
  for (std::size_t stage = 0; stage + 1 < stages_.size(); ++stage) {
    bytes += buffer_bytes(stage, stages_[stage]->problem().axes[1].out);
  }
  return bytes;
}

std::size_t FusedPlan::stage_workspace_bytes() const {
  std::size_t most = 0;
  for (const RowsPlan* stage : by_rows_) most = std::max(most, stage->rows_workspace_bytes());
  return align_up(most);
}

void FusedPlan::run_whole(std::vector<ConvArrays> arrays, int threads) const {
  const Workspace workspace(whole_bytes());
  auto* memory = workspace.get();
  for (std::size_t stage = 0; stage + 1 < stages_.size(); ++stage) {
    const std::int64_t rows = stages_[stage]->problem().axes[1].out;
    arrays[stage].out = memory;
    arrays[stage + 1].x = memory;
    arrays[stage].out_strides = arrays[stage + 1].x_strides = buffer_strides(stage, rows);
    memory += buffer_bytes(stage, rows);
  }
  ConvArrays& first = arrays.front();
  ConvArrays& end = arrays.back();
  for (std::int64_t image = 0; image < first_.batch; ++image) {
    for (std::size_t stage = 0; stage < stages_.size(); ++stage) {
      if (!stages_[stage]->problem().has_outputs()) continue;
      stages_[stage]->run(arrays[stage], threads);
    }
    first.x = moved(first.x, first.x_strides.batch, element());
    end.residual = moved(end.residual, end.residual_strides.batch, element());
    end.out = moved(end.out, end.out_strides.batch, element());
  }
}

void FusedPlan::run_range(const std::vector<ConvArrays>& arrays, std::int64_t image, Range range,
                          void* workspace) const {
  Buffers buffers;
  std::copy(arrays.begin(), arrays.end(), buffers.arrays.begin());
  auto* memory = static_cast<std::byte*>(workspace);
  std::int64_t rows = rows_;
  for (std::size_t stage = stages_.size() - 1; stage > 0; --stage) {
    rows = most_rows_under(stage, rows);
    buffers.memory[stage - 1] = memory;
    buffers.arrays[stage].x_ends_in_whole_lines = !channels_inside_;
    buffers.held[stage - 1] = {0, 0};
    buffers.arrays[stage - 1].out_strides = buffers.arrays[stage].x_strides =
        buffer_strides(stage - 1, rows);
    memory += buffer_bytes(stage - 1, rows);
  }
  buffers.workspace = memory;
  ConvArrays& first = buffers.arrays.front();
  ConvArrays& end = buffers.arrays[stages_.size() - 1];
  first.x = moved(first.x, image * first.x_strides.batch, element());
  end.residual = moved(end.residual, image * end.residual_strides.batch, element());
  end.out = moved(end.out, image * end.out_strides.batch, element());
  for (std::int64_t row = range.begin; row < range.end; row += rows_) {
    compute(buffers, stages_.size() - 1, {row, std::min(row + rows_, range.end)});
  }
}

// Computes output rows of a stage, and before that what is missing of the rows under them.
void FusedPlan::compute(Buffers& buffers, std::size_t stage, Range rows) const {
  if (stage > 0) {
    const std::size_t before = stage - 1;
    const Strides& strides = buffers.arrays[stage].x_strides;
    const Range needed = rows_under(stage, rows);
    Range& held = buffers.held[before];
    const std::int64_t kept = std::max<std::int64_t>(0, held.end - needed.begin);
    if (kept > 0) {
      const ConvProblem& p = stages_[before]->problem();
      const std::int64_t runs = channels_inside_ ? 1 : p.out_channels;
      for (std::int64_t run = 0; run < runs; ++run) {
        std::byte* const to = moved(buffers.memory[before], run * strides.channel, element());
        std::memmove(to, moved(to, (needed.begin - held.begin) * strides.axis[1], element()),
                     static_cast<std::size_t>(kept * strides.axis[1] * element()));
      }
    }
    const std::int64_t first_row = needed.begin * strides.axis[1];
    buffers.arrays[before].out = moved(buffers.memory[before], -first_row, element());
    buffers.arrays[stage].x = buffers.arrays[before].out;
    held = needed;
    const Range missing = {needed.begin + kept, needed.end};
    if (missing.begin < missing.end) compute(buffers, before, missing);
  }
  by_rows_[stage]->run_rows(buffers.arrays[stage], rows.begin, rows.end, buffers.workspace);
}

}  // namespace pyconv
