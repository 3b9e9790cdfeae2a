// Blocks run one after another, each on a thread of its own for fresh shared memory. A fiber runs the threads of a
// block in turn; where a thread has to wait, its fiber stays with it and another one goes on with the next threads.
// Once every thread has ended or waits, those whose partners have come go on.
#include <ucontext.h>

#include <algorithm>
#include <future>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "instructions.h"

dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace cuda_on_host {
namespace {

constexpr int MOST_THREADS = 1024;
constexpr size_t STACK_BYTES = 256 << 10, MOST_GATHERED_BYTES = 64;

enum class State { ended, at_barrier, in_warp };

struct Copy {
  unsigned char* shared;
  unsigned char values[16];
  int line;
};

struct Thread {
  State state;
  int line;
  unsigned mask;
  const void* given;
  size_t bytes;
  ucontext_t* fiber;
  std::vector<Copy> copies;  // begun and not waited for
};

bool backwards = false;
int64_t most_blocks = INT64_MAX;
int compute_capability = 90, multiprocessors = 132;

const std::function<void()>* kernel;
unsigned char* shared;
size_t shared_size;
int threads, started;
Thread thread[MOST_THREADS];
alignas(16) unsigned char gathered[MOST_THREADS * MOST_GATHERED_BYTES];
int current;          // the thread that runs
ucontext_t* running;  // its fiber
ucontext_t scheduler;
std::string failure;

void set_current(int index) {
  current = index;
  threadIdx.x = static_cast<unsigned>(index);
}

void run_threads() {
  while (started < threads) {
    set_current(backwards ? threads - 1 - started : started);
    ++started;
    Thread& self = thread[current];
    self.copies.clear();
    (*kernel)();
    if (!self.copies.empty()) fail(self.copies[0].line, "a copy is never waited for");
    self.state = State::ended;
  }
}

void wait(State state, int line) {
  Thread& self = thread[current];
  self.state = state;
  self.line = line;
  self.fiber = running;
  swapcontext(running, &scheduler);
}

void run(ucontext_t* fiber) {
  running = fiber;
  swapcontext(&scheduler, fiber);
  if (!failure.empty()) throw std::runtime_error(failure);
}

ucontext_t* new_fiber(int index) {
  static ucontext_t fibers[MOST_THREADS];
  static const std::unique_ptr<char[]> stacks(new char[MOST_THREADS * STACK_BYTES]);
  ucontext_t* fiber = &fibers[index];
  getcontext(fiber);
  fiber->uc_stack.ss_sp = stacks.get() + index * STACK_BYTES;
  fiber->uc_stack.ss_size = STACK_BYTES;
  fiber->uc_link = &scheduler;
  makecontext(fiber, &run_threads, 0);
  return fiber;
}

std::string at_line(int line, const std::string& what) { return "line " + std::to_string(line) + ": " + what; }

// Of the warp's lanes in the thread's mask, all must be where it is.
void meet_warp(int index) {
  Thread& self = thread[index];
  const int first = index / WARP * WARP;
  for (int lane = 0; lane < WARP; ++lane) {
    if ((self.mask >> lane & 1) == 0) continue;
    const Thread& other = thread[first + lane];
    if (first + lane >= threads || other.state != State::in_warp || other.line != self.line ||
        other.mask != self.mask || other.bytes != self.bytes) {
      throw std::runtime_error(
          at_line(self.line, "lane " + std::to_string(lane) + " is missing from an instruction of its warp"));
    }
  }
  std::memcpy(gathered + first * MOST_GATHERED_BYTES + index % WARP * self.bytes, self.given, self.bytes);
}

// Which threads go on; none once all have ended.
std::vector<int> released() {
  std::vector<int> in_warp, waiting;
  for (int place = 0; place < threads; ++place) {
    const int index = backwards ? threads - 1 - place : place;
    if (thread[index].state == State::in_warp) in_warp.push_back(index);
    if (thread[index].state == State::at_barrier) waiting.push_back(index);
  }
  if (!in_warp.empty()) {
    for (const int index : in_warp) meet_warp(index);
    return in_warp;
  }
  for (const int index : waiting) {
    if (thread[index].line != thread[waiting[0]].line) {
      throw std::runtime_error(at_line(thread[index].line, "threads wait at different barriers"));
    }
  }
  if (!waiting.empty() && static_cast<int>(waiting.size()) < threads) {
    throw std::runtime_error(at_line(thread[waiting[0]].line, "some threads never reach a barrier"));
  }
  return waiting;
}

void run_block() {
  started = 0;
  for (int fibers = 0; started < threads; ++fibers) run(new_fiber(fibers));
  for (std::vector<int> next = released(); !next.empty(); next = released()) {
    for (const int index : next) {
      set_current(index);
      run(thread[index].fiber);
    }
  }
}

// 16 aligned bytes of the block's shared memory.
void check_shared(const void* address, int line) {
  const auto* begin = static_cast<const unsigned char*>(address);
  if (reinterpret_cast<uintptr_t>(begin) % 16 != 0) fail(line, "an address is not a multiple of 16");
  if (begin < shared || begin + 16 > shared + shared_size) fail(line, "an address is not in shared memory");
}

}  // namespace

void launch(int64_t blocks, int block_threads, int shared_bytes, cudaStream_t,
            const std::function<void()>& block_kernel) {
  if (block_threads < 1 || block_threads > MOST_THREADS) throw std::runtime_error("a block has 1 to 1024 threads");
  if (shared_bytes > 227 << 10) throw std::runtime_error("a block has at most 227 KB of shared memory");
  const std::unique_ptr<unsigned char[]> memory(new unsigned char[shared_bytes]);
  shared = memory.get();
  shared_size = shared_bytes;
  kernel = &block_kernel;
  threads = block_threads;
  failure.clear();
  blockDim.x = static_cast<unsigned>(threads);
  gridDim.x = static_cast<unsigned>(std::min(blocks, most_blocks));
  for (unsigned place = 0; place < gridDim.x; ++place) {
    blockIdx.x = backwards ? gridDim.x - 1 - place : place;
    std::memset(shared, 0xff, shared_bytes);  // not numbers
    std::async(std::launch::async, run_block).get();
  }
}

unsigned char* shared_memory() { return shared; }

void fail(int line, const std::string& what) {
  failure = at_line(line, what);
  setcontext(&scheduler);
  __builtin_unreachable();
}

void barrier(int line) { wait(State::at_barrier, line); }

const void* gather(unsigned mask, const void* mine, size_t bytes, int line) {
  Thread& self = thread[current];
  self.mask = mask;
  self.given = mine;
  self.bytes = bytes;
  wait(State::in_warp, line);
  return gathered + current / WARP * WARP * MOST_GATHERED_BYTES;
}

void begin_copy(void* destination, const void* global, int line) {
  check_shared(destination, line);
  if (reinterpret_cast<uintptr_t>(global) % 16 != 0) fail(line, "an address is not a multiple of 16");
  Copy copy{static_cast<unsigned char*>(destination), {}, line};
  std::memcpy(copy.values, global, 16);
  std::memset(destination, 0xff, 16);
  thread[current].copies.push_back(copy);
}

void wait_for_copies() {
  for (const Copy& copy : thread[current].copies) std::memcpy(copy.shared, copy.values, 16);
  thread[current].copies.clear();
}

const Rows& gather_rows(const void* row, int line) {
  check_shared(row, line);
  return *reinterpret_cast<const Rows*>(gather(WHOLE_WARP, row, line));
}

}  // namespace cuda_on_host

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  using namespace cuda_on_host;
  *value = attribute == cudaDevAttrMultiProcessorCount                ? multiprocessors
           : attribute == cudaDevAttrMaxSharedMemoryPerMultiprocessor ? 228 << 10
           : attribute == cudaDevAttrComputeCapabilityMajor           ? compute_capability / 10
                                                                      : compute_capability % 10;
  return cudaSuccess;
}

extern "C" __attribute__((visibility("default"))) void set_multiprocessors(int value) {
  cuda_on_host::multiprocessors = value;
}

extern "C" __attribute__((visibility("default"))) void set_compute_capability(int value) {
  cuda_on_host::compute_capability = value;
}

extern "C" __attribute__((visibility("default"))) void set_schedule(bool backwards, int64_t most_blocks) {
  cuda_on_host::backwards = backwards;
  cuda_on_host::most_blocks = most_blocks;
}
