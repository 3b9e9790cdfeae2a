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

#include "cuda_runtime.h"

dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace cuda_on_host {
namespace {

constexpr int WARP = 32, MOST_THREADS = 1024;
constexpr size_t STACK_BYTES = 256 << 10;

enum class State { ended, at_barrier, at_shuffle };

struct Thread {
  State state;
  int line, distance;
  unsigned mask;
  uint64_t bits;
  ucontext_t* fiber;
};

bool backwards = false;
int64_t most_blocks = INT64_MAX;
int compute_capability = 90;

const std::function<void()>* kernel;
unsigned char* shared;
int threads, started;
Thread thread[MOST_THREADS];
int current;          // the thread that runs
ucontext_t* running;  // its fiber
ucontext_t scheduler;

void set_current(int index) {
  current = index;
  threadIdx.x = static_cast<unsigned>(index);
}

void run_threads() {
  while (started < threads) {
    set_current(backwards ? threads - 1 - started : started);
    ++started;
    (*kernel)();
    thread[current].state = State::ended;
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

[[noreturn]] void fail(const Thread& at, const std::string& what) {
  throw std::runtime_error("line " + std::to_string(at.line) + ": " + what);
}

// The bits for a thread at a shuffle, whose partners must all be there.
uint64_t shuffled(int index) {
  const Thread& self = thread[index];
  const int first = index / WARP * WARP, source = index % WARP ^ self.distance;
  for (int lane = 0; lane < WARP; ++lane) {
    if ((self.mask >> lane & 1) == 0) continue;
    const Thread& other = thread[first + lane];
    if (first + lane >= threads || other.state != State::at_shuffle || other.line != self.line ||
        other.mask != self.mask) {
      fail(self, "lane " + std::to_string(lane) + " is missing from a shuffle");
    }
  }
  if (source >= WARP || (self.mask >> source & 1) == 0) fail(self, "a shuffle reads a lane outside its mask");
  return thread[first + source].bits;
}

// Which threads go on; none once all have ended.
std::vector<int> released() {
  std::vector<int> shuffling, waiting;
  for (int place = 0; place < threads; ++place) {
    const int index = backwards ? threads - 1 - place : place;
    if (thread[index].state == State::at_shuffle) shuffling.push_back(index);
    if (thread[index].state == State::at_barrier) waiting.push_back(index);
  }
  if (!shuffling.empty()) {
    std::vector<uint64_t> bits;
    for (const int index : shuffling) bits.push_back(shuffled(index));
    for (size_t k = 0; k < bits.size(); ++k) thread[shuffling[k]].bits = bits[k];
    return shuffling;
  }
  for (const int index : waiting) {
    if (thread[index].line != thread[waiting[0]].line) fail(thread[index], "threads wait at different barriers");
  }
  if (!waiting.empty() && static_cast<int>(waiting.size()) < threads) {
    fail(thread[waiting[0]], "some threads never reach a barrier");
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

}  // namespace

void launch(int64_t blocks, int block_threads, int shared_bytes, cudaStream_t,
            const std::function<void()>& block_kernel) {
  if (block_threads < 1 || block_threads > MOST_THREADS) throw std::runtime_error("a block has 1 to 1024 threads");
  const std::unique_ptr<unsigned char[]> memory(new unsigned char[shared_bytes]);
  shared = memory.get();
  kernel = &block_kernel;
  threads = block_threads;
  blockDim.x = static_cast<unsigned>(threads);
  gridDim.x = static_cast<unsigned>(std::min(blocks, most_blocks));
  for (unsigned place = 0; place < gridDim.x; ++place) {
    blockIdx.x = backwards ? gridDim.x - 1 - place : place;
    std::memset(shared, 0xff, shared_bytes);  // not numbers
    std::async(std::launch::async, run_block).get();
  }
}

uint64_t exchange(unsigned mask, uint64_t bits, int distance, int line) {
  Thread& self = thread[current];
  self.mask = mask;
  self.bits = bits;
  self.distance = distance;
  wait(State::at_shuffle, line);
  return self.bits;
}

unsigned char* shared_memory() { return shared; }

void barrier(int line) { wait(State::at_barrier, line); }

}  // namespace cuda_on_host

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  const int capability = cuda_on_host::compute_capability;
  *value = attribute == cudaDevAttrMultiProcessorCount      ? 2
           : attribute == cudaDevAttrComputeCapabilityMajor ? capability / 10
                                                            : capability % 10;
  return cudaSuccess;
}

extern "C" __attribute__((visibility("default"))) void set_compute_capability(int value) {
  cuda_on_host::compute_capability = value;
}

extern "C" __attribute__((visibility("default"))) void set_schedule(bool backwards, int64_t most_blocks) {
  cuda_on_host::backwards = backwards;
  cuda_on_host::most_blocks = most_blocks;
}
