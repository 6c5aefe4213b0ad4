// What kernels call by name, for NVIDIA's compiler. `emulator.h` has the same functions in C++.
// Everything is exact: integers modulo 2^32, and single IEEE operations that are never contracted.

#define PLANISH_DEVICE static __forceinline__ __device__
#define PLANISH_METHOD __forceinline__ __device__

typedef signed char int8_t;
typedef unsigned char uint8_t;
typedef short int16_t;
typedef unsigned short uint16_t;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef long long int64_t;
typedef unsigned long long uint64_t;
typedef unsigned char uchar;
typedef unsigned short ushort;
typedef unsigned int uint;

// total + the four products of x's bytes (0..255) and w's bytes (-128..127). From sm_61 on.
PLANISH_DEVICE int planish_dot(int total, uint32_t x, uint32_t w) {
  int sum;
  asm("dp4a.u32.s32 %0, %1, %2, %3;" : "=r"(sum) : "r"(x), "r"(w), "r"(total));
  return sum;
}

// The address of shared memory as PTX wants it.
PLANISH_DEVICE uint32_t planish_shared(const void* pointer) {
  uint32_t address;
  asm("{ .reg .u64 full; cvta.to.shared.u64 full, %1; cvt.u32.u64 %0, full; }"
      : "=r"(address) : "l"(pointer));
  return address;
}

#if __CUDA_ARCH__ >= 750
// Four 8 x 16-byte matrices: lane i gives the address of row i % 8 of matrix i / 8, and gets, of
// matrix j, the four bytes from 4 * (lane % 4) of row lane / 4 in parts[j].
PLANISH_DEVICE void planish_load_matrices(uint32_t* parts, const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(parts[0]), "=r"(parts[1]), "=r"(parts[2]), "=r"(parts[3])
               : "r"(planish_shared(row)) : "memory");
}

// A warp's sums [16, 8] += x [16, 32] of bytes 0..255 * w [32, 8] of bytes -128..127, in the
// fragments of mma.m16n8k32. Turing has m8n8k16, whose fragments are quarters of these.
PLANISH_DEVICE void planish_mma(int* sums, const uint32_t* x, const uint32_t* w) {
#if __CUDA_ARCH__ >= 800
  asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 "
               "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+r"(sums[0]), "+r"(sums[1]), "+r"(sums[2]), "+r"(sums[3])
               : "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "r"(w[0]), "r"(w[1]));
#else
#pragma unroll
  for (int part = 0; part < 4; ++part) {
    int* half = sums + part % 2 * 2;
    asm volatile("mma.sync.aligned.m8n8k16.row.col.s32.u8.s8.s32 {%0, %1}, {%2}, {%3}, {%0, %1};"
                 : "+r"(half[0]), "+r"(half[1]) : "r"(x[part]), "r"(w[part / 2]));
  }
#endif
}
#endif

// 16 bytes of shared memory as four words, and back; the same of global memory. All are aligned.
PLANISH_DEVICE void planish_load_16(uint32_t* parts, const void* from) {
  const uint4 words = *(const uint4*)from;
  parts[0] = words.x, parts[1] = words.y, parts[2] = words.z, parts[3] = words.w;
}
PLANISH_DEVICE void planish_put_16(void* to, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
  *(uint4*)to = make_uint4(a, b, c, d);
}
PLANISH_DEVICE uint32_t planish_load_4(const void* from) { return *(const uint32_t*)from; }
PLANISH_DEVICE void planish_store_16(void* to, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
  *(uint4*)to = make_uint4(a, b, c, d);
}
PLANISH_DEVICE void planish_store_8(void* to, uint32_t a, uint32_t b) {
  *(uint2*)to = make_uint2(a, b);
}
PLANISH_DEVICE void planish_store_4(void* to, uint32_t a) { *(uint32_t*)to = a; }

// 16 bytes of global memory as four words; the name's number is what the address is a multiple of.
PLANISH_DEVICE void planish_fetch_16(uint32_t* parts, const void* from) {
  planish_load_16(parts, from);
}
PLANISH_DEVICE void planish_fetch_8(uint32_t* parts, const void* from) {
  const uint2 first = ((const uint2*)from)[0], second = ((const uint2*)from)[1];
  parts[0] = first.x, parts[1] = first.y, parts[2] = second.x, parts[3] = second.y;
}
PLANISH_DEVICE void planish_fetch_4(uint32_t* parts, const void* from) {
#pragma unroll
  for (int i = 0; i < 4; ++i) parts[i] = ((const uint32_t*)from)[i];
}
// Reads the aligned words around the 16 bytes: at most 3 bytes before them and 4 behind.
PLANISH_DEVICE void planish_fetch_1(uint32_t* parts, const void* from) {
  const uint32_t* words = (const uint32_t*)((uint64_t)from & ~(uint64_t)3);
  const uint32_t shift = (uint32_t)(uint64_t)from % 4 * 8;
  uint32_t last = words[0];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const uint32_t next = words[i + 1];
    parts[i] = __funnelshift_r(last, next, shift);
    last = next;
  }
}

#if __CUDA_ARCH__ >= 800
// Begins to copy 16 bytes of global memory to shared memory: `planish_wait` waits for them. The
// name's number is what the global address is a multiple of.
PLANISH_DEVICE void planish_copy_16(void* to, const void* from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;"
               :: "r"(planish_shared(to)), "l"(from) : "memory");
}
PLANISH_DEVICE void planish_copy_8(void* to, const void* from) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 8;"
               "cp.async.ca.shared.global [%0+8], [%1+8], 8;"
               :: "r"(planish_shared(to)), "l"(from) : "memory");
}
PLANISH_DEVICE void planish_copy_4(void* to, const void* from) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;"
               "cp.async.ca.shared.global [%0+4], [%1+4], 4;"
               "cp.async.ca.shared.global [%0+8], [%1+8], 4;"
               "cp.async.ca.shared.global [%0+12], [%1+12], 4;"
               :: "r"(planish_shared(to)), "l"(from) : "memory");
}
// There are no asynchronous copies of less: this one is done when it returns.
PLANISH_DEVICE void planish_copy_1(void* to, const void* from) {
  uint32_t parts[4];
  planish_fetch_1(parts, from);
  planish_put_16(to, parts[0], parts[1], parts[2], parts[3]);
}

// Ends a group of this thread's copies.
PLANISH_DEVICE void planish_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits for all groups of this thread's copies but the last `left` ones.
#define planish_wait(left) asm volatile("cp.async.wait_group %0;" :: "n"(left) : "memory")
#endif

PLANISH_DEVICE void planish_sync() { __syncthreads(); }

// The nearest integer of a number below 2^22 in magnitude, ties to even: adding 1.5 * 2^23 leaves no
// bits behind the point. A conversion takes as long as four additions.
PLANISH_DEVICE int planish_small(float x) {
  return __float_as_int(__fadd_rn(x, 12582912.f)) - 0x4b400000;
}
PLANISH_DEVICE float planish_whole(float x) {
  return __fadd_rn(__fadd_rn(x, 12582912.f), -12582912.f);
}

// float32(total) * multiplier.
PLANISH_DEVICE float planish_scale(int total, float multiplier) {
  return __fmul_rn(__int2float_rn(total), multiplier);
}

// clamp(rne(float32(total) * multiplier), lo, hi): lo and hi are integers, below 2^10 in magnitude.
PLANISH_DEVICE int planish_requantize(int total, float multiplier, float lo, float hi) {
  return planish_small(fminf(fmaxf(planish_scale(total, multiplier), lo), hi));
}

// clamp(rne((own * own_factor + other * other_factor + offset) * scale), lo, hi), where own is what
// `requantize` gives with its bounds, and other 0..255. But for the last product all are integers
// below 2^24 in magnitude, so that nothing before it rounds.
PLANISH_DEVICE int planish_add(int total, float multiplier, float own_lo, float own_hi, int other,
                               float own_factor, float other_factor, float offset, float scale,
                               float lo, float hi) {
  const float product = planish_scale(total, multiplier);
  const float own = planish_whole(fminf(fmaxf(product, own_lo), own_hi));
  const float others = __fadd_rn(__int_as_float(other | 0x4b000000), -8388608.f);
  const float right = __fadd_rn(__fmul_rn(others, other_factor), offset);
  const float sum = __fmul_rn(__fadd_rn(__fmul_rn(own, own_factor), right), scale);
  return planish_small(fminf(fmaxf(sum, lo), hi));
}

// Four numbers 0..255 as bytes, the first one lowest.
PLANISH_DEVICE uint32_t planish_pack(int a, int b, int c, int d) {
  return __byte_perm(__byte_perm(a, b, 0x0040), __byte_perm(c, d, 0x0040), 0x5410);
}

// Byte i of a word, as a number 0..255.
PLANISH_DEVICE int planish_byte(uint32_t word, int i) { return word >> 8 * i & 255; }

// Bytes of two words, as chosen by the hexadecimal digits of `order`, the lowest one first.
PLANISH_DEVICE uint32_t planish_bytes(uint32_t low, uint32_t high, uint32_t order) {
  return __byte_perm(low, high, order);
}

// Correctly rounded, whatever the compiler's options: what the numeric contract names.
PLANISH_DEVICE int planish_nearest(float x) { return __float2int_rn(x); }
PLANISH_DEVICE float planish_round(float x) { return rintf(x); }
PLANISH_DEVICE float planish_sqrt(float x) { return __fsqrt_rn(x); }
PLANISH_DEVICE float planish_divide(float x, float y) { return __fdiv_rn(x, y); }

// The bits of a float16, and back.
PLANISH_DEVICE uint16_t planish_to_half(float x) {
  uint16_t bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
  return bits;
}
PLANISH_DEVICE float planish_from_half(uint16_t bits) {
  float x;
  asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
  return x;
}
