// The functions of `device.h` in C++, for the emulator. The fragments of instructions that a warp
// executes together are those of NVIDIA's PTX ISA, "Matrix fragments for mma.m16n8k32" and
// "ldmatrix".

#define PLANISH_DEVICE static inline
#define PLANISH_METHOD inline

PLANISH_DEVICE int planish_byte(uint32_t word, int i) { return word >> 8 * i & 255; }
PLANISH_DEVICE int planish_signed(uint32_t word, int i) { return int8_t(word >> 8 * i); }

PLANISH_DEVICE int planish_dot(int total, uint32_t x, uint32_t w) {
  uint32_t sum = total;
  for (int i = 0; i < 4; ++i) sum += planish_byte(x, i) * planish_signed(w, i);
  return sum;
}

PLANISH_DEVICE void planish_aligned(const void* pointer, int bytes) {
  if (uintptr_t(pointer) % bytes) planish_emulator::fail("an address is no multiple of", bytes);
}

// Some of the memory that the launch knows of, if it knows of any.
PLANISH_DEVICE void planish_global(const void* pointer, size_t bytes, int alignment) {
  using namespace planish_emulator;
  planish_aligned(pointer, alignment);
  const uintptr_t begin = uintptr_t(pointer);
  for (const auto& [address, size] : memory)
    if (address <= begin && begin + bytes <= address + size) return;
  if (!memory.empty()) fail("an address is outside of all memory, bytes", bytes);
}

PLANISH_DEVICE void planish_load_16(uint32_t* parts, const void* from) {
  planish_aligned(from, 16), memcpy(parts, from, 16);
}
PLANISH_DEVICE void planish_put_16(void* to, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
  const uint32_t words[] = {a, b, c, d};
  planish_aligned(to, 16), memcpy(to, words, 16);
}
PLANISH_DEVICE uint32_t planish_load_4(const void* from) {
  planish_global(from, 4, 4);
  uint32_t word;
  memcpy(&word, from, 4);
  return word;
}
PLANISH_DEVICE void planish_store_16(void* to, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
  const uint32_t words[] = {a, b, c, d};
  planish_global(to, 16, 16), memcpy(to, words, 16);
}
PLANISH_DEVICE void planish_store_8(void* to, uint32_t a, uint32_t b) {
  const uint32_t words[] = {a, b};
  planish_global(to, 8, 8), memcpy(to, words, 8);
}
PLANISH_DEVICE void planish_store_4(void* to, uint32_t a) {
  planish_global(to, 4, 4), memcpy(to, &a, 4);
}

#if PLANISH_ARCH >= 75
PLANISH_DEVICE void planish_load_matrices(uint32_t* parts, const void* row) {
  using namespace planish_emulator;
  together(LOAD_MATRICES, parts, row, nullptr, [](Thread* lanes) {
    uint32_t loaded[LANES][4];
    for (unsigned lane = 0; lane < LANES; ++lane)
      for (int j = 0; j < 4; ++j) {
        const char* from = static_cast<const char*>(lanes[8 * j + lane / 4].arguments[1]);
        memcpy(&loaded[lane][j], from + 4 * (lane % 4), 4);
      }
    for (unsigned lane = 0; lane < LANES; ++lane)
      memcpy(const_cast<void*>(lanes[lane].arguments[0]), loaded[lane], 16);
  });
}

PLANISH_DEVICE void planish_mma_now(planish_emulator::Thread* lanes) {
  using namespace planish_emulator;
  int16_t x[16][32], w[8][32];
  for (unsigned lane = 0; lane < LANES; ++lane) {
    const uint32_t* a = static_cast<const uint32_t*>(lanes[lane].arguments[1]);
    const uint32_t* b = static_cast<const uint32_t*>(lanes[lane].arguments[2]);
    const int group = lane / 4, first = lane % 4 * 4;
    for (int part = 0; part < 4; ++part)
      for (int i = 0; i < 4; ++i)
        x[group + part % 2 * 8][part / 2 * 16 + first + i] = planish_byte(a[part], i);
    for (int part = 0; part < 2; ++part)
      for (int i = 0; i < 4; ++i) w[group][part * 16 + first + i] = planish_signed(b[part], i);
  }
  for (unsigned lane = 0; lane < LANES; ++lane) {
    int* sums = static_cast<int*>(const_cast<void*>(lanes[lane].arguments[0]));
    for (int i = 0; i < 4; ++i) {
      const int16_t* left = x[lane / 4 + i / 2 * 8];
      const int16_t* right = w[lane % 4 * 2 + i % 2];
      int sum = 0;
      for (int k = 0; k < 32; ++k) sum += left[k] * right[k];
      sums[i] = int(uint32_t(sums[i]) + uint32_t(sum));
    }
  }
}

PLANISH_DEVICE void planish_mma(int* sums, const uint32_t* x, const uint32_t* w) {
  planish_emulator::together(planish_emulator::MMA, sums, x, w, planish_mma_now);
}
#endif

PLANISH_DEVICE void planish_fetch_16(uint32_t* parts, const void* from) {
  planish_global(from, 16, 16), memcpy(parts, from, 16);
}
PLANISH_DEVICE void planish_fetch_8(uint32_t* parts, const void* from) {
  planish_global(from, 16, 8), memcpy(parts, from, 16);
}
PLANISH_DEVICE void planish_fetch_4(uint32_t* parts, const void* from) {
  planish_global(from, 16, 4), memcpy(parts, from, 16);
}
PLANISH_DEVICE void planish_fetch_1(uint32_t* parts, const void* from) {
  planish_global(reinterpret_cast<const char*>(uintptr_t(from) & ~uintptr_t(3)), 20, 4);
  memcpy(parts, from, 16);
}

#if PLANISH_ARCH >= 80
// Asynchronous copies are made as late as `planish_wait` allows: what a kernel forgets to wait for
// is wrong.
PLANISH_DEVICE void planish_copy_later(void* to, const void* from, int alignment) {
  using namespace planish_emulator;
  planish_aligned(to, 16), planish_global(from, 16, alignment);
  threads[current].copies.back().push_back({to, from});
}
PLANISH_DEVICE void planish_copy_16(void* to, const void* from) {
  planish_copy_later(to, from, 16);
}
PLANISH_DEVICE void planish_copy_8(void* to, const void* from) { planish_copy_later(to, from, 8); }
PLANISH_DEVICE void planish_copy_4(void* to, const void* from) { planish_copy_later(to, from, 4); }
PLANISH_DEVICE void planish_copy_1(void* to, const void* from) {
  uint32_t parts[4];
  planish_fetch_1(parts, from);
  planish_aligned(to, 16), memcpy(to, parts, 16);
}
PLANISH_DEVICE void planish_commit() {
  planish_emulator::threads[planish_emulator::current].copies.emplace_back();
}
PLANISH_DEVICE void planish_wait(size_t left) {
  auto& groups = planish_emulator::threads[planish_emulator::current].copies;
  while (groups.size() - 1 > left) {
    for (const auto& copy : groups.front()) memcpy(copy.to, copy.from, 16);
    groups.erase(groups.begin());
  }
}
#endif

PLANISH_DEVICE void planish_sync() { __syncthreads(); }

// g++ gets -ffp-contract=off: each operation rounds by itself.
PLANISH_DEVICE int planish_nearest(float x) { return int(std::nearbyint(x)); }
PLANISH_DEVICE float planish_round(float x) { return std::nearbyint(x); }
PLANISH_DEVICE float planish_sqrt(float x) { return std::sqrt(x); }
PLANISH_DEVICE float planish_divide(float x, float y) { return x / y; }

PLANISH_DEVICE float planish_whole(float x) { return (x + 12582912.f) - 12582912.f; }
PLANISH_DEVICE int planish_small(float x) { return int(planish_whole(x)); }
PLANISH_DEVICE float planish_scale(int total, float multiplier) {
  return float(total) * multiplier;
}
PLANISH_DEVICE int planish_requantize(int total, float multiplier, float lo, float hi) {
  return planish_small(std::fmin(std::fmax(planish_scale(total, multiplier), lo), hi));
}
PLANISH_DEVICE int planish_add(int total, float multiplier, float own_lo, float own_hi, int other,
                               float own_factor, float other_factor, float offset, float scale,
                               float lo, float hi) {
  const float product = planish_scale(total, multiplier);
  const float own = planish_whole(std::fmin(std::fmax(product, own_lo), own_hi));
  const float sum = (own * own_factor + (float(other) * other_factor + offset)) * scale;
  return planish_small(std::fmin(std::fmax(sum, lo), hi));
}
PLANISH_DEVICE uint32_t planish_pack(int a, int b, int c, int d) {
  return (a & 255) | (b & 255) << 8 | (c & 255) << 16 | uint32_t(d & 255) << 24;
}
PLANISH_DEVICE uint32_t planish_bytes(uint32_t low, uint32_t high, uint32_t order) {
  const uint64_t both = uint64_t(high) << 32 | low;
  uint32_t chosen = 0;
  for (int i = 0; i < 4; ++i) chosen |= uint32_t(both >> 8 * (order >> 4 * i & 7) & 255) << 8 * i;
  return chosen;
}

// What text of TVM may name.
PLANISH_DEVICE int __float2int_rn(float x) { return planish_nearest(x); }
PLANISH_DEVICE float __int2float_rn(int x) { return float(x); }
PLANISH_DEVICE float __ll2float_rn(long long x) { return float(x); }
PLANISH_DEVICE float __fmul_rn(float x, float y) { return x * y; }
PLANISH_DEVICE float __fadd_rn(float x, float y) { return x + y; }
PLANISH_DEVICE float __fdiv_rn(float x, float y) { return x / y; }
PLANISH_DEVICE float __fsqrt_rn(float x) { return std::sqrt(x); }
template <class T> PLANISH_DEVICE T max(T a, T b) { return a > b ? a : b; }
template <class T> PLANISH_DEVICE T min(T a, T b) { return a < b ? a : b; }

// Float16 by a product that leaves no bits behind the last one that it has: denormals are multiples
// of 2^-24, others have eleven bits.
PLANISH_DEVICE float planish_from_half(uint16_t bits) {
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  const float size = exponent == 31 ? (fraction ? NAN : INFINITY)
                     : exponent     ? std::ldexp(1024.f + fraction, exponent - 25)
                                    : std::ldexp(float(fraction), -24);
  return bits >> 15 ? -size : size;
}
PLANISH_DEVICE uint16_t planish_to_half(float x) {
  const uint16_t sign = std::signbit(x) ? 0x8000 : 0;
  const float size = std::fabs(x);
  if (std::isnan(x)) return 0x7fff;
  if (size >= 65520.f) return sign | 0x7c00;
  if (size < 6.103515625e-05f) return sign | uint16_t(std::nearbyint(std::ldexp(size, 24)));
  const int exponent = std::ilogb(size);
  // A fraction that is rounded up to 2048 carries into the exponent.
  return sign | uint16_t((exponent + 14 << 10) + int(std::nearbyint(std::ldexp(size, 10 - exponent))));
}
