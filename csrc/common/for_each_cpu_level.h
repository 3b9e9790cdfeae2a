// Includes CPU_KERNEL_FILE once for each instruction set that the compiler can target, inside a namespace named after
// it (baseline, avx2, avx512, avx512_bf16). JAA_EXT_AT_CPU_LEVEL calls the one for the processor. No include guard.
//
// For the kernel file VECTOR_BYTES and VECTOR_REGISTERS are set, and CPU_HAS_BF16 where one instruction adds the
// products of pairs of bfloat16. The kernel file includes nothing and uses nothing of std::, since of a function that
// several files share the linker could keep the AVX-512 version for all. Include this file last.

namespace baseline {
#define VECTOR_BYTES 16
#define VECTOR_REGISTERS 16
#include CPU_KERNEL_FILE
#undef VECTOR_BYTES
#undef VECTOR_REGISTERS
}  // namespace baseline

#ifdef JAA_EXT_CPU_LEVELS

#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
namespace avx2 {
#define VECTOR_BYTES 32
#define VECTOR_REGISTERS 16
#include CPU_KERNEL_FILE
#undef VECTOR_BYTES
#undef VECTOR_REGISTERS
}  // namespace avx2
#pragma GCC pop_options

#define VECTOR_BYTES 64
#define VECTOR_REGISTERS 32

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")
namespace avx512 {
#include CPU_KERNEL_FILE
}  // namespace avx512
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")
namespace avx512_bf16 {
#define CPU_HAS_BF16
#include CPU_KERNEL_FILE
#undef CPU_HAS_BF16
}  // namespace avx512_bf16
#pragma GCC pop_options

#undef VECTOR_BYTES
#undef VECTOR_REGISTERS

#endif  // JAA_EXT_CPU_LEVELS
#undef CPU_KERNEL_FILE
