// An algorithm turns a ConvProblem into a Plan: everything that can be decided before data arrives.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/problem.hpp"

namespace pyconv {

// One group's weights (out_channels, in_channels, depth, height, width); strides in elements.
struct WeightView {
  const void* data;
  std::int64_t out_stride;
  std::int64_t in_stride;
  std::int64_t axis_stride[kSpatialAxes];
};

struct ConvArrays {
  const void* x;
  Strides x_strides;
  bool x_ends_in_whole_lines;  // 64 bytes at the end of a channel's pixels may be read at once
  const void* packed_weights;
  const void* bias;      // contiguous, or null
  const void* residual;  // or null
  Strides residual_strides;
  void* out;
  Strides out_strides;
};

class Plan {
 public:
  explicit Plan(ConvProblem problem) : problem_(std::move(problem)) {}
  virtual ~Plan() = default;
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;

  const ConvProblem& problem() const { return problem_; }

  virtual std::string name() const = 0;

  // Names the layout of packed weights. Plans of equal packing for the same weights share them.
  virtual std::string packing() const = 0;
  virtual std::size_t packed_bytes() const = 0;
  // `weights` holds one view per group. `packed` is 64-byte aligned.
  virtual void pack(const std::vector<WeightView>& weights, void* packed) const = 0;

  // How many threads a call with `limit` threads would use: fewer where there is too little work.
  virtual int useful_threads(int limit) const;
  virtual std::size_t workspace_bytes(int threads) const = 0;
  virtual std::string tile() const = 0;
  virtual std::string reason() const = 0;

  // How a call with so many threads cuts its work. There must be outputs.
  virtual std::string partition(int threads) const = 0;
  // There must be outputs.
  virtual void run(const ConvArrays& arrays, int threads) const = 0;

 private:
  ConvProblem problem_;
};

// A plan that can also compute its output a few rows at a time, for callers that compute several
// convolutions together: `rows` are positions of the height axis, of a problem with one image and
// no depth.
class RowsPlan : public Plan {
 public:
  using Plan::Plan;

  // Memory that run_rows needs; aligned to 64 bytes.
  virtual std::size_t rows_workspace_bytes() const = 0;
  // Computes the output rows [begin, end) on the calling thread and allocates nothing. Reads no
  // other input rows than those under their windows, writes no other output rows.
  virtual void run_rows(const ConvArrays& arrays, std::int64_t begin, std::int64_t end,
                        void* workspace) const = 0;
};

struct Algorithm {
  const char* name;
  // Whether its sums are the one chain that core/types.hpp documents, bit for bit.
  bool direct;
  // Why the algorithm cannot serve the problem; empty if it can.
  std::string (*refuses)(const ConvProblem&);
  // Whether it is faster than those that follow, for a problem that it can serve and that has
  // outputs and inputs. Looks at one image alone: never at the batch, threads or the machine.
  bool (*pays)(const ConvProblem&);
  // Of a problem of which the same holds, but for the batch.
  std::unique_ptr<Plan> (*plan)(ConvProblem);
};

// In the order of preference; the last one serves every problem.
const std::vector<Algorithm>& algorithms();

// The plan of the first algorithm that serves the problem and pays ("auto"; "auto_direct" looks at
// direct ones only), or of the named one. Throws std::invalid_argument with the reason where the
// named one cannot.
std::unique_ptr<Plan> make_plan(ConvProblem problem, const std::string& algorithm);

// What a convolution takes per input channel, tap and output pixel, in multiply-adds of one lane of
// float32, where vectors have 16: a model that was fitted to some 6000 layers of 1 to 128 channels.
class LaneCosts {
 public:
  explicit LaneCosts(const ConvProblem& problem);

  // Of `direct`, whose lanes are pixels.
  double pixels(std::int64_t in_channels, std::int64_t out_channels) const;
  // Of `direct_channels`, whose lanes are output channels.
  double channels(std::int64_t in_channels, std::int64_t out_channels) const;

 private:
  bool channels_last_;
  double taps_;
  double width_;
  double pitch_;          // of rows, as a multiple of their width
  double copy_;           // what the copy takes per output pixel
  double channel_bytes_;  // of a block's copy of one
  double inside_;         // share of taps that are not in zero padding
  double read_ = 1;       // input pixels per output pixel
};

std::string depthwise_refuses(const ConvProblem& problem);
bool depthwise_pays(const ConvProblem& problem);
std::unique_ptr<Plan> plan_depthwise(ConvProblem problem);
std::string direct_refuses(const ConvProblem& problem);
bool direct_pays(const ConvProblem& problem);
std::unique_ptr<Plan> plan_direct(ConvProblem problem);
std::string direct_channels_refuses(const ConvProblem& problem);
bool direct_channels_pays(const ConvProblem& problem);
std::unique_ptr<Plan> plan_direct_channels(ConvProblem problem);
std::string grouped_refuses(const ConvProblem& problem);
bool grouped_pays(const ConvProblem& problem);
std::unique_ptr<Plan> plan_grouped(ConvProblem problem);
std::string pointwise_refuses(const ConvProblem& problem);
bool pointwise_pays(const ConvProblem& problem);
std::unique_ptr<Plan> plan_pointwise(ConvProblem problem);
std::unique_ptr<Plan> plan_im2col_gemm(ConvProblem problem);
std::unique_ptr<Plan> plan_reference(ConvProblem problem);

std::unique_ptr<Plan> plan_winograd(ConvProblem problem);
std::string winograd_refuses(const ConvProblem& problem);
bool winograd_pays(const ConvProblem& problem);

}  // namespace pyconv
