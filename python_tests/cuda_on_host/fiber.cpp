#include "fiber.h"

#include <cstdint>

// Not null if ThreadSanitizer is loaded.
extern "C" {
__attribute__((weak)) void* __tsan_get_current_fiber();
__attribute__((weak)) void* __tsan_create_fiber(unsigned flags);
__attribute__((weak)) void __tsan_switch_to_fiber(void* fiber, unsigned flags);
__attribute__((weak)) void __tsan_acquire(void* address);
__attribute__((weak)) void __tsan_release(void* address);
}

namespace {

constexpr unsigned WITHOUT_SYNCHRONISATION = 1;

}  // namespace

#ifdef __x86_64__

// Saves the registers that a called function must keep, and the return address, on the stack that it leaves. ucontext
// is four times slower, since it asks the kernel for the signal mask at every switch.
extern "C" void cuda_on_host_switch(void** left, void* taken);
asm(R"(
.text
.type cuda_on_host_switch, @function
cuda_on_host_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size cuda_on_host_switch, .-cuda_on_host_switch
)");

#endif

namespace cuda_on_host {

bool Fiber::sanitizes_threads() { return __tsan_create_fiber != nullptr; }

Fiber Fiber::current() {
  Fiber fiber;
  if (sanitizes_threads()) fiber.sanitizer_ = __tsan_get_current_fiber();
  return fiber;
}

void Fiber::start(void (*function)(), unsigned char* stack, size_t bytes) {
  if (sanitizes_threads() && sanitizer_ == nullptr) sanitizer_ = __tsan_create_fiber(0);
#ifdef __x86_64__
  constexpr int REGISTERS = 6;
  auto* top = reinterpret_cast<void**>(reinterpret_cast<uintptr_t>(stack + bytes) & ~uintptr_t{15});
  *--top = nullptr;  // where a caller's address would be
  *--top = reinterpret_cast<void*>(function);
  for (int i = 0; i < REGISTERS; ++i) *--top = nullptr;
  stack_pointer_ = top;
#else
  getcontext(&context_);
  context_.uc_stack.ss_sp = stack;
  context_.uc_stack.ss_size = bytes;
  makecontext(&context_, function, 0);
#endif
}

void Fiber::switch_to(Fiber& other) {
  if (sanitizes_threads()) __tsan_switch_to_fiber(other.sanitizer_, WITHOUT_SYNCHRONISATION);
#ifdef __x86_64__
  cuda_on_host_switch(&stack_pointer_, other.stack_pointer_);
#else
  swapcontext(&context_, &other.context_);
#endif
}

void Fiber::synchronise(const std::vector<Fiber*>& fibers, void* at) {
  if (!sanitizes_threads()) return;
  void* const running = __tsan_get_current_fiber();
  for (void (*const step)(void*) : {__tsan_release, __tsan_acquire}) {
    for (const Fiber* const fiber : fibers) {
      if (fiber->sanitizer_ == nullptr) continue;  // not started yet
      __tsan_switch_to_fiber(fiber->sanitizer_, WITHOUT_SYNCHRONISATION);
      step(at);
    }
  }
  __tsan_switch_to_fiber(running, WITHOUT_SYNCHRONISATION);
}

}  // namespace cuda_on_host
