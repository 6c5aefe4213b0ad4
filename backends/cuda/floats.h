// What float functions of TVM compute, for NVIDIA's compiler and for g++ alike: the functions of C's
// library, none of the fast approximations. Both libraries are right to a few units of the last bit.

// A number by its bits.
PLANISH_DEVICE float planish_float(uint32_t bits) {
  union { uint32_t bits; float value; } both = {bits};
  return both.value;
}
PLANISH_DEVICE double planish_double(int64_t bits) {
  union { int64_t bits; double value; } both = {bits};
  return both.value;
}

// As TVM's text names them.
#define CUDART_INF_F planish_float(0x7f800000u)
#define CUDART_NAN_F planish_float(0x7fffffffu)
#define CUDART_INF double(CUDART_INF_F)
#define CUDART_NAN double(CUDART_NAN_F)

// Float16: each operation is one of float32, rounded to the nearest.
struct half {
  unsigned short bits;
  half() = default;
  PLANISH_METHOD half(float x) : bits(planish_to_half(x)) {}
  PLANISH_METHOD operator float() const { return planish_from_half(bits); }
};
#define PLANISH_HALF(operation) \
  PLANISH_DEVICE half operator operation(half x, half y) { return float(x) operation float(y); }
PLANISH_HALF(+)
PLANISH_HALF(-)
PLANISH_HALF(*)
PLANISH_HALF(/)
PLANISH_DEVICE half __float2half_rn(float x) { return x; }

#define PLANISH_REAL(name, text32, text64)                       \
  PLANISH_DEVICE float planish_##name(float x) { return text32; } \
  PLANISH_DEVICE double planish_##name(double x) { return text64; }
#define PLANISH_REAL_2(name, text32, text64)                               \
  PLANISH_DEVICE float planish_##name(float x, float y) { return text32; } \
  PLANISH_DEVICE double planish_##name(double x, double y) { return text64; }
#define PLANISH_LIBRARY(name) PLANISH_REAL(name, name##f(x), name(x))
#define PLANISH_LIBRARY_2(name) PLANISH_REAL_2(name, name##f(x, y), name(x, y))

PLANISH_LIBRARY(exp)
PLANISH_LIBRARY(exp2)
PLANISH_REAL(exp10, powf(10.f, x), pow(10., x))
PLANISH_LIBRARY(log)
PLANISH_LIBRARY(log2)
PLANISH_LIBRARY(log10)
PLANISH_LIBRARY(log1p)
PLANISH_LIBRARY(sin)
PLANISH_LIBRARY(cos)
PLANISH_LIBRARY(tan)
PLANISH_LIBRARY(asin)
PLANISH_LIBRARY(acos)
PLANISH_LIBRARY(atan)
PLANISH_LIBRARY(sinh)
PLANISH_LIBRARY(cosh)
PLANISH_LIBRARY(tanh)
PLANISH_LIBRARY(asinh)
PLANISH_LIBRARY(acosh)
PLANISH_LIBRARY(atanh)
PLANISH_LIBRARY(erf)
PLANISH_LIBRARY_2(pow)
PLANISH_LIBRARY_2(atan2)
PLANISH_LIBRARY_2(hypot)

// Exact, or rounded once.
PLANISH_LIBRARY(fabs)
PLANISH_LIBRARY(floor)
PLANISH_LIBRARY(ceil)
PLANISH_LIBRARY(trunc)
PLANISH_REAL(nearest_even, rintf(x), rint(x))
PLANISH_LIBRARY_2(fmod)
PLANISH_LIBRARY_2(copysign)
PLANISH_DEVICE double planish_sqrt(double x) { return sqrt(x); }
PLANISH_REAL(rsqrt, 1.f / planish_sqrt(x), 1. / planish_sqrt(x))
PLANISH_REAL(sigmoid, 1.f / (1.f + expf(-x)), 1. / (1. + exp(-x)))
// A NaN on either side is the result.
PLANISH_REAL_2(larger, x > y || x != x ? x : y, x > y || x != x ? x : y)
PLANISH_REAL_2(smaller, x < y || x != x ? x : y, x < y || x != x ? x : y)
