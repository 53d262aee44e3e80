// Bias, residual and activation on finished sums. Written with fused multiply-adds, divisions and
// comparisons only, so that every vector width gives the same bits.
#pragma once

#include "kernels/kernel_table.hpp"
#include "kernels/strided-inl.hpp"

namespace pyconv::PYCONV_ISA {

template <class T, int kTerms>
static inline Vec<T> polynomial(Vec<T> x, const double (&highest_first)[kTerms]) {
  Vec<T> sum = Vec<T>::broadcast(static_cast<T>(highest_first[0]));
#pragma GCC unroll 16
  for (int i = 1; i < kTerms; ++i) {
    sum = Vec<T>::fma(sum, x, Vec<T>::broadcast(static_cast<T>(highest_first[i])));
  }
  return sum;
}

template <class T>
struct ExpConstants;

// ln(2) in two parts (Cody, Waite 1980): n * high is exact for every n that exp needs. `low` and
// `high` arguments give 0 (or a denormal) and infinity. Taylor terms to x^7/7! and x^13/13! leave
// 5e-9 and 4e-18 at |x| = ln(2)/2.
template <>
struct ExpConstants<float> {
  static constexpr double ln2_high = 0.693359375;
  static constexpr double ln2_low = -2.12194440054690583e-4;
  static constexpr double smallest = -104.0;
  static constexpr double largest = 89.0;
  static constexpr double taylor[] = {1.0 / 5040, 1.0 / 720, 1.0 / 120, 1.0 / 24,
                                      1.0 / 6,    1.0 / 2,   1.0,       1.0};
};

template <>
struct ExpConstants<double> {
  static constexpr double ln2_high = 6.93147180369123816490e-01;
  static constexpr double ln2_low = 1.90821492927058770002e-10;
  static constexpr double smallest = -746.0;
  static constexpr double largest = 710.0;
  static constexpr double taylor[] = {1.0 / 6227020800,
                                      1.0 / 479001600,
                                      1.0 / 39916800,
                                      1.0 / 3628800,
                                      1.0 / 362880,
                                      1.0 / 40320,
                                      1.0 / 5040,
                                      1.0 / 720,
                                      1.0 / 120,
                                      1.0 / 24,
                                      1.0 / 6,
                                      1.0 / 2,
                                      1.0,
                                      1.0};
};

// The clamps keep NaN: min and max give their second argument for it.
template <class T>
static inline Vec<T> exp(Vec<T> x) {
  using V = Vec<T>;
  using C = ExpConstants<T>;
  x = V::max(V::broadcast(static_cast<T>(C::smallest)), x);
  x = V::min(V::broadcast(static_cast<T>(C::largest)), x);
  const V n = V::round(x * V::broadcast(static_cast<T>(1.44269504088896340736)));
  V r = V::fma(n, V::broadcast(static_cast<T>(-C::ln2_high)), x);
  r = V::fma(n, V::broadcast(static_cast<T>(-C::ln2_low)), r);
  // 2^n in two factors: n reaches past the exponents that one factor can hold.
  const V half = V::round(n * V::broadcast(T(0.5)));
  return polynomial<T>(r, C::taylor) * V::exp2_integer(half) * V::exp2_integer(n - half);
}

// Rational approximations of W. J. Cody (1969, Rational Chebyshev approximations for the error
// function) with the coefficients of the Cephes library.
template <class T>
static inline Vec<T> erf(Vec<T> x) {
  using V = Vec<T>;
  constexpr double t[] = {9.60497373987051638749e0, 9.00260197203842689217e1,
                          2.23200534594684319226e3, 7.00332514112805075473e3,
                          5.55923013010394962768e4};
  constexpr double u[] = {1.0,
                          3.35617141647503099647e1,
                          5.21357949780152679795e2,
                          4.59432382970980127987e3,
                          2.26290000613890934246e4,
                          4.92673942608635921086e4};
  constexpr double p[] = {
      2.46196981473530512524e-10, 5.64189564831068821977e-1, 7.46321056442269912687e0,
      4.86371970985681366614e1,   1.96520832956077098242e2,  5.26445194995477358631e2,
      9.34528527171957607540e2,   1.02755188689515710272e3,  5.57535335369399327526e2};
  constexpr double q[] = {1.0,
                          1.32281951154744992508e1,
                          8.67072140885989742329e1,
                          3.54937778887819891062e2,
                          9.75708501743205489753e2,
                          1.82390916687909736289e3,
                          2.24633760818710981792e3,
                          1.65666309194161350182e3,
                          5.57535340817727675546e2};
  const V one = V::broadcast(T(1));
  const V magnitude = V::abs(x);
  const V square = x * x;
  const V small = x * (polynomial<T>(square, t) / polynomial<T>(square, u));
  const V clamped = V::min(V::broadcast(T(8)), magnitude);  // erfc(8) = 1e-29
  const V tail = exp<T>(V::zero() - clamped * clamped) *
                 (polynomial<T>(clamped, p) / polynomial<T>(clamped, q));
  return V::select(V::less(magnitude, one), small, V::copysign(one - tail, x));
}

template <class T>
static inline Vec<T> tanh(Vec<T> x) {
  using V = Vec<T>;
  constexpr double p[] = {-9.64399179425052238628e-1, -9.92877231001918586564e1,
                          -1.61468768441708447952e3};
  constexpr double q[] = {1.0, 1.12811678491632931402e2, 2.23548839060100448583e3,
                          4.84406305325125486048e3};
  const V one = V::broadcast(T(1));
  const V magnitude = V::abs(x);
  const V square = x * x;
  // Below 0.625 the difference 1 - 2 / (...) would cancel; Cephes' rational keeps full precision.
  const V small = V::fma(x * square, polynomial<T>(square, p) / polynomial<T>(square, q), x);
  const V large = one - V::broadcast(T(2)) / (exp<T>(magnitude + magnitude) + one);
  return V::select(V::less(magnitude, V::broadcast(T(0.625))), small, V::copysign(large, x));
}

// Activations as function objects: NaN in, NaN out. Short ones are worth code of their own for each
// vector of a square.
template <class T>
struct Activations {
  using V = Vec<T>;

  struct None {
    static constexpr bool kShort = true;
    explicit None(const Activation&) {}
    V operator()(V x) const { return x; }
  };
  struct Relu {
    static constexpr bool kShort = true;
    explicit Relu(const Activation&) {}
    V operator()(V x) const { return V::max(V::zero(), x); }
  };
  struct Clip {
    static constexpr bool kShort = true;
    V low, high;
    explicit Clip(const Activation& a)
        : low(V::broadcast(static_cast<T>(a.low))), high(V::broadcast(static_cast<T>(a.high))) {}
    V operator()(V x) const { return V::min(high, V::max(low, x)); }
  };
  struct LeakyRelu {
    static constexpr bool kShort = false;
    V slope;
    explicit LeakyRelu(const Activation& a) : slope(V::broadcast(static_cast<T>(a.low))) {}
    V operator()(V x) const { return V::select(V::less(x, V::zero()), slope * x, x); }
  };
  struct Sigmoid {
    static constexpr bool kShort = false;
    explicit Sigmoid(const Activation&) {}
    V operator()(V x) const {
      const V one = V::broadcast(T(1));
      return one / (one + exp<T>(V::zero() - x));
    }
  };
  struct Tanh {
    static constexpr bool kShort = false;
    explicit Tanh(const Activation&) {}
    V operator()(V x) const { return tanh<T>(x); }
  };
  struct Silu {
    static constexpr bool kShort = false;
    explicit Silu(const Activation&) {}
    V operator()(V x) const { return x / (V::broadcast(T(1)) + exp<T>(V::zero() - x)); }
  };
  struct Hardsigmoid {
    static constexpr bool kShort = false;
    explicit Hardsigmoid(const Activation&) {}
    V operator()(V x) const {
      const V six = V::broadcast(T(6));
      return V::min(six, V::max(V::zero(), x + V::broadcast(T(3)))) / six;
    }
  };
  struct Hardswish {
    static constexpr bool kShort = false;
    explicit Hardswish(const Activation&) {}
    V operator()(V x) const {
      const V six = V::broadcast(T(6));
      return x * V::min(six, V::max(V::zero(), x + V::broadcast(T(3)))) / six;
    }
  };
  struct Gelu {
    static constexpr bool kShort = false;
    explicit Gelu(const Activation&) {}
    V operator()(V x) const {
      const V erf_part = erf<T>(x * V::broadcast(static_cast<T>(0.70710678118654752440)));
      return x * V::broadcast(T(0.5)) * (V::broadcast(T(1)) + erf_part);
    }
  };
};

// Lanes [0, count) of p[lane * step].
template <class T>
static inline Vec<T> load_lanes(const T* p, std::int64_t step, int count) {
  using V = Vec<T>;
  if (step == 1) return V::load(V::zero(), V::mask_range(0, count), p);
  if (step == 0) return V::broadcast(*p);
  T lanes[V::lanes] = {};
  for (int i = 0; i < count; ++i) lanes[i] = p[i * step];
  return V::load(lanes);
}

template <class T>
static inline void store_lanes(Vec<T> v, T* p, std::int64_t step, int count) {
  using V = Vec<T>;
  if (step == 1) {
    v.store(V::mask_range(0, count), p);
    return;
  }
  T lanes[V::lanes];
  v.store(lanes);
  for (int i = 0; i < count; ++i) p[i * step] = lanes[i];
}

// Columns [begin, columns) of one row, of any strides.
template <class T, class Function>
static void epilogue_row(const EpilogueArgs<T>& args, const Function& activation, std::int64_t row,
                         std::int64_t begin) {
  using V = Vec<T>;
  const T* acc = args.acc + row * args.acc_row;
  const T* bias = args.bias ? args.bias + row * args.bias_row : nullptr;
  const T* residual = args.residual ? args.residual + row * args.residual_row : nullptr;
  T* out = args.out + row * args.out_row;
  for (std::int64_t j = begin; j < args.columns; j += V::lanes) {
    const std::int64_t left = args.columns - j;
    const int count = left < V::lanes ? static_cast<int>(left) : V::lanes;
    V v = load_lanes(acc + j, 1, count);
    if (bias) v = v + load_lanes(bias + j * args.bias_column, args.bias_column, count);
    if (residual) {
      v = v + load_lanes(residual + j * args.residual_column, args.residual_column, count);
    }
    store_lanes(activation(v), out + j * args.out_column, args.out_column, count);
  }
}

template <class T, class Function>
[[gnu::noinline]] static void epilogue_with(const EpilogueArgs<T>& args) {
  using V = Vec<T>;
  const Function activation(args.activation);
  const bool dense = args.out_column == 1 && (!args.residual || args.residual_column == 1) &&
                     (!args.bias || args.bias_column == 0 || args.bias_column == 1);
  const std::int64_t whole = dense ? args.columns / V::lanes * V::lanes : 0;
  for (std::int64_t i = 0; i < args.rows; ++i) {
    const T* acc = args.acc + i * args.acc_row;
    const T* bias = args.bias ? args.bias + i * args.bias_row : nullptr;
    const T* residual = args.residual ? args.residual + i * args.residual_row : nullptr;
    T* out = args.out + i * args.out_row;
    for (std::int64_t j = 0; j < whole; j += V::lanes) {
      V v = V::load(acc + j);
      if (bias) v = v + (args.bias_column == 0 ? V::broadcast(*bias) : V::load(bias + j));
      if (residual) v = v + V::load(residual + j);
      activation(v).store(out + j);
    }
    if (whole < args.columns) epilogue_row(args, activation, i, whole);
  }
}

// The same of rows that are next to each other in the output, with biases of the columns or of the
// rows: squares of the sums change rows and columns in registers. Where the columns of a wide
// square share a set of the L1 cache, which holds fewer lines, stores wait for each other: there
// two squares of half as many columns are turned at once.
template <class T, class Function>
[[gnu::noinline]] static void epilogue_turned(const EpilogueArgs<T>& args) {
  using V = Vec<T>;
  using Half = typename V::Half;
  constexpr std::int64_t lanes = V::lanes;
  constexpr bool kHalves = Function::kShort && Half::lanes < lanes;
  const bool halves = kHalves && args.rows >= 2 * lanes && crowds_sets<T>(args.out_column);
  const std::int64_t width = halves ? Half::lanes : lanes;
  const Function activation(args.activation);
  const V none = V::broadcast(-T(0));
  const T* const column_bias = args.bias_column == 0 ? nullptr : args.bias;
  const T* const row_bias = args.bias_column == 0 ? args.bias : nullptr;
  for (std::int64_t j = 0; j < args.columns; j += width) {
    const std::int64_t columns = at_most(width, args.columns - j);
    const auto mask = V::mask_range(0, static_cast<int>(columns));
    const V of_columns = column_bias ? V::load_or_zero(mask, column_bias + j) : none;
    const T* from = args.acc + j;
    const T* const residual = args.residual ? args.residual + j * args.residual_column : nullptr;
    T* const out = args.out + j * args.out_column;
    std::int64_t most = first_columns(out, args.out_column, args.rows);
    for (std::int64_t i = 0; i < args.rows; i += most, most = lanes) {
      V m[lanes];
      if constexpr (kHalves) {
        if (halves && columns == width && most == lanes && args.rows - i >= 2 * lanes) {
          most = 2 * lanes;
          const V of_both =
              column_bias ? V::joined(Half::load(column_bias + j), Half::load(column_bias + j))
                          : none;
#pragma GCC unroll 16
          for (int r = 0; r < lanes; ++r, from += args.acc_row) {
            m[r] = V::joined(Half::load(from), Half::load(from + lanes * args.acc_row)) + of_both;
          }
          from += lanes * args.acc_row;
          V::transpose(m);
#pragma GCC unroll 2
          for (int half = 0; half < 2; ++half) {
            const std::int64_t row = i + half * lanes;
            const V of_rows = row_bias ? V::load(row_bias + row) : none;
#pragma GCC unroll 8
            for (int c = 0; c < Half::lanes; ++c) {
              V v = m[half * Half::lanes + c] + of_rows;
              if (residual) v = v + V::load(residual + c * args.residual_column + row);
              activation(v).store(out + c * args.out_column + row);
            }
          }
          continue;
        }
      }
      most = at_most(most, args.rows - i);
      const auto rows = V::mask_range(0, static_cast<int>(most));
      const V of_rows = row_bias ? V::load_or_zero(rows, row_bias + i) : none;
      const bool whole = columns == lanes && most == lanes;
      if (whole) {
#pragma GCC unroll 16
        for (int r = 0; r < lanes; ++r) m[r] = V::load(from + r * args.acc_row) + of_columns;
      } else {
#pragma GCC unroll 16
        for (int r = 0; r < lanes; ++r) {
          m[r] = r < most ? V::load_or_zero(mask, from + r * args.acc_row) + of_columns : V::zero();
        }
      }
      from += most * args.acc_row;
      V::transpose(m);
#pragma GCC unroll 16
      for (int c = 0; c < lanes; ++c) m[c] = m[c] + of_rows;
      const auto finish = [&](V v, std::int64_t c) {
        if (residual) v = v + V::load_or_zero(rows, residual + c * args.residual_column + i);
        activation(v).store(rows, out + c * args.out_column + i);
      };
      if (Function::kShort && whole && !residual) {
#pragma GCC unroll 16
        for (int c = 0; c < lanes; ++c) activation(m[c]).store(out + c * args.out_column + i);
      } else if constexpr (Function::kShort) {
#pragma GCC unroll 16
        for (int c = 0; c < lanes; ++c) {
          if (c == columns) break;
          finish(m[c], c);
        }
      } else {
        T turned[lanes * lanes];
#pragma GCC unroll 16
        for (int c = 0; c < lanes; ++c) m[c].store(turned + c * lanes);
#pragma GCC unroll 1
        for (std::int64_t c = 0; c < columns; ++c) finish(V::load(turned + c * lanes), c);
      }
    }
  }
}

// The same with squares of the sums that change rows and columns: in registers or in memory.
template <class T, class Function>
static void epilogue_transposed(const EpilogueArgs<T>& args) {
  using V = Vec<T>;
  constexpr std::int64_t lanes = V::lanes;
  const bool either_bias =
      args.bias_row == 0 ? args.bias_column == 1 : args.bias_row == 1 && args.bias_column == 0;
  if (args.out_row == 1 && (!args.bias || either_bias) &&
      (!args.residual || args.residual_row == 1)) {
    return epilogue_turned<T, Function>(args);
  }
  T turned[lanes * lanes];
  EpilogueArgs<T> square = args;
  square.acc = turned;
  square.acc_row = lanes;
  square.bias_row = args.bias_column;
  square.bias_column = args.bias_row;
  square.residual_row = args.residual_column;
  square.residual_column = args.residual_row;
  square.out_row = args.out_column;
  square.out_column = args.out_row;
  std::int64_t most =
      args.out_row == 1 ? first_columns(args.out, args.out_column, args.rows) : lanes;
  for (std::int64_t i = 0; i < args.rows; i += most, most = lanes) {
    square.columns = args.rows - i < most ? args.rows - i : most;
    for (std::int64_t j = 0; j < args.columns; j += lanes) {
      square.rows = args.columns - j < lanes ? args.columns - j : lanes;
      const T* const from = args.acc + i * args.acc_row + j;
      V m[lanes];
      if (square.rows == lanes && square.columns == lanes) {
#pragma GCC unroll 16
        for (int r = 0; r < lanes; ++r) m[r] = V::load(from + r * args.acc_row);
      } else {
        const auto mask = V::mask_range(0, static_cast<int>(square.rows));
#pragma GCC unroll 16
        for (int r = 0; r < lanes; ++r) {
          m[r] = r < square.columns ? V::load_or_zero(mask, from + r * args.acc_row) : V::zero();
        }
      }
      V::transpose(m);
      if (args.bias) square.bias = args.bias + i * args.bias_row + j * args.bias_column;
      if (args.residual) {
        square.residual = args.residual + i * args.residual_row + j * args.residual_column;
      }
      square.out = args.out + i * args.out_row + j * args.out_column;
#pragma GCC unroll 16
      for (int r = 0; r < lanes; ++r) m[r].store(turned + r * lanes);
      epilogue_with<T, Function>(square);
    }
  }
}

template <class T, class Function>
static void epilogue_either_way(const EpilogueArgs<T>& args) {
  // Columns of the output are contiguous and rows are not, or elements of a row are far from each
  // other and share sets of a cache.
  const bool contiguous = args.out_row == 1 && args.out_column != 1;
  const auto distance = [](std::int64_t stride) { return stride < 0 ? -stride : stride; };
  const bool nearer = distance(args.out_row) < distance(args.out_column);
  if (contiguous || (nearer && crowds_sets<T>(args.out_column))) {
    epilogue_transposed<T, Function>(args);
  } else {
    epilogue_with<T, Function>(args);
  }
}

template <class T>
void epilogue(const EpilogueArgs<T>& args) {
  using A = Activations<T>;
  switch (args.activation.kind) {
    case ActivationKind::none:
      return epilogue_either_way<T, typename A::None>(args);
    case ActivationKind::relu:
      return epilogue_either_way<T, typename A::Relu>(args);
    case ActivationKind::clip:
      return epilogue_either_way<T, typename A::Clip>(args);
    case ActivationKind::leaky_relu:
      return epilogue_either_way<T, typename A::LeakyRelu>(args);
    case ActivationKind::sigmoid:
      return epilogue_either_way<T, typename A::Sigmoid>(args);
    case ActivationKind::tanh:
      return epilogue_either_way<T, typename A::Tanh>(args);
    case ActivationKind::silu:
      return epilogue_either_way<T, typename A::Silu>(args);
    case ActivationKind::hardswish:
      return epilogue_either_way<T, typename A::Hardswish>(args);
    case ActivationKind::hardsigmoid:
      return epilogue_either_way<T, typename A::Hardsigmoid>(args);
    case ActivationKind::gelu:
      return epilogue_either_way<T, typename A::Gelu>(args);
  }
}

}  // namespace pyconv::PYCONV_ISA
