// Convolutions of which each reads what the one before writes, computed in one pass.
//
// An image is cut into blocks of output rows. Between two convolutions stands a buffer of the rows
// that one block needs, small enough for the cache; the tensors themselves never exist:
//
//       x            buffer          buffer           out
//    +------+       +-------+       +-------+       +------+
//    |      |       | kept  |       |       |       |      |
//    | rows | expand|-------|  3x3  | block | project      |
//    |      | ----> | block | ----> +-------+ ----> | block|
//    +------+       +-------+                       +------+
//
// Rows that the windows of two blocks share are kept at the top of the buffer, not computed again.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "algorithms/algorithm.hpp"
#include "core/partition.hpp"
#include "core/split.hpp"

namespace pyconv {

class FusedPlan {
 public:
  static constexpr std::size_t kMostStages = 3;

  // The problems agree in everything but channels, window and activation, and have no depth. The
  // algorithm is one for make_plan, and every stage's.
  FusedPlan(std::vector<ConvProblem> problems, const std::string& algorithm);

  const std::vector<std::unique_ptr<Plan>>& stages() const { return stages_; }
  // The first and the last problem, as they were given.
  const ConvProblem& first() const { return first_; }
  const ConvProblem& last() const { return last_; }

  std::string name() const;
  std::string tile() const;
  std::string partition(int threads) const;
  std::string reason() const;
  int useful_threads(int limit) const;
  std::size_t workspace_bytes(int threads) const;

  // One ConvArrays per stage: the first has x, the last has residual and out, all have weights and
  // bias.
  void run(const std::vector<ConvArrays>& arrays, int threads) const;

 private:
  struct Buffers;
  std::int64_t element() const { return element_bytes(first_.dtype); }

  Range rows_under(std::size_t stage, Range out) const;
  std::int64_t most_rows_under(std::size_t stage, std::int64_t out_rows) const;
  Strides buffer_strides(std::size_t stage, std::int64_t rows) const;
  std::size_t buffer_bytes(std::size_t stage, std::int64_t rows) const;
  std::size_t buffers_bytes(std::int64_t out_rows) const;
  std::int64_t choose_rows() const;
  Split ranges(int threads) const;
  Partition<2> partition_of(const Split& ranges) const;
  bool is_whole(int threads) const;
  std::size_t whole_bytes() const;
  std::size_t stage_workspace_bytes() const;

  void run_whole(std::vector<ConvArrays> arrays, int threads) const;
  void run_range(const std::vector<ConvArrays>& arrays, std::int64_t image, Range range,
                 void* workspace) const;
  void compute(Buffers& buffers, std::size_t stage, Range rows) const;

  ConvProblem first_;
  ConvProblem last_;
  bool channels_inside_;
  std::vector<std::unique_ptr<Plan>> stages_;  // for one image
  std::vector<const RowsPlan*> by_rows_;       // the same, or empty where one cannot
  std::int64_t rows_ = 0;                      // output rows of a block
};

}  // namespace pyconv
