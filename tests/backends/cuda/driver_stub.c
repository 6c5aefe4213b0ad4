// A stand-in for NVIDIA's driver with its true types: memory is this process's, a cubin's kernels
// are those that the test names, and a graph's launches go to the emulator.
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { INVALID = 1, NOT_FOUND = 500, MOST = 64 };
typedef unsigned long long Address;
typedef const char* (*Emulate)(int number, const unsigned* sizes, void** values,
                               const size_t* memory, size_t memories, int backwards);
typedef struct { const char* name; int number, arguments; } Kernel;
typedef struct { const Kernel* kernel; unsigned sizes[6]; Address values[16]; } Node;
typedef struct { int count; Node nodes[256]; } Graph;

static Emulate emulate;  // runs one kernel at a time
static pthread_mutex_t one = PTHREAD_MUTEX_INITIALIZER;
static Kernel kernels[MOST];
static int kernel_count;
typedef struct { Graph* recorded; } Stream;

static int context, module;
_Atomic int stub_memories, stub_graphs, stub_streams, stub_launches, stub_failure, stub_full;

void stub_begin(Emulate launch) { emulate = launch; kernel_count = 0; }
void stub_kernel(const char* name, int number, int arguments) {
  kernels[kernel_count++] = (Kernel){strdup(name), number, arguments};
}

int cuInit(unsigned flags) { return flags ? INVALID : 0; }
int cuDeviceGetCount(int* count) { *count = 1; return 0; }
int cuDeviceGet(int* device, int ordinal) { *device = 7; return ordinal ? INVALID : 0; }
int cuDeviceGetName(char* name, int length, int device) {
  if (device != 7 || length < 8) return INVALID;
  strcpy(name, "Stub");
  return 0;
}
int cuDeviceGetAttribute(int* number, int attribute, int device) {
  switch (device == 7 ? attribute : 0) {
    case 75: *number = 8; return 0;        // the compute capability
    case 76: *number = 6; return 0;
    case 16: *number = 10; return 0;       // multiprocessors
    case 13: *number = 1500000; return 0;  // clocks in kHz
    case 36: *number = 5000000; return 0;
    case 37: *number = 256; return 0;      // bits of the bus
    default: return INVALID;
  }
}
int cuGetErrorName(int status, const char** name) {
  *name = status == 209 ? "CUDA_ERROR_NO_BINARY_FOR_GPU"
          : status == 2 ? "CUDA_ERROR_OUT_OF_MEMORY"
                        : "CUDA_ERROR_UNKNOWN";
  return 0;
}
int cuDevicePrimaryCtxRetain(void** made, int device) {
  *made = &context;
  if (stub_full) return 2;
  return device == 7 ? 0 : INVALID;
}
int cuCtxSetCurrent(void* wanted) { return wanted == &context ? 0 : INVALID; }
int cuModuleLoadData(void** made, const void* image) {
  *made = &module;
  if (stub_failure) return stub_failure;
  return memcmp(image, "\177ELF", 4) ? INVALID : 0;
}
int cuModuleUnload(void* unloaded) { return unloaded == &module ? 0 : INVALID; }
int cuModuleGetFunction(const Kernel** function, void* loaded, const char* name) {
  for (int i = 0; i < kernel_count && loaded == &module; ++i) {
    *function = &kernels[i];
    if (!strcmp(kernels[i].name, name)) return 0;
  }
  return NOT_FOUND;
}
int cuFuncGetAttribute(int* number, int attribute, const Kernel* kernel) {
  *number = 32;
  return attribute == 4 && kernel->name ? 0 : INVALID;
}
int cuStreamCreate(Stream** made, unsigned flags) {
  *made = calloc(1, sizeof(Stream));
  ++stub_streams;
  return flags == 1 ? 0 : INVALID;
}
int cuStreamDestroy_v2(Stream* stream) {
  free(stream);
  --stub_streams;
  return 0;
}
int cuStreamSynchronize(Stream* stream) {
  return stream->recorded ? INVALID : 0;
}

int cuMemAlloc_v2(Address* address, size_t size) {
  const size_t rounded = (size + 511) / 256 * 256;
  void* memory = aligned_alloc(256, rounded);
  memset(memory, 0xA5, rounded);  // a kernel that reads what nobody wrote shows
  *address = (Address)memory;
  ++stub_memories;
  return size ? 0 : INVALID;
}
int cuMemFree_v2(Address address) {
  free((void*)address);
  --stub_memories;
  return 0;
}
int cuMemcpyHtoDAsync_v2(Address to, const void* from, size_t size, Stream* stream) {
  memcpy((void*)to, from, size);
  return stream->recorded ? INVALID : 0;
}
int cuMemcpyDtoHAsync_v2(void* to, Address from, size_t size, Stream* stream) {
  memcpy(to, (const void*)from, size);
  return stream->recorded ? INVALID : 0;
}

int cuStreamBeginCapture_v2(Stream* stream, int mode) {
  stream->recorded = calloc(1, sizeof(Graph));
  return mode == 1 ? 0 : INVALID;
}
int cuLaunchKernel(const Kernel* kernel, unsigned gx, unsigned gy, unsigned gz, unsigned bx,
                   unsigned by, unsigned bz, unsigned shared, Stream* stream, void** values,
                   void** extra) {
  if (!stream->recorded || shared || extra) return INVALID;
  Node* node = &stream->recorded->nodes[stream->recorded->count++];
  *node = (Node){kernel, {gx, gy, gz, bx, by, bz}};
  for (int i = 0; i < kernel->arguments; ++i) node->values[i] = *(Address*)values[i];
  return 0;
}
int cuStreamEndCapture(Stream* stream, Graph** made) {
  *made = stream->recorded;
  stream->recorded = NULL;
  return *made ? 0 : INVALID;
}
int cuGraphInstantiateWithFlags(Graph** made, const Graph* graph, unsigned long long flags) {
  *made = malloc(sizeof(Graph));
  **made = *graph;
  ++stub_graphs;
  return flags ? INVALID : 0;
}
int cuGraphDestroy(Graph* graph) {
  free(graph);
  return 0;
}
int cuGraphExecDestroy(Graph* graph) {
  --stub_graphs;
  return cuGraphDestroy(graph);
}
int cuGraphLaunch(Graph* graph, Stream* stream) {
  ++stub_launches;
  for (int i = 0; i < graph->count; ++i) {
    Node* node = &graph->nodes[i];
    void* values[16];
    for (int j = 0; j < 16; ++j) values[j] = &node->values[j];
    pthread_mutex_lock(&one);
    const char* error = emulate(node->kernel->number, node->sizes, values, NULL, 0, 0);
    pthread_mutex_unlock(&one);
    if (error && *error) return INVALID;
  }
  return stream->recorded ? INVALID : 0;
}
