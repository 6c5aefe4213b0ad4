// A GPU's threads on one CPU thread, for `emulator.py`: CUDA C text compiles with g++ after this.
//
// Each thread of a block is a fibre with a stack of its own. It runs until it waits: for its block
// (__syncthreads) or for its warp (an instruction that 32 threads execute together). When every
// thread has finished or waits, those whose group is complete go on; a group that can't become
// complete is an error. Blocks run one after the other, so static memory is a block's shared memory.

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <utility>
#include <vector>
#include <sys/mman.h>

#define __global__
#define __device__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __shared__ static
#define __align__(n) __attribute__((aligned(n)))
#define alignas(n) __attribute__((aligned(n)))  // may stand behind `static`

typedef unsigned char uchar;
typedef unsigned short ushort;
typedef unsigned int uint;

struct uint3 { unsigned x, y, z; };
template <class T, int n> struct planish_vector;
#define PLANISH_VECTORS(T, name) \
  struct name##2 { T x, y; } __align__(2 * sizeof(T)); \
  struct name##4 { T x, y, z, w; } __align__(4 * sizeof(T) < 16 ? 4 * sizeof(T) : 16); \
  static inline name##2 make_##name##2(T x, T y) { return {x, y}; } \
  static inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
PLANISH_VECTORS(signed char, char)
PLANISH_VECTORS(unsigned char, uchar)
PLANISH_VECTORS(short, short)
PLANISH_VECTORS(unsigned short, ushort)
PLANISH_VECTORS(int, int)
PLANISH_VECTORS(unsigned, uint)
PLANISH_VECTORS(float, float)

static uint3 threadIdx, blockIdx, blockDim, gridDim;

namespace planish_emulator {

enum State { READY, AT_BARRIER, IN_WARP, DONE };
enum Collective { NONE, LOAD_MATRICES, MMA, SYNC_WARP };

constexpr size_t STACK = 64 * 1024;
constexpr unsigned LANES = 32;

struct Copy { void* to; const void* from; };  // of 16 bytes

struct Thread {
  void* stack = nullptr;
  char* memory = nullptr;
  uint3 index{};
  State state = DONE;
  const void* arguments[3]{};
  std::vector<std::vector<Copy>> copies;  // groups that wait; the last one is open
};

struct Warp { Collective kind = NONE; unsigned arrived = 0; };

struct Kernel { void (*call)(void**); bool waits; };  // whether its threads wait for others

static std::vector<Thread> threads;
static std::vector<Warp> warps;
static std::vector<std::pair<uintptr_t, size_t>> memory;  // address and bytes
static void* scheduler;
static unsigned current;
static void (*running)(void**);
static void** arguments;
static char message[256];

#if defined(__x86_64__)
extern "C" void planish_switch(void** from, void* to);
asm(".text\n.type planish_switch,@function\nplanish_switch:\n"
    "pushq %rbp\npushq %rbx\npushq %r12\npushq %r13\npushq %r14\npushq %r15\n"
    "movq %rsp, (%rdi)\nmovq %rsi, %rsp\n"
    "popq %r15\npopq %r14\npopq %r13\npopq %r12\npopq %rbx\npopq %rbp\nret\n");
static void begin(Thread& thread, void (*entry)()) {
  void** top = reinterpret_cast<void**>(thread.memory + STACK) - 2;
  top[0] = reinterpret_cast<void*>(entry);  // where the first switch returns to
  thread.stack = top - 6;
}
#elif defined(__aarch64__)
extern "C" void planish_switch(void** from, void* to);
asm(".text\n.type planish_switch,%function\nplanish_switch:\n"
    "sub sp, sp, #160\n"
    "stp x19, x20, [sp]\nstp x21, x22, [sp, #16]\nstp x23, x24, [sp, #32]\n"
    "stp x25, x26, [sp, #48]\nstp x27, x28, [sp, #64]\nstp x29, x30, [sp, #80]\n"
    "stp d8, d9, [sp, #96]\nstp d10, d11, [sp, #112]\n"
    "stp d12, d13, [sp, #128]\nstp d14, d15, [sp, #144]\n"
    "mov x9, sp\nstr x9, [x0]\nmov sp, x1\n"
    "ldp x19, x20, [sp]\nldp x21, x22, [sp, #16]\nldp x23, x24, [sp, #32]\n"
    "ldp x25, x26, [sp, #48]\nldp x27, x28, [sp, #64]\nldp x29, x30, [sp, #80]\n"
    "ldp d8, d9, [sp, #96]\nldp d10, d11, [sp, #112]\n"
    "ldp d12, d13, [sp, #128]\nldp d14, d15, [sp, #144]\n"
    "add sp, sp, #160\nret\n");
static void begin(Thread& thread, void (*entry)()) {
  void** frame = reinterpret_cast<void**>(thread.memory + STACK) - 20;
  frame[11] = reinterpret_cast<void*>(entry);  // x30: where the first switch returns to
  thread.stack = frame;
}
#else
#error "the emulator switches stacks on x86-64 and aarch64 only"
#endif

static void fail(const char* what, unsigned number) {
  if (!message[0]) {
    snprintf(message, sizeof message, "%s (%u) in block %u, %u, %u", what, number, blockIdx.x,
             blockIdx.y, blockIdx.z);
  }
}

static uint3 position(unsigned thread) {
  const unsigned row = thread / blockDim.x;
  return {thread % blockDim.x, row % blockDim.y, row / blockDim.y};
}

// What g++ calls for an index of an array, in shared memory or a thread's own, that is outside.
extern "C" __attribute__((visibility("hidden"))) void __ubsan_handle_out_of_bounds(void*, void* i) {
  fail("an index is outside of its array", unsigned(uintptr_t(i)));
}

// Leaves the running fibre until it is ready again.
static __attribute__((noinline)) void wait(State state) {
  const unsigned self = current;
  threads[self].state = state;
  planish_switch(&threads[self].stack, scheduler);
}

static void entry() {
  running(arguments);
  wait(DONE);
}

static void resume(unsigned number) {
  current = number;
  threadIdx = threads[number].index;
  planish_switch(&scheduler, threads[number].stack);
}

// What `compute` does for a warp, once all of its threads have come with their arguments.
template <class Compute>
static __attribute__((noinline)) void together(Collective kind, const void* a, const void* b,
                                               const void* c, Compute compute) {
  Warp& warp = warps[current / LANES];
  Thread* lanes = &threads[current / LANES * LANES];
  Thread& self = threads[current];
  self.arguments[0] = a, self.arguments[1] = b, self.arguments[2] = c;
  if (warp.arrived && warp.kind != kind) fail("threads of a warp execute different things", current);
  warp.kind = kind;
  if (++warp.arrived < LANES) return wait(IN_WARP);
  warp = Warp{};
  compute(lanes);
  for (unsigned i = 0; i < LANES; ++i) lanes[i].state = READY;
}

// Runs the threads of a block until each one has finished or waits for others.
static void advance(unsigned count, bool backwards) {
  for (unsigned first = 0; first < count; first += LANES) {
    const unsigned lanes = count - first < LANES ? count - first : LANES;
    for (bool moved = true; moved && !message[0];) {
      moved = false;
      for (unsigned i = 0; i < lanes && !message[0]; ++i) {
        const unsigned number = first + (backwards ? lanes - 1 - i : i);
        if (threads[number].state != READY) continue;
        resume(number);
        moved = true;
      }
    }
  }
}

static void run_block(unsigned count, bool backwards) {
  warps.assign((count + LANES - 1) / LANES, Warp{});
  for (unsigned i = 0; i < count; ++i) {
    Thread& thread = threads[i];
    thread.index = position(i);
    thread.state = READY;
    thread.copies.assign(1, {});
    begin(thread, entry);
  }
  for (;;) {
    advance(count, backwards);
    if (message[0]) return;
    unsigned states[4] = {};
    for (unsigned i = 0; i < count; ++i) ++states[threads[i].state];
    if (states[DONE] == count) return;
    if (states[IN_WARP]) return fail("threads wait for others of their warp", states[IN_WARP]);
    if (states[DONE]) return fail("threads end before a barrier of others", states[DONE]);
    for (unsigned i = 0; i < count; ++i) threads[i].state = READY;
  }
}

static void make_threads(unsigned count) {
  const unsigned known = threads.size();
  const unsigned wanted = (count + LANES - 1) / LANES * LANES;
  if (wanted > known) threads.resize(wanted);
  for (unsigned i = known; i < wanted; ++i) {
    const int kind = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    void* stack = mmap(nullptr, STACK, PROT_READ | PROT_WRITE, kind, -1, 0);
    if (stack == MAP_FAILED) {
      threads.resize(i);
      return fail("there is no memory for the stacks of threads", wanted);
    }
    threads[i].memory = static_cast<char*>(stack);
  }
}

template <class... P, size_t... i>
static void call(void (*kernel)(P...), void** values, std::index_sequence<i...>) {
  kernel(*static_cast<P*>(values[i])...);
}

template <class... P>
static void call(void (*kernel)(P...), void** values) {
  call(kernel, values, std::index_sequence_for<P...>{});
}

// Without anything to wait for, threads are calls.
static void run_plainly(unsigned count, bool backwards) {
  for (unsigned i = 0; i < count; ++i) {
    threadIdx = position(backwards ? count - 1 - i : i);
    running(arguments);
  }
}

// Returns "" or what went wrong.
static const char* launch(const Kernel& kernel, const unsigned* sizes, void** values,
                          const uintptr_t* ranges, size_t known, bool backwards) {
  message[0] = 0;
  memory.clear();
  for (size_t i = 0; i < known; ++i) memory.push_back({ranges[2 * i], ranges[2 * i + 1]});
  gridDim = {sizes[0], sizes[1], sizes[2]};
  blockDim = {sizes[3], sizes[4], sizes[5]};
  running = kernel.call;
  arguments = values;
  const unsigned count = blockDim.x * blockDim.y * blockDim.z;
  if (kernel.waits) make_threads(count);
  for (unsigned z = 0; z < gridDim.z && !message[0]; ++z)
    for (unsigned y = 0; y < gridDim.y && !message[0]; ++y)
      for (unsigned x = 0; x < gridDim.x && !message[0]; ++x) {
        blockIdx = {x, y, z};
        if (kernel.waits) run_block(count, backwards); else run_plainly(count, backwards);
      }
  return message;
}

}  // namespace planish_emulator

static inline void __syncthreads() { planish_emulator::wait(planish_emulator::AT_BARRIER); }
static inline void __syncwarp(unsigned = ~0u) {
  using namespace planish_emulator;
  together(SYNC_WARP, nullptr, nullptr, nullptr, [](Thread*) {});
}
