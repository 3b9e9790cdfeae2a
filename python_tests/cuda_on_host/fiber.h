// A function on a stack of its own, which can be suspended and resumed. For ThreadSanitizer, where it is loaded,
// every fiber is a thread.
#pragma once

#include <cstddef>
#include <vector>
#ifndef __x86_64__
#include <ucontext.h>
#endif

namespace cuda_on_host {

class Fiber {
 public:
  static Fiber current();

  // Makes the next switch call the function, which must not return.
  void start(void (*function)(), unsigned char* stack, size_t bytes);

  // Suspends this fiber, which must be the one that runs, and resumes the other.
  void switch_to(Fiber& other);

  static bool sanitizes_threads();

  // Tells ThreadSanitizer that whatever these fibers did until now comes before whatever they will do. `at` is an
  // address that tells groups of fibers apart.
  static void synchronise(const std::vector<Fiber*>& fibers, void* at);

 private:
#ifdef __x86_64__
  void* stack_pointer_ = nullptr;
#else
  ucontext_t context_ = {};
#endif
  void* sanitizer_ = nullptr;
};

}  // namespace cuda_on_host
