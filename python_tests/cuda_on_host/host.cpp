// Runs the blocks of a kernel one after another. A fiber runs the threads of a block in turn. Where a thread has to
// wait, its fiber stays with it and another fiber goes on with the next threads. Once every thread has ended or
// waits, those whose partners have come go on. This file is compiled without sanitizers, which are for the kernels.
#include <link.h>
#include <sys/mman.h>

#include <algorithm>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "fiber.h"
#include "instructions.h"

extern "C" __attribute__((weak)) void __asan_unpoison_memory_region(void const volatile* address, size_t bytes);

dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace cuda_on_host {
namespace {

constexpr int MOST_THREADS = 1024;
constexpr size_t STACK_BYTES = 256 << 10;

enum class State { ended, at_barrier, in_warp };

struct Thread {
  State state;
  int line;
  unsigned mask;
  const uint64_t* given;
  size_t words;
  Fiber* fiber;
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
volatile uint64_t gathered[MOST_THREADS]
                          [SLOT_WORDS];  // volatile: ThreadSanitizer watches memcpy, which is not called
Fiber fibers[MOST_THREADS], scheduler;
int current;     // the thread that runs
Fiber* running;  // its fiber
std::string failure;
bool unfinished = false;  // the last launch failed

std::string at_line(int line, const std::string& what) { return "line " + std::to_string(line) + ": " + what; }

[[noreturn]] void throw_at(int line, const std::string& what) { throw std::runtime_error(at_line(line, what)); }

int in_order(int place) { return backwards ? threads - 1 - place : place; }

void set_current(int index) {
  current = index;
  threadIdx.x = static_cast<unsigned>(index);
}

void run_threads() {
  do {
    set_current(in_order(started++));
    Thread& self = thread[current];
    self.fiber = running;
    self.copies.clear();
    (*kernel)();
    if (!self.copies.empty()) fail(self.copies[0].line, "a copy is never waited for");
    self.state = State::ended;
  } while (started < threads && !Fiber::sanitizes_threads());
  running->switch_to(scheduler);
}

void wait(State state, int line) {
  Thread& self = thread[current];
  self.state = state;
  self.line = line;
  running->switch_to(scheduler);
}

unsigned char* stacks() {
  static void* const memory = mmap(nullptr, MOST_THREADS * STACK_BYTES, PROT_READ | PROT_WRITE,
                                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return static_cast<unsigned char*>(memory);
}

void run(Fiber* fiber) {
  running = fiber;
  scheduler.switch_to(*fiber);
  if (!failure.empty()) throw std::runtime_error(failure);
}

Fiber* new_fiber(int index) {
  const size_t colour = index * size_t{1088} % 16384;  // or else all stacks would share the same sets of the cache
  fibers[index].start(&run_threads, stacks() + index * STACK_BYTES, STACK_BYTES - colour);
  return &fibers[index];
}

void synchronise_everything() {
  if (!Fiber::sanitizes_threads()) return;
  std::vector<Fiber*> all = {&scheduler};
  for (Fiber& fiber : fibers) all.push_back(&fiber);
  Fiber::synchronise(all, &fibers);
}

// Lets the lanes of a warp meet: all lanes in the mask of one that waits must wait at the same instruction.
void meet_in_warp(int first) {
  static std::vector<Fiber*> group;
  unsigned met = 0;
  for (int lane = 0; lane < WARP && first + lane < threads; ++lane) {
    const Thread& self = thread[first + lane];
    if (self.state != State::in_warp || (met >> lane & 1) != 0) continue;
    if ((self.mask >> lane & 1) == 0) throw_at(self.line, "lane " + std::to_string(lane) + " is not in its own mask");
    group.clear();
    for (int partner = 0; partner < WARP; ++partner) {
      if ((self.mask >> partner & 1) == 0) continue;
      const int index = first + partner;
      const Thread& other = thread[index];
      if (index >= threads || other.state != State::in_warp || other.line != self.line || other.mask != self.mask) {
        throw_at(self.line, "lane " + std::to_string(partner) + " is missing from an instruction of its warp");
      }
      std::copy_n(other.given, other.words, gathered[index]);
      group.push_back(other.fiber);
    }
    met |= self.mask;
    if (self.words == 0) Fiber::synchronise(group, &thread[first + lane]);
  }
}

void meet_at_barrier(const Thread& first) {
  std::vector<Fiber*> block;
  for (int index = 0; index < threads; ++index) {
    const Thread& other = thread[index];
    if (other.state != State::at_barrier) throw_at(first.line, "some threads never reach a barrier");
    if (other.line != first.line) throw_at(first.line, "threads wait at different barriers");
    block.push_back(other.fiber);
  }
  Fiber::synchronise(block, &threads);
}

// Lets threads meet that wait for each other. Returns the state of those that go on, or `ended` once all have ended.
State meet() {
  bool in_warps = false;
  const Thread* at_barrier = nullptr;
  for (int index = 0; index < threads; ++index) {
    in_warps |= thread[index].state == State::in_warp;
    if (thread[index].state == State::at_barrier) at_barrier = &thread[index];
  }
  if (in_warps) {
    for (int first = 0; first < threads; first += WARP) meet_in_warp(first);
    return State::in_warp;
  }
  if (at_barrier == nullptr) return State::ended;
  meet_at_barrier(*at_barrier);
  return State::at_barrier;
}

void run_block() {
  started = 0;
  for (int count = 0; started < threads; ++count) run(new_fiber(count));
  for (State state = meet(); state != State::ended; state = meet()) {
    for (int place = 0; place < threads; ++place) {
      const int index = in_order(place);
      if (thread[index].state != state) continue;
      set_current(index);
      run(thread[index].fiber);
    }
  }
}

struct Memory {
  unsigned char* begin;
  size_t bytes;
};

// Finds the shared memory whose size the compiler knows: it is this library's thread_local memory.
Memory static_shared_memory() {
  static thread_local unsigned char inside;
  Memory memory = {&inside, 0};
  const auto find = [](dl_phdr_info* library, size_t, void* result) {
    auto& memory = *static_cast<Memory*>(result);
    auto* const begin = static_cast<unsigned char*>(library->dlpi_tls_data);
    for (int i = 0; begin != nullptr && i < library->dlpi_phnum; ++i) {
      const size_t bytes = library->dlpi_phdr[i].p_memsz;
      if (library->dlpi_phdr[i].p_type != PT_TLS || memory.begin < begin || memory.begin >= begin + bytes) continue;
      memory = {begin, bytes};
      return 1;
    }
    return 0;
  };
  dl_iterate_phdr(find, &memory);
  return memory;
}

int shared_bytes_of_multiprocessor() {
  switch (compute_capability) {
    case 75:
      return 64 << 10;
    case 80:
      return 164 << 10;
    case 86:
    case 89:
      return 100 << 10;
    default:
      return 228 << 10;
  }
}

int most_shared_bytes() {  // of a block; from 8.0 on a part is reserved
  return shared_bytes_of_multiprocessor() - (compute_capability < 80 ? 0 : 1 << 10);
}

}  // namespace

void launch(int64_t blocks, int block_threads, int shared_bytes, cudaStream_t,
            const std::function<void()>& block_kernel) {
  if (block_threads < 1 || block_threads > MOST_THREADS) throw std::runtime_error("a block has 1 to 1024 threads");
  if (shared_bytes > most_shared_bytes()) {
    throw std::runtime_error("a block of this GPU has at most " + std::to_string(most_shared_bytes()) +
                             " bytes of shared memory, not " + std::to_string(shared_bytes));
  }
  const std::unique_ptr<unsigned char[]> memory(new unsigned char[shared_bytes]);
  shared = memory.get();
  shared_size = shared_bytes;
  kernel = &block_kernel;
  threads = block_threads;
  failure.clear();
  scheduler = Fiber::current();
  if (unfinished && __asan_unpoison_memory_region != nullptr) {  // its functions never returned
    __asan_unpoison_memory_region(stacks(), MOST_THREADS * STACK_BYTES);
  }
  unfinished = true;
  const Memory statics = static_shared_memory();
  blockDim.x = static_cast<unsigned>(threads);
  gridDim.x = static_cast<unsigned>(std::min(blocks, most_blocks));
  for (unsigned place = 0; place < gridDim.x; ++place) {
    blockIdx.x = backwards ? gridDim.x - 1 - place : place;
    synchronise_everything();
    std::memset(shared, 0xff, shared_bytes);  // not numbers
    std::memset(statics.begin, 0xff, statics.bytes);
    synchronise_everything();
    run_block();
  }
  synchronise_everything();
  unfinished = false;
}

void barrier(int line) { wait(State::at_barrier, line); }

const void* gather(unsigned mask, const uint64_t* mine, size_t words, int line) {
  Thread& self = thread[current];
  self.mask = mask;
  self.given = mine;
  self.words = words;
  wait(State::in_warp, line);
  return const_cast<const uint64_t*>(gathered[current / WARP * WARP]);
}

void fail(int line, const std::string& what) {
  failure = at_line(line, what);
  running->switch_to(scheduler);
  __builtin_unreachable();
}

unsigned char* shared_memory() { return shared; }

void check_aligned(const void* address, int line) {
  if (reinterpret_cast<uintptr_t>(address) % 16 != 0) fail(line, "an address is not a multiple of 16");
}

void check_shared(const void* address, int line) {
  check_aligned(address, line);
  const auto* begin = static_cast<const unsigned char*>(address);
  if (begin < shared || begin + 16 > shared + shared_size) fail(line, "an address is not in shared memory");
}

std::vector<Copy>& copies() { return thread[current].copies; }

void check_capability(int least, int line) {
  if (compute_capability < least) fail(line, "this GPU lacks the matrix instructions");
}

}  // namespace cuda_on_host

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  using namespace cuda_on_host;
  *value = attribute == cudaDevAttrMultiProcessorCount                ? multiprocessors
           : attribute == cudaDevAttrMaxSharedMemoryPerMultiprocessor ? shared_bytes_of_multiprocessor()
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
