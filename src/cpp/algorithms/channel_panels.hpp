// Packed weights where lanes are output channels: the layout "channels", which plans share.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "algorithms/common.hpp"

namespace pyconv {

// Per group, one panel after the other of up to tile_vectors vectors of output channels: [k][width]
// in accumulation order.
template <class T>
class ChannelPanels {
 public:
  struct GroupPanels {
    Split vectors;        // of output channels, in panels
    std::int64_t depth;   // k
    std::int64_t offset;  // of the first panel
  };

  ChannelPanels(const ConvProblem& problem, const KernelTable<T>& table)
      : problem_(problem), table_(table) {
    for (const Group& group : problem.groups) {
      const std::int64_t vectors = ceil_div(group.out_channels, table.lanes);
      groups_.push_back({Split::by_limit(vectors, table.tile_vectors),
                         group.in_channels * problem.taps(), elements_});
      elements_ += vectors * table.lanes * groups_.back().depth;
    }
  }

  const GroupPanels& of(std::size_t group) const { return groups_[group]; }
  std::int64_t bytes() const { return elements_ * std::int64_t(sizeof(T)); }

  // Panels of the group that has the most.
  std::int64_t most() const {
    std::int64_t panels = 0;
    for (const GroupPanels& group : groups_) panels = std::max(panels, group.vectors.count());
    return panels;
  }

  void pack(const std::vector<WeightView>& weights, void* packed) const {
    for (std::size_t g = 0; g < weights.size(); ++g) {
      pack_panels(problem_, weights[g], problem_.groups[g], groups_[g].vectors, table_.lanes,
                  table_, static_cast<T*>(packed) + groups_[g].offset);
    }
  }

  std::string tile() const {
    std::int64_t vectors = 0;
    for (const GroupPanels& group : groups_) vectors = std::max(vectors, group.vectors.largest());
    if (vectors < 1) return "none";
    return std::to_string(table_.channels_rows[vectors - 1]) + " pixels x " +
           std::to_string(vectors * table_.lanes) + " channels";
  }

 private:
  const ConvProblem& problem_;
  const KernelTable<T>& table_;
  std::vector<GroupPanels> groups_;
  std::int64_t elements_ = 0;
};

}  // namespace pyconv
