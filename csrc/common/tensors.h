// What the tensor side of every op needs: element types, checks, views, ATen's thread pool.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>

#ifdef JAA_EXT_CUDA
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#endif

#include <string>

#include "allocate.h"
#include "image_view.h"
#include "parallel.h"
#include "scalar.h"

namespace jaa_ext {

inline bool is_supported(at::ScalarType type) {
  return type == at::kDouble || type == at::kFloat || type == at::kHalf || type == at::kBFloat16;
}

// The Python name of a dtype.
inline const char* dtype_name(at::ScalarType type) {
  switch (type) {
    case at::kDouble:
      return "float64";
    case at::kFloat:
      return "float32";
    case at::kHalf:
      return "float16";
    case at::kBFloat16:
      return "bfloat16";
    case at::kByte:
      return "uint8";
    case at::kChar:
      return "int8";
    case at::kShort:
      return "int16";
    case at::kInt:
      return "int32";
    case at::kLong:
      return "int64";
    case at::kBool:
      return "bool";
    case at::kComplexFloat:
      return "complex64";
    case at::kComplexDouble:
      return "complex128";
    default:
      return c10::toString(type);
  }
}

inline void check_float(const char* op, const char* name, const at::Tensor& tensor) {
  TORCH_CHECK_TYPE(is_supported(tensor.scalar_type()), op, ": ", name,
                   " must be float64, float32, float16 or bfloat16, got ", dtype_name(tensor.scalar_type()));
}

inline void check_device(const char* op, const char* name, const at::Tensor& tensor, const char* reference_name,
                         const at::Tensor& reference) {
  TORCH_CHECK_VALUE(tensor.device() == reference.device(), op, ": ", name, " must be on the device of ",
                    reference_name, ", ", reference.device(), ", got ", tensor.device());
}

inline void check_like_input(const char* op, const char* name, const at::Tensor& tensor, const at::Tensor& input) {
  TORCH_CHECK_TYPE(tensor.scalar_type() == input.scalar_type(), op, ": ", name, " must have the dtype of input, ",
                   dtype_name(input.scalar_type()), ", got ", dtype_name(tensor.scalar_type()));
  check_device(op, name, tensor, "input", input);
}

// Checks the gradient of an output: its shape, and that it has the dtype and device of input.
inline void check_grad_output(const char* op, const at::Tensor& grad_output, at::IntArrayRef shape,
                              const at::Tensor& input) {
  const std::string backward = std::string(op) + "_backward";
  TORCH_CHECK_VALUE(grad_output.sizes() == shape, backward, ": grad_output must be ", shape, ", got ",
                    grad_output.sizes());
  check_like_input(backward.c_str(), "grad_output", grad_output, input);
}

inline void* data_or_null(const at::Tensor& tensor) { return tensor.defined() ? tensor.data_ptr() : nullptr; }

inline ScalarType scalar_type_of(const at::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kDouble:
      return ScalarType::f64;
    case at::kFloat:
      return ScalarType::f32;
    case at::kHalf:
      return ScalarType::f16;
    default:
      return ScalarType::bf16;
  }
}

// The type that kernels compute in: double for double, and else float.
inline at::ScalarType compute_type(const at::Tensor& tensor) {
  return tensor.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

inline ImageView image_view(const at::Tensor& tensor) {
  return {tensor.data_ptr(), {tensor.stride(0), tensor.stride(1), tensor.stride(2), tensor.stride(3)}};
}

// Allocates `memory` on the device of `like`. Both must outlive the launcher that gets the result.
inline Allocate allocate_in(at::Tensor& memory, const at::Tensor& like) {
  return [&memory, &like](int64_t bytes) {
    memory = at::empty({bytes}, like.options().dtype(at::kByte));
    return memory.data_ptr();
  };
}

inline const Parallel& aten_parallel() {
  static const Parallel parallel = [](int64_t count, const Range& range) { at::parallel_for(0, count, 1, range); };
  return parallel;
}

}  // namespace jaa_ext
