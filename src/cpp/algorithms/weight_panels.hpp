// Packed weights in panels as wide as a tile: the layouts that plans share.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "algorithms/common.hpp"

namespace pyconv {

// Per group, one panel after the other of up to `limit` units of `unit` output channels: [k][width]
// in accumulation order.
template <class T>
class WeightPanels {
 public:
  WeightPanels(const ConvProblem& problem, const KernelTable<T>& table, std::int64_t unit,
               std::int64_t limit, Split (*cut)(std::int64_t, std::int64_t))
      : problem_(problem), table_(table), unit_(unit) {
    for (const Group& group : problem.groups) {
      const std::int64_t units = ceil_div(group.out_channels, unit);
      groups_.push_back({cut(units, limit), group.in_channels * problem.taps(), elements_});
      elements_ += units * unit * groups_.back().depth;
    }
  }

  // The units of a group, in panels.
  const Split& of(std::size_t group) const { return groups_[group].units; }
  std::int64_t bytes() const { return elements_ * std::int64_t(sizeof(T)); }

  // Panels of the group that has the most.
  std::int64_t most() const {
    std::int64_t panels = 0;
    for (const GroupPanels& group : groups_) panels = std::max(panels, group.units.count());
    return panels;
  }

  const T* find(const void* packed, std::size_t group, std::int64_t panel) const {
    const auto& [units, depth, offset] = groups_[group];
    return static_cast<const T*>(packed) + offset + units.begin(panel) * unit_ * depth;
  }

  void pack(const std::vector<WeightView>& weights, void* packed) const {
    for (std::size_t g = 0; g < weights.size(); ++g) {
      pack_panels(problem_, weights[g], problem_.groups[g], groups_[g].units, unit_, table_,
                  static_cast<T*>(packed) + groups_[g].offset);
    }
  }

 protected:
  struct GroupPanels {
    Split units;          // of output channels, in panels
    std::int64_t depth;   // k
    std::int64_t offset;  // of the first panel
  };

  // Of the widest panel.
  std::int64_t most_units() const {
    std::int64_t units = 0;
    for (const GroupPanels& group : groups_) units = std::max(units, group.units.largest());
    return units;
  }

  const ConvProblem& problem_;
  const KernelTable<T>& table_;
  std::int64_t unit_;
  std::vector<GroupPanels> groups_;
  std::int64_t elements_ = 0;
};

// Where lanes are pixels: row tiles of output channels.
template <class T>
class RowTiles : public WeightPanels<T> {
 public:
  RowTiles(const ConvProblem& problem, const KernelTable<T>& table)
      : WeightPanels<T>(problem, table, 1, table.tile_rows, Split::by_limit) {}

  static std::string packing() { return "rows"; }

  // Of the kernels that take as many vectors as fit the registers.
  std::string tile() const {
    const KernelTable<T>& table = this->table_;
    const std::int64_t rows = this->most_units();
    return std::to_string(rows) + " channels x " +
           std::to_string(table.direct_vectors[rows - 1] * table.lanes) + " pixels";
  }
};

// Where lanes are output channels: vectors of them, usually as many to a panel as tiles of every
// instruction set can take.
template <class T>
class ChannelPanels : public WeightPanels<T> {
 public:
  static constexpr std::int64_t kUsualVectors = 3;

  ChannelPanels(const ConvProblem& problem, const KernelTable<T>& table)
      : ChannelPanels(problem, table, kUsualVectors) {}
  ChannelPanels(const ConvProblem& problem, const KernelTable<T>& table, std::int64_t vectors)
      : WeightPanels<T>(problem, table, table.lanes, vectors, Split::by_limit_even),
        vectors_(vectors) {}

  std::int64_t vectors() const { return vectors_; }  // of the widest

  std::string packing() const {
    const bool usual = vectors_ == kUsualVectors;
    return usual ? "channels" : "channels/" + std::to_string(vectors_);
  }

  std::string tile() const {
    const KernelTable<T>& table = this->table_;
    const std::int64_t vectors = this->most_units();
    return std::to_string(table.channels_rows[vectors - 1]) + " pixels x " +
           std::to_string(vectors * table.lanes) + " channels";
  }

 private:
  std::int64_t vectors_;
};

}  // namespace pyconv
