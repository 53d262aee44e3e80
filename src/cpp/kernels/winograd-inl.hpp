// Winograd F(m x m, r x r) (Lavin, Gray 2015): y = A^T [(G g G^T) * (B^T d B)] A with a product per
// point, summed over input channels. A 6 x 6 input tile meets 3 x 3 weights in 36 multiplications
// instead of 144.
//
// The interpolation points are 0, +-a, +-b, infinity with a = 47/64 and b = 11/8. Points near
// a = 1/b = sqrt(1/2) leave the least error of all that were tried, a third of that of the usual
// 0, +-1, +-2 (Barabasz et al. 2020 has the theory). Of these, every coefficient of B and A below
// is exact, which takes another tenth off it. For m = 4 and r = 3, with s = a^2 + b^2, p = a^2 b^2,
// u = 1 / (2 a^2 (a^2 - b^2)) and v = 1 / (2 b^2 (b^2 - a^2)):
//
// clang-format off
//         [ p   0   -s   0   1   0 ]        [ 1/p    0      0   ]
//         [ 0 -ab^2 -b^2 a   1   0 ]        [  u    a u   a^2 u ]          [ 1   1    1    1    1   0 ]
//   B^T = [ 0  ab^2 -b^2 -a  1   0 ]    G = [  u   -a u   a^2 u ]    A^T = [ 0   a   -a    b   -b   0 ]
//         [ 0 -a^2b -a^2 b   1   0 ]        [  v    b v   b^2 v ]          [ 0  a^2  a^2  b^2  b^2  0 ]
//         [ 0  a^2b -a^2 -b  1   0 ]        [  v   -b v   b^2 v ]          [ 0  a^3 -a^3  b^3 -b^3  1 ]
//         [ 0   p    0   -s  0   1 ]        [  0     0      1   ]
// clang-format on
//
// For other m and r = 7 - m, B^T is the same; G has a column, and A^T a row, for each power of the
// points from 0 on, and infinity belongs to the last. Along an axis with a kernel of 1 all three
// are left out.
//
// Where a tile has fewer outputs than m, the inputs behind the last one are free. They are chosen
// so that as many points as possible are zero, the last ones in the order above: see extend().
//
// Every transform is one fixed tree of operations per element, whatever the vector width.
#pragma once

#include "core/padding.hpp"
#include "kernels/epilogue-inl.hpp"
#include "kernels/gemm-inl.hpp"
#include "kernels/kernel_table.hpp"

namespace pyconv::PYCONV_ISA {

static constexpr double kPointA = 47.0 / 64;
static constexpr double kPointB = 11.0 / 8;
static constexpr double kSquareA = kPointA * kPointA;
static constexpr double kSquareB = kPointB * kPointB;
static constexpr double kPowersA[] = {1, kPointA, kSquareA, kSquareA * kPointA};
static constexpr double kPowersB[] = {1, kPointB, kSquareB, kSquareB * kPointB};

// Rows r and r + 1 of B^T d for (r, r + 1) = (1, 2) or (3, 4), the two signs of one point; for
// r = 0 rows 0 and 5. Unused elements of `d` are not read.
template <int kRow, class T>
static inline void input_pair(const Vec<T> (&d)[kWinogradIn], Vec<T>& first, Vec<T>& second) {
  using V = Vec<T>;
  if constexpr (kRow == 0) {
    const V minus_sum = V::broadcast(static_cast<T>(-kSquareA - kSquareB));
    const V product = V::broadcast(static_cast<T>(kSquareA * kSquareB));
    first = V::fma(product, d[0], V::fma(minus_sum, d[2], d[4]));
    second = V::fma(product, d[1], V::fma(minus_sum, d[3], d[5]));
  } else {
    const V square = V::broadcast(static_cast<T>(kRow == 1 ? -kSquareB : -kSquareA));
    const V point = V::broadcast(static_cast<T>(kRow == 1 ? kPointA : kPointB));
    const V minus = V::broadcast(static_cast<T>(kRow == 1 ? -kPointA : -kPointB));
    const V even = V::fma(square, d[2], d[4]);
    const V odd = V::fma(square, d[1], d[3]);
    first = V::fma(point, odd, even);
    second = V::fma(minus, odd, even);
  }
}

// B^T d.
template <class T>
static inline void input_points(const Vec<T> (&d)[kWinogradIn], Vec<T> (&points)[kWinogradIn]) {
  input_pair<0>(d, points[0], points[5]);
  input_pair<1>(d, points[1], points[2]);
  input_pair<3>(d, points[3], points[4]);
}

// A^T m.
template <int kOuts, class T>
static inline void output_column(const Vec<T> (&m)[kWinogradIn], Vec<T> (&y)[kOuts]) {
  using V = Vec<T>;
  const V sum_a = m[1] + m[2];
  const V difference_a = m[1] - m[2];
  const V sum_b = m[3] + m[4];
  const V difference_b = m[3] - m[4];
  y[0] = m[0] + (sum_a + sum_b);
#pragma GCC unroll 4
  for (int k = 1; k < kOuts; ++k) {
    const V a = V::broadcast(static_cast<T>(kPowersA[k]));
    const V b = V::broadcast(static_cast<T>(kPowersB[k]));
    const V at_a = k % 2 == 1 ? difference_a : sum_a;
    const V at_b = k % 2 == 1 ? difference_b : sum_b;
    y[k] = V::fma(b, at_b, k == kOuts - 1 ? V::fma(a, at_a, m[5]) : a * at_a);
  }
}

// Rows kRow and its partner (see input_pair) of `tiles` tiles whose pixels are whole vectors of
// channels. Two rows at a time: 12 vectors stay in registers, and of the 6 columns under a tile the
// next tile takes over all but kOuts, so that each column is transformed once.
template <int kOuts, int kRow, class T>
static void input_rows(const T* from, std::int64_t row_stride, std::int64_t column_stride,
                       std::int64_t tiles, T* const* points) {
  using V = Vec<T>;
  constexpr int rows[2] = {kRow, kRow == 0 ? 5 : kRow + 1};
  V t[2][kWinogradIn];
  const auto column = [&](int j) {
    V d[kWinogradIn];
#pragma GCC unroll 6
    for (int i = kRow == 0 ? 0 : 1; i < (kRow == 0 ? 6 : 5); ++i) {
      d[i] = V::load(from + i * row_stride + j * column_stride);
    }
    input_pair<kRow>(d, t[0][j], t[1][j]);
  };
  constexpr int kShared = kWinogradIn - kOuts;
#pragma GCC unroll 4
  for (int j = 0; j < kShared; ++j) column(j);
  for (std::int64_t tile = 0; tile < tiles; ++tile) {
#pragma GCC unroll 5
    for (int j = kShared; j < kWinogradIn; ++j) column(j);
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      V v[kWinogradIn];
      input_points(t[i], v);
#pragma GCC unroll 6
      for (int j = 0; j < kWinogradIn; ++j) {
        v[j].store(points[rows[i] * kWinogradIn + j] + tile * V::lanes);
      }
#pragma GCC unroll 4
      for (int j = 0; j < kShared; ++j) t[i][j] = t[i][j + kOuts];
    }
    from += kOuts * column_stride;
  }
}

// B^T d along one axis, for tiles `tile_stride` apart.
template <class T>
static void input_lines(const T* from, std::int64_t stride, std::int64_t tile_stride,
                        std::int64_t tiles, T* const* points) {
  using V = Vec<T>;
  for (std::int64_t tile = 0; tile < tiles; ++tile, from += tile_stride) {
    V d[kWinogradIn];
    V v[kWinogradIn];
#pragma GCC unroll 6
    for (int i = 0; i < kWinogradIn; ++i) d[i] = V::load(from + i * stride);
    input_points(d, v);
#pragma GCC unroll 6
    for (int i = 0; i < kWinogradIn; ++i) v[i].store(points[i] + tile * V::lanes);
  }
}

template <int kRowOuts, int kColumnOuts, class T>
static void input_tiles(const T* from, std::int64_t row_stride, std::int64_t column_stride,
                        std::int64_t tiles, T* const* points) {
  if constexpr (kRowOuts == 1) {
    input_lines(from, column_stride, kColumnOuts * column_stride, tiles, points);
  } else if constexpr (kColumnOuts == 1) {
    input_lines(from, row_stride, column_stride, tiles, points);
  } else {
    input_rows<kColumnOuts, 0>(from, row_stride, column_stride, tiles, points);
    input_rows<kColumnOuts, 1>(from, row_stride, column_stride, tiles, points);
    input_rows<kColumnOuts, 3>(from, row_stride, column_stride, tiles, points);
  }
}

// Chooses the inputs from `met` on, of 3 to 6 that a tile needs, so that the points from `met` on
// are zero, see input_pair(): d4 makes the last one of b zero, or d3 and d4 make both. What stands
// at d5 does not matter, since the point at infinity is left out.
template <class T>
static inline void extend(std::int64_t met, T* from, std::int64_t stride) {
  using V = Vec<T>;
  if (met > 4) return;
  const V square = V::broadcast(static_cast<T>(kSquareA));
  const V even = square * V::load(from + 2 * stride);
  const V odd = square * V::load(from + stride);
  if (met == 3) {
    odd.store(from + 3 * stride);
    even.store(from + 4 * stride);
  } else {
    const V b = V::broadcast(static_cast<T>(kPointB));
    V::fma(b, V::load(from + 3 * stride) - odd, even).store(from + 4 * stride);
  }
}

// The index of the input under `position`, or -1 where zeros stand: in zero padding, and where only
// outputs and taps that do not exist look.
static inline std::int64_t winograd_index(const WinogradAxis& axis, std::int64_t position,
                                          PaddingMode mode) {
  return position < axis.end ? padded_index(position, axis.in, mode) : -1;
}

// Where outputs stop looking at the input: what lies behind counts as zeros, for the same bits by
// any way that pixels are read.
static inline std::int64_t seen(const WinogradAxis& axis) {
  return axis.end < axis.in ? axis.end : axis.in;
}

// Pixels further apart are loaded one by one: keeps offsets of a gather within 32 bits.
static constexpr std::int64_t kWidestGather = 1 << 20;

// One input row of a strip: `columns` pixels from position `begin`, each one vector of `channels`
// channels. `row` is null where zeros stand.
template <class T>
static void gather_row(const WinogradInputArgs<T>& args, const T* row, int channels,
                       std::int64_t begin, std::int64_t columns, T* to) {
  using V = Vec<T>;
  const std::int64_t pixel_stride = args.strides.axis[2];
  const std::int64_t channel_stride = args.strides.channel;
  std::int64_t first = 0;  // [first, last) lie inside the row
  std::int64_t last = 0;
  if (row != nullptr) {
    first = begin < 0 ? (-begin < columns ? -begin : columns) : 0;
    last = seen(args.width) - begin;
    last = last < columns ? last : columns;
    last = last > first ? last : first;
  }
  const auto gather = [&](std::int64_t i) {
    const std::int64_t index = winograd_index(args.width, begin + i, args.padding_mode);
    const V v = row == nullptr || index < 0
                    ? V::zero()
                    : load_lanes(row + index * pixel_stride, channel_stride, channels);
    v.store(to + i * V::lanes);
  };
  for (std::int64_t i = 0; i < first; ++i) gather(i);
  if (channel_stride != 1 && pixel_stride <= kWidestGather && pixel_stride > 0) {
    for (std::int64_t i = first; i < last; i += V::lanes) {
      // The last square is a whole one as well, if there are pixels before it.
      if (last - i < V::lanes && last - first > V::lanes) i = last - V::lanes;
      const std::int64_t left = last - i;
      const int count = left < V::lanes ? static_cast<int>(left) : V::lanes;
      const auto mask = V::mask_range(0, count);
      const T* from = row + (begin + i) * pixel_stride;
      V m[V::lanes];
      if (pixel_stride == 2) {
        for (int c = 0; c < V::lanes; ++c) {
          m[c] = c < channels ? V::load_even(V::zero(), 0, count, from + c * channel_stride)
                              : V::zero();
        }
      } else if (pixel_stride != 1) {
        for (int c = 0; c < V::lanes; ++c) {
          m[c] = c < channels ? V::gather(V::zero(), mask, from + c * channel_stride,
                                          static_cast<std::int32_t>(pixel_stride))
                              : V::zero();
        }
      } else if (channels == V::lanes && count == V::lanes) {
#pragma GCC unroll 16
        for (int c = 0; c < V::lanes; ++c) m[c] = V::load(from + c * channel_stride);
      } else if (channels == V::lanes) {
#pragma GCC unroll 16
        for (int c = 0; c < V::lanes; ++c) m[c] = V::load_or_zero(mask, from + c * channel_stride);
      } else {
        for (int c = 0; c < V::lanes; ++c) {
          m[c] = c < channels ? V::load_or_zero(mask, from + c * channel_stride) : V::zero();
        }
      }
      V::transpose(m);
      T* at = to + i * V::lanes;
      if (count == V::lanes) {
#pragma GCC unroll 16
        for (int p = 0; p < V::lanes; ++p) m[p].store(at + p * V::lanes);
      } else {
#pragma GCC unroll 16
        for (int p = 0; p < V::lanes; ++p) {
          if (p < count) m[p].store(at + p * V::lanes);
        }
      }
    }
  } else {
    for (std::int64_t i = first; i < last; ++i) gather(i);
  }
  for (std::int64_t i = last; i < columns; ++i) gather(i);
}

template <class T, int kRowOuts, int kColumnOuts>
void winograd_input(const WinogradInputArgs<T>& args) {
  using V = Vec<T>;
  constexpr std::int64_t strip_row = kWinogradStripRow * V::lanes;
  constexpr int kRows = winograd_points(kRowOuts);
  constexpr int kColumns = winograd_points(kColumnOuts);
  const std::int64_t top = args.tile_row * kRowOuts - args.height.pad;
  const std::int64_t left = args.tile_column * kColumnOuts - args.width.pad;
  // The tiles before the last one, if that is apart, have all points of a row.
  const std::int64_t whole = args.tiles - (args.slots->met_columns < kColumns ? 1 : 0);

  // Tiles [inside_begin, inside_end) can be read where they stand: channels are lanes there, and no
  // pixel lies outside.
  std::int64_t inside_begin = 0;
  std::int64_t inside_end = 0;
  if (args.strides.channel == 1 && top >= 0 && top + kRows <= seen(args.height)) {
    while (inside_begin < args.tiles && left + inside_begin * kColumnOuts < 0) ++inside_begin;
    inside_end = inside_begin;
    while (inside_end < args.tiles &&
           left + inside_end * kColumnOuts + kColumns <= seen(args.width)) {
      ++inside_end;
    }
  }

  T* points[kRows * kColumns];
  for (std::int64_t c = 0; c < args.channels; c += V::lanes) {
    const std::int64_t rest = args.channels - c;
    const int channels = rest < V::lanes ? static_cast<int>(rest) : V::lanes;
    const T* image = args.image + c * args.strides.channel;
    const auto transform = [&](const T* from, std::int64_t row_stride, std::int64_t column_stride,
                               std::int64_t begin, std::int64_t end) {
      if (begin >= end) return;
      const std::int64_t* const slots = begin < whole ? args.slots->first : args.slots->last;
      const std::int64_t slot = c / V::lanes * args.tiles_in_block + (begin < whole ? begin : 0);
      for (int p = 0; p < kRows * kColumns; ++p) {
        points[p] = args.points + p * args.point_stride + (slot + slots[p]) * V::lanes;
      }
      input_tiles<kRowOuts, kColumnOuts>(from, row_stride, column_stride, end - begin, points);
    };
    const auto through_strip = [&](std::int64_t begin, std::int64_t end) {
      if (begin >= end) return;
      const std::int64_t columns = (end - begin) * kColumnOuts + winograd_taps(kColumnOuts) - 1;
      for (int i = 0; i < kRows; ++i) {
        const std::int64_t row = winograd_index(args.height, top + i, args.padding_mode);
        gather_row(args, row < 0 ? nullptr : image + row * args.strides.axis[1], channels,
                   left + begin * kColumnOuts, columns, args.strip + i * strip_row);
      }
      if (args.slots->met_rows < kRows) {
        for (std::int64_t i = 0; i < columns; ++i) {
          extend(args.slots->met_rows, args.strip + i * V::lanes, strip_row);
        }
      }
      const std::int64_t apart = end > whole ? whole : end;
      T* const last = args.strip + (apart - begin) * kColumnOuts * V::lanes;
      if (apart < end) {
        for (int i = 0; i < kRows; ++i) {
          extend(args.slots->met_columns, last + i * strip_row, V::lanes);
        }
      }
      transform(args.strip, strip_row, V::lanes, begin, apart);
      transform(last, strip_row, V::lanes, apart, end);
    };
    if (channels < V::lanes || inside_begin == inside_end) {
      through_strip(0, args.tiles);
      continue;
    }
    through_strip(0, inside_begin);
    const T* from = image + top * args.strides.axis[1] +
                    (left + inside_begin * kColumnOuts) * args.strides.axis[2];
    transform(from, args.strides.axis[1], args.strides.axis[2], inside_begin, inside_end);
    through_strip(inside_end, args.tiles);
  }
}

// One output tile of one vector of channels; `to` has rows of `row_stride`, pixels are vectors.
template <int kRowOuts, int kColumnOuts, class T>
static inline void output_tile(const T* const* sums, std::int64_t offset, T* to,
                               std::int64_t row_stride) {
  using V = Vec<T>;
  const auto load = [&](int point, int step, V(&m)[kWinogradIn]) {
#pragma GCC unroll 6
    for (int i = 0; i < kWinogradIn; ++i) m[i] = V::load(sums[point + i * step] + offset);
  };
  V m[kWinogradIn];
  if constexpr (kRowOuts == 1 || kColumnOuts == 1) {
    constexpr int kOuts = kRowOuts * kColumnOuts;
    const std::int64_t stride = kRowOuts == 1 ? V::lanes : row_stride;
    V y[kOuts];
    load(0, 1, m);
    output_column<kOuts>(m, y);
#pragma GCC unroll 4
    for (int i = 0; i < kOuts; ++i) y[i].store(to + i * stride);
  } else {
    V t[kRowOuts][kWinogradIn];
#pragma GCC unroll 6
    for (int j = 0; j < kWinogradIn; ++j) {
      V y[kRowOuts];
      load(j, kWinogradIn, m);
      output_column<kRowOuts>(m, y);
#pragma GCC unroll 4
      for (int i = 0; i < kRowOuts; ++i) t[i][j] = y[i];
    }
#pragma GCC unroll 4
    for (int i = 0; i < kRowOuts; ++i) {
      V y[kColumnOuts];
      output_column<kColumnOuts>(t[i], y);
#pragma GCC unroll 4
      for (int j = 0; j < kColumnOuts; ++j) y[j].store(to + i * row_stride + j * V::lanes);
    }
  }
}

template <class T, int kRowOuts, int kColumnOuts>
void winograd_output(const WinogradOutputArgs<T>& args) {
  using V = Vec<T>;
  constexpr std::int64_t strip_row = kWinogradStripRow * V::lanes;
  constexpr int kPoints = winograd_points(kRowOuts) * winograd_points(kColumnOuts);
  const T* first[kPoints];
  const T* last[kPoints];
  for (int p = 0; p < kPoints; ++p) {
    first[p] = args.sums + p * args.point_stride + args.slots->first[p] * args.width;
    last[p] = args.sums + p * args.point_stride + args.slots->last[p] * args.width;
  }

  for (std::int64_t c = 0; c < args.channels; c += V::lanes) {
    const std::int64_t rest = args.channels - c;
    const std::int64_t channels = rest < V::lanes ? rest : V::lanes;
    for (std::int64_t tile = 0; tile < args.tiles; ++tile) {
      const bool apart = tile + 1 == args.tiles;
      output_tile<kRowOuts, kColumnOuts>(apart ? last : first, c + (apart ? 0 : tile * args.width),
                                         args.strip + tile * kColumnOuts * V::lanes, strip_row);
    }
    EpilogueArgs<T> end{};  // rows are pixels, columns channels
    end.rows = args.columns;
    end.columns = channels;
    end.acc_row = V::lanes;
    end.bias = args.bias ? args.bias + c : nullptr;
    end.bias_column = 1;
    end.residual_row = args.residual_strides.axis[2];
    end.residual_column = args.residual_strides.channel;
    end.out_row = args.out_strides.axis[2];
    end.out_column = args.out_strides.channel;
    end.activation = args.activation;
    for (std::int64_t row = 0; row < args.rows; ++row) {
      const auto offset = [&](const Strides& strides) {
        return c * strides.channel + row * strides.axis[1];
      };
      end.acc = args.strip + row * strip_row;
      end.out = args.out + offset(args.out_strides);
      if (args.residual) end.residual = args.residual + offset(args.residual_strides);
      epilogue(end);
    }
  }
}

// G g for each lane, from so many taps to six points; one tap stays what it is.
template <int kTaps, class Doubles>
[[gnu::always_inline]] static inline void weight_points(const Doubles (&g)[kTaps],
                                                        Doubles (&to)[kWinogradIn]) {
  if constexpr (kTaps == 1) {
    to[0] = g[0];
  } else {
    // Even and odd powers of the points of a square, by Horner's rule.
    constexpr int kLastEven = (kTaps - 1) / 2 * 2;
    constexpr int kLastOdd = kTaps / 2 * 2 - 1;
    const auto powers = [&](double square, Doubles& even, Doubles& odd) {
      even = g[kLastEven];
      odd = g[kLastOdd];
#pragma GCC unroll 3
      for (int k = kLastEven - 2; k >= 0; k -= 2) even = g[k] + square * even;
#pragma GCC unroll 3
      for (int k = kLastOdd - 2; k >= 1; k -= 2) odd = g[k] + square * odd;
    };
    Doubles even_a;
    Doubles odd_a;
    Doubles even_b;
    Doubles odd_b;
    powers(kSquareA, even_a, odd_a);
    powers(kSquareB, even_b, odd_b);
    constexpr double scale_a = 0.5 / (kSquareA * (kSquareA - kSquareB));
    constexpr double scale_b = 0.5 / (kSquareB * (kSquareB - kSquareA));
    even_a *= scale_a;
    odd_a *= scale_a * kPointA;
    even_b *= scale_b;
    odd_b *= scale_b * kPointB;
    to[0] = g[0] * (1 / (kSquareA * kSquareB));
    to[1] = even_a + odd_a;
    to[2] = even_a - odd_a;
    to[3] = even_b + odd_b;
    to[4] = even_b - odd_b;
    to[5] = g[kTaps - 1];
  }
}

template <class T, int kRowTaps, int kColumnTaps>
void winograd_weights(const WinogradWeightsArgs<T>& args) {
  using V = Vec<T>;
  constexpr int kRows = winograd_points(kRowTaps == 1 ? 1 : kFewestWinogradOuts);
  constexpr int kColumns = winograd_points(kColumnTaps == 1 ? 1 : kFewestWinogradOuts);
  constexpr int kPart = Vec<double>::lanes;  // in a register
  constexpr int kParts = V::lanes / kPart;
  constexpr int kLineBytes = 64;
  typedef T Values __attribute__((vector_size(kPart * sizeof(T))));
  typedef double Doubles __attribute__((vector_size(kPart * sizeof(double))));
  Doubles columns[kParts][kColumnTaps][kWinogradIn];  // G g
  for (int part = 0; part < kParts; ++part) {
#pragma GCC unroll 5
    for (int j = 0; j < kColumnTaps; ++j) {
      Doubles g[kRowTaps];
#pragma GCC unroll 5
      for (int i = 0; i < kRowTaps; ++i) {
        Values values = {};
        if (i < args.rows && j < args.columns) {
          const T* const from =
              args.from + i * args.row_stride + j * args.column_stride + part * kPart;
          __builtin_memcpy(&values, from, sizeof(values));
        }
        g[i] = __builtin_convertvector(values, Doubles);
      }
      weight_points<kRowTaps>(g, columns[part][j]);
    }
  }
  for (int i = 0; i < kRows; ++i) {
    Doubles points[kParts][kWinogradIn];  // a row of G g G^T
#pragma GCC unroll 2
    for (int part = 0; part < kParts; ++part) {
      Doubles row[kColumnTaps];
#pragma GCC unroll 5
      for (int j = 0; j < kColumnTaps; ++j) row[j] = columns[part][j][i];
      weight_points<kColumnTaps>(row, points[part]);
    }
#pragma GCC unroll 6
    for (int j = 0; j < kColumns; ++j) {
      const std::int64_t offset = args.offsets[i * kColumns + j];
      if (offset < 0) continue;
      T* const to = args.to + offset;
      if constexpr (sizeof(V) == kLineBytes) {
        if (args.past_caches) {
          V v;
          const auto low = __builtin_convertvector(points[0][j], Values);
          if constexpr (kParts == 1) {
            __builtin_memcpy(&v, &low, sizeof(v));
          } else {
            typename V::Half halves[kParts];
            const auto high = __builtin_convertvector(points[1][j], Values);
            __builtin_memcpy(&halves[0], &low, sizeof(low));
            __builtin_memcpy(&halves[1], &high, sizeof(high));
            v = V::joined(halves[0], halves[1]);
          }
          v.stream(to);
          continue;
        }
      }
#pragma GCC unroll 2
      for (int part = 0; part < kParts; ++part) {
        const Values values = __builtin_convertvector(points[part][j], Values);
        __builtin_memcpy(to + part * kPart, &values, sizeof(values));
      }
    }
  }
}

template <class T, int kRowOuts, int kColumnOuts>
constexpr WinogradTransforms<T> winograd_transforms() {
  return {winograd_input<T, kRowOuts, kColumnOuts>, winograd_output<T, kRowOuts, kColumnOuts>,
          winograd_weights<T, winograd_taps(kRowOuts), winograd_taps(kColumnOuts)>};
}

template <class T, int kOuts = kMostWinogradOuts>
constexpr void fill_winograd_transforms(KernelTable<T>& table) {
  table.winograd[kOuts][kOuts] = winograd_transforms<T, kOuts, kOuts>();
  table.winograd[1][kOuts] = winograd_transforms<T, 1, kOuts>();
  table.winograd[kOuts][1] = winograd_transforms<T, kOuts, 1>();
  if constexpr (kOuts > kFewestWinogradOuts) fill_winograd_transforms<T, kOuts - 1>(table);
}

// Accumulators fill the same registers as those of the GEMM tile: 6 x 4 + 4 + 1 = 29 of 32 with
// AVX-512. The weights are the vectors here, and every one of them is read for each row of tiles.
static constexpr int kWinogradAccumulators = PYCONV_TILE_ROWS * PYCONV_TILE_VECTORS;
static constexpr int kWinogradVectors = kWinogradAccumulators / 6;

template <class T, int kRows, int kVectors, bool kLow>
void winograd_tile(std::int64_t depth, std::int64_t chain, const T* a, std::int64_t a_block,
                   const T* b, T* c, bool accumulate, const T* ahead) {
  using V = Vec<T>;
  std::int64_t k = 0;
  do {
    const std::int64_t chain_end = depth - k < chain ? depth : k + chain;
    V sum[kRows][kVectors];
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 4
      for (int j = 0; j < kVectors; ++j) sum[i][j] = V::zero();
    }
    while (k < chain_end) {
      const T* channel = a + k / V::lanes * a_block + k % V::lanes;
      const std::int64_t left = chain_end - k;
      const std::int64_t block = V::lanes - k % V::lanes;
      const std::int64_t count = left < block ? left : block;
      k += count;
      repeat<kTakesFours<T>>(count, [&]() __attribute__((always_inline)) {
        __builtin_prefetch(ahead, 0, 2);
        ahead += 64 / sizeof(T);
        add_step<0, kRows, kLow>([channel](int i) { return channel[i * V::lanes]; }, b, sum);
        ++channel;
        b += kVectors * V::lanes;
      });
    }
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 4
      for (int j = 0; j < kVectors; ++j) {
        T* to = c + (i * kVectors + j) * V::lanes;
        (accumulate ? V::load(to) + sum[i][j] : sum[i][j]).store(to);
      }
    }
    accumulate = true;
  } while (k < depth);
}

static constexpr int winograd_rows(int vectors) {
  return kWinogradAccumulators / vectors < kMaxWinogradRows ? kWinogradAccumulators / vectors
                                                            : kMaxWinogradRows;
}

template <class T, int kVectors = kWinogradVectors, int kRows = winograd_rows(kVectors)>
constexpr void fill_winograd_tiles(KernelTable<T>& table) {
  constexpr bool low = Vec<T>::has_low;
  table.winograd_tile[0][kRows - 1][kVectors - 1] = winograd_tile<T, kRows, kVectors, false>;
  table.winograd_tile[1][kRows - 1][kVectors - 1] = winograd_tile<T, kRows, kVectors, low>;
  if constexpr (kRows == winograd_rows(kVectors)) table.winograd_rows[kVectors - 1] = kRows;
  if constexpr (kRows > 1) {
    fill_winograd_tiles<T, kVectors, kRows - 1>(table);
  } else if constexpr (kVectors > 1) {
    fill_winograd_tiles<T, kVectors - 1>(table);
  }
}

}  // namespace pyconv::PYCONV_ISA
