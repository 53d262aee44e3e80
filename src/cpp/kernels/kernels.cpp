// Compiled once per instruction set: CMakeLists.txt defines PYCONV_ISA (a namespace) and
// PYCONV_VEC_HEADER, and sets the compiler's instruction-set options.
#include PYCONV_VEC_HEADER

#include "kernels/gemm-inl.hpp"

#include "kernels/depthwise_channels-inl.hpp"
#include "kernels/depthwise_pixels-inl.hpp"
#include "kernels/depthwise_plane-inl.hpp"
#include "kernels/direct-inl.hpp"
#include "kernels/direct_channels-inl.hpp"
#include "kernels/epilogue-inl.hpp"
#include "kernels/grouped-inl.hpp"
#include "kernels/packing-inl.hpp"
#include "kernels/strided-inl.hpp"
#include "kernels/winograd-inl.hpp"

namespace pyconv::PYCONV_ISA {

template <class T>
constexpr KernelTable<T> make_table() noexcept {
  KernelTable<T> table{};
  table.lanes = Vec<T>::lanes;
  table.tile_rows = Tile<T>::rows;
  table.tile_vectors = Tile<T>::vectors;
  fill_tiles<T, true>(table.gemm_interleaved);
  fill_tiles<T, false>(table.gemm_row_major);
  fill_direct<T>(table.direct, table.direct_vectors);
  table.pad_plane = pad_plane<T>;
  fill_channels<T>(table);
  table.pack_pixel_columns = pack_pixel_columns<T>;
  table.pack_pixel_rows = pack_pixel_rows<T>;
  table.split_rows = split_rows<T>;
  table.transpose = transpose<T>;
  table.epilogue = epilogue<T>;
  fill_depthwise_pixels<T>(table);
  fill_depthwise_planes<T>(table);
  fill_depthwise_channels<T>(table);
  fill_grouped<T>(table);
  table.copy_strided = copy_strided<T>;
  table.winograd_vectors = kWinogradVectors;
  fill_winograd_tiles<T>(table);
  fill_winograd_transforms<T>(table);
  table.fma_probe = fma_probe<T>;
  return table;
}

extern const KernelTable<float> kFloat32 = make_table<float>();
extern const KernelTable<double> kFloat64 = make_table<double>();

}  // namespace pyconv::PYCONV_ISA
