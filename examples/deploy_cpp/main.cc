// Runs what `planish unpack` wrote: a network in C++, with TVM's small runtime and nothing else.
//
//   deploy FOLDER INPUT... OUTPUT...
//
// INPUT and OUTPUT are raw files, one for each input and output of the network, in the order and
// with the dtypes and sizes that FOLDER/interface.txt names.

#include <tvm/ffi/container/array.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/error.h>
#include <tvm/ffi/extra/module.h>
#include <tvm/ffi/function.h>

#include <sys/auxv.h>
#include <sys/utsname.h>

#include <cstdint>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>
#include <memory>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

namespace ffi = tvm::ffi;

// Memory that begins on a cache line, as the kernels' vectors need it.
class Memory {
 public:
  explicit Memory(std::size_t bytes)
      : bytes_(bytes), data_(std::aligned_alloc(64, (bytes + 63) / 64 * 64), std::free) {
    if (bytes && !data_) throw std::bad_alloc();
  }
  char* data() const { return static_cast<char*>(data_.get()); }
  std::size_t bytes() const { return bytes_; }

 private:
  std::size_t bytes_;
  std::unique_ptr<void, void (*)(void*)> data_;
};

struct Tensor {
  std::string name;
  DLDataType dtype;
  std::vector<int64_t> shape, strides;

  std::size_t bytes() const {
    std::size_t size = dtype.bits / 8;
    for (int64_t axis : shape) size *= static_cast<std::size_t>(axis);
    return size;
  }

  DLTensor view(const Memory& memory) {
    strides.assign(shape.size(), 1);
    for (std::size_t i = shape.size(); i-- > 1;) strides[i - 1] = strides[i] * shape[i];
    DLTensor result{};
    result.data = memory.data();
    result.device = {kDLCPU, 0};
    result.ndim = static_cast<int32_t>(shape.size());
    result.dtype = dtype;
    result.shape = shape.data();
    result.strides = strides.data();
    return result;
  }
};

struct Interface {
  std::string entry, machine;
  std::vector<std::string> cpu_flags;
  int threads = 1;
  std::size_t parameters = 0, workspace = 0;
  std::vector<Tensor> inputs, outputs;
};

std::string place(const std::string& folder, const char* file) { return folder + "/" + file; }

DLDataType dtype_of(const std::string& name) {
  static const std::map<std::string, DLDataType> known = {
      {"float32", {kDLFloat, 32, 1}}, {"float64", {kDLFloat, 64, 1}},
      {"float16", {kDLFloat, 16, 1}}, {"uint8", {kDLUInt, 8, 1}},
      {"int8", {kDLInt, 8, 1}},       {"int16", {kDLInt, 16, 1}},
      {"int32", {kDLInt, 32, 1}},     {"int64", {kDLInt, 64, 1}},
      {"bool", {kDLBool, 8, 1}},
  };
  auto found = known.find(name);
  if (found == known.end()) throw std::runtime_error("unknown dtype " + name);
  return found->second;
}

Tensor bytes_tensor(std::size_t bytes) {
  Tensor tensor;
  tensor.dtype = dtype_of("uint8");
  tensor.shape = {static_cast<int64_t>(bytes)};
  return tensor;
}

Tensor read_tensor(std::istringstream& line) {
  Tensor tensor;
  std::string dtype;
  std::size_t axes = 0;
  line >> dtype >> axes;
  tensor.dtype = dtype_of(dtype);
  tensor.shape.resize(axes);
  for (int64_t& axis : tensor.shape) line >> axis;
  std::getline(line >> std::ws, tensor.name);
  return tensor;
}

// CRC-32, as zlib and many other libraries compute it.
uint32_t checksum(const std::string& text) {
  uint32_t sum = 0xffffffff;
  for (unsigned char byte : text) {
    sum ^= byte;
    for (int bit = 0; bit < 8; ++bit) sum = sum >> 1 ^ (sum & 1 ? 0xedb88320 : 0);
  }
  return ~sum;
}

// Numbers that don't fit the library would let it write anywhere, so none is believed unless all
// lines are as `planish unpack` wrote them.
std::string checked_lines(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream all;
  if (!file || !(all << file.rdbuf())) throw std::runtime_error("can't read " + path);
  const std::string text = all.str(), word = "\nchecksum ";
  const std::size_t end = text.rfind(word);
  const std::string lines = text.substr(0, end == std::string::npos ? 0 : end + 1);
  uint32_t expected = 0;
  if (lines.empty() ||
      !(std::istringstream(text.substr(end + word.size())) >> std::hex >> expected) ||
      checksum(lines) != expected) {
    throw std::runtime_error(path + " is damaged or was changed; unpack the artifact anew");
  }
  return lines;
}

Interface read_interface(const std::string& path) {
  std::istringstream file(checked_lines(path));
  Interface found;
  for (std::string text; std::getline(file, text);) {
    std::istringstream line(text);
    std::string word;
    line >> word;
    if (word == "entry") line >> found.entry;
    if (word == "machine") line >> found.machine;
    if (word == "cpu_flags") {
      for (std::string flag; line >> flag;) found.cpu_flags.push_back(flag);
      continue;
    }
    if (word == "threads") line >> found.threads;
    if (word == "parameters") line >> found.parameters;
    if (word == "workspace") line >> found.workspace;
    if (word == "input") found.inputs.push_back(read_tensor(line));
    if (word == "output") found.outputs.push_back(read_tensor(line));
    if (line.fail()) throw std::runtime_error("can't read this line of " + path + ": " + text);
  }
  if (found.entry.empty()) throw std::runtime_error(path + " names no entry");
  return found;
}

// The processor's features by Linux's names: of x86 all, of ARM those that planish's targets need.
std::set<std::string> processor_flags() {
  std::set<std::string> found;
#ifdef __aarch64__
  // Bits of Linux's arch/arm64 uapi/asm/hwcap.h; under emulation /proc is the host's.
  if (getauxval(AT_HWCAP) >> 1 & 1) found.insert("asimd");
  if (getauxval(AT_HWCAP) >> 20 & 1) found.insert("asimddp");
  if (getauxval(AT_HWCAP2) >> 13 & 1) found.insert("i8mm");
#else
  std::ifstream file("/proc/cpuinfo");
  for (std::string text; found.empty() && std::getline(file, text);) {
    std::istringstream line(text);
    std::string word;
    if (!(line >> word) || word != "flags") continue;
    while (line >> word) found.insert(word);
  }
#endif
  return found;
}

// The loader's own words for a library of another machine are "no such file", and its code would
// end the program where the processor lacks an instruction.
void check_processor(const Interface& interface) {
  utsname here{};
  if (uname(&here) != 0) throw std::runtime_error("the system doesn't tell its machine");
  if (interface.machine != here.machine) {
    throw std::runtime_error("the library is for " + interface.machine + ", this machine is " +
                             here.machine);
  }
  const std::set<std::string> has = processor_flags();
  std::string missing;
  for (const std::string& flag : interface.cpu_flags) {
    if (!has.count(flag)) missing += " " + flag;
  }
  if (!missing.empty()) {
    throw std::runtime_error("the library needs what this processor lacks:" + missing);
  }
}

Memory read_memory(const std::string& path, std::size_t bytes) {
  // A folder opens like a file.
  if (std::filesystem::is_directory(path)) throw std::runtime_error(path + " is a folder");
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) throw std::runtime_error("can't read " + path);
  const auto size = static_cast<std::size_t>(file.tellg());
  if (size != bytes) {
    throw std::runtime_error(path + " has " + std::to_string(size) + " bytes, expected " +
                             std::to_string(bytes));
  }
  Memory memory(bytes);
  file.seekg(0);
  if (!file.read(memory.data(), static_cast<std::streamsize>(bytes))) {
    throw std::runtime_error("can't read " + path);
  }
  return memory;
}

void write_memory(const std::string& path, const Memory& memory) {
  std::ofstream file(path, std::ios::binary);
  file.write(memory.data(), static_cast<std::streamsize>(memory.bytes()));
  if (!file.flush()) throw std::runtime_error("can't write " + path);
}

// The loader calls a file of another machine missing, too.
ffi::Module load_library(const std::string& path) {
  if (!std::filesystem::is_regular_file(path)) throw std::runtime_error("can't read " + path);
  try {
    return ffi::Module::LoadFromFile(path);
  } catch (const ffi::Error& error) {
    throw std::runtime_error(path + " is for another machine or damaged; the loader says: " +
                             error.message());
  }
}

// TVM would take half of the machine's cores; its threads, this one among them, share the first n.
void use_threads(int count) {
  const int shared = -3;
  ffi::Array<ffi::String> cores;
  for (int core = 0; core < count; ++core) cores.push_back(std::to_string(core));
  ffi::Function::GetGlobalRequired("runtime.config_threadpool")(shared, count, cores);
}

void run(const std::string& folder, const std::vector<std::string>& files) {
  Interface interface = read_interface(place(folder, "interface.txt"));
  const std::size_t inputs = interface.inputs.size(), outputs = interface.outputs.size();
  if (files.size() != inputs + outputs) {
    throw std::runtime_error(std::to_string(files.size()) + " files given, the network has " +
                             std::to_string(inputs) + " inputs and " + std::to_string(outputs) +
                             " outputs");
  }

  check_processor(interface);

  // What is loaded once, however often the network runs.
  const ffi::Module library = load_library(place(folder, "library.so"));
  const ffi::Optional<ffi::Function> entry = library->GetFunction(interface.entry);
  if (!entry.has_value()) throw std::runtime_error("the library has no " + interface.entry);
  const Tensor parameters = bytes_tensor(interface.parameters);
  const Tensor workspace = bytes_tensor(interface.workspace);
  if (interface.threads > 1) use_threads(interface.threads);

  std::vector<Memory> memories;
  for (std::size_t i = 0; i < inputs; ++i) {
    memories.push_back(read_memory(files[i], interface.inputs[i].bytes()));
  }
  for (const Tensor& output : interface.outputs) memories.emplace_back(output.bytes());
  memories.push_back(read_memory(place(folder, "parameters.bin"), interface.parameters));
  memories.emplace_back(interface.workspace);

  std::vector<Tensor> tensors = interface.inputs;
  tensors.insert(tensors.end(), interface.outputs.begin(), interface.outputs.end());
  tensors.push_back(parameters);
  tensors.push_back(workspace);
  std::vector<DLTensor> views;
  for (std::size_t i = 0; i < tensors.size(); ++i) views.push_back(tensors[i].view(memories[i]));
  std::vector<ffi::AnyView> arguments;
  for (DLTensor& view : views) arguments.emplace_back(&view);

  ffi::Any status;
  entry.value().CallPacked(arguments.data(), static_cast<int32_t>(arguments.size()), &status);
  if (status.cast<int>() != 0) throw std::runtime_error("a parallel kernel failed");

  for (std::size_t i = 0; i < outputs; ++i) write_memory(files[inputs + i], memories[inputs + i]);
}

}  // namespace

int main(int count, char** words) {
  if (count < 2) {
    std::cerr << "usage: deploy FOLDER INPUT... OUTPUT...\n";
    return 2;
  }
  try {
    run(words[1], std::vector<std::string>(words + 2, words + count));
  } catch (const ffi::Error& error) {
    std::cerr << "deploy: " << error.message() << "\n";
    return 1;
  } catch (const std::exception& error) {
    std::cerr << "deploy: " << error.what() << "\n";
    return 1;
  }
  return 0;
}
