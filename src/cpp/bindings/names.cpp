#include "bindings/names.hpp"

#include <stdexcept>
#include <utility>

namespace pyconv {
namespace {

template <class Enum, std::size_t kCount>
Enum find(const std::pair<const char*, Enum> (&table)[kCount], const std::string& name) {
  for (const auto& [key, value] : table) {
    if (name == key) return value;
  }
  throw std::invalid_argument("unknown name " + name);
}

}  // namespace

DataType dtype_from_name(const std::string& name) {
  static constexpr std::pair<const char*, DataType> table[] = {
      {"float32", DataType::float32},
      {"float64", DataType::float64},
  };
  return find(table, name);
}

PaddingMode padding_mode_from_name(const std::string& name) {
  static constexpr std::pair<const char*, PaddingMode> table[] = {
      {"zeros", PaddingMode::zeros},
      {"reflect", PaddingMode::reflect},
      {"replicate", PaddingMode::replicate},
      {"circular", PaddingMode::circular},
  };
  return find(table, name);
}

ActivationKind activation_from_name(const std::string& name) {
  static constexpr std::pair<const char*, ActivationKind> table[] = {
      {"none", ActivationKind::none},
      {"relu", ActivationKind::relu},
      {"clip", ActivationKind::clip},
      {"leaky_relu", ActivationKind::leaky_relu},
      {"sigmoid", ActivationKind::sigmoid},
      {"tanh", ActivationKind::tanh},
      {"silu", ActivationKind::silu},
      {"hardswish", ActivationKind::hardswish},
      {"hardsigmoid", ActivationKind::hardsigmoid},
      {"gelu", ActivationKind::gelu},
  };
  return find(table, name);
}

}  // namespace pyconv
