// What the ops share in their use of torch's dispatcher: calls by name, gradients, autocast, registration.
#pragma once

#include <ATen/autocast_mode.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <array>
#include <optional>
#include <type_traits>
#include <utility>

namespace jaa_ext {

// Calls an op through the dispatcher. KERNEL is the function that computes it, and gives the call its signature:
//
//   constexpr OpCall<&forward> call_forward{"jaa_ext::scaled_add"};
template <auto KERNEL>
struct OpCall {
  const char* name;

  template <typename... Arguments>
  auto operator()(Arguments&&... arguments) const {
    return op().call(std::forward<Arguments>(arguments)...);
  }
  // The same for an op that autograd has seen already.
  template <typename... Arguments>
  auto below_autograd(Arguments&&... arguments) const {
    const at::AutoDispatchBelowADInplaceOrView guard;
    return op().call(std::forward<Arguments>(arguments)...);
  }

 private:
  const auto& op() const {
    using Signature = std::remove_pointer_t<decltype(KERNEL)>;
    static const auto found = c10::Dispatcher::singleton().findSchemaOrThrow(name, "").template typed<Signature>();
    return found;
  }
};

// Returns the gradients of an op's `arguments` arguments, of which the first three are input, weight and bias and the
// others have none. gradients(mask) computes those that autograd wants; there is none of an absent weight or bias.
template <typename Gradients>
torch::autograd::variable_list input_weight_bias_gradients(const torch::autograd::AutogradContext& context,
                                                           size_t arguments, bool has_weight, bool has_bias,
                                                           const Gradients& gradients) {
  const std::array<bool, 3> mask = {context.needs_input_grad(0), has_weight && context.needs_input_grad(1),
                                    has_bias && context.needs_input_grad(2)};
  const auto [grad_input, grad_weight, grad_bias] = gradients(mask);
  torch::autograd::variable_list result(arguments);
  if (mask[0]) result[0] = grad_input;
  if (mask[1]) result[1] = grad_weight;
  if (mask[2]) result[2] = grad_bias;
  return result;
}

// Leaves autocast while it lives. cast() brings tensors to the type that autocast asks for, or to another one.
template <c10::DeviceType DEVICE>
class BelowAutocast {
 public:
  template <typename Tensors>
  Tensors cast(const Tensors& tensors, at::ScalarType type = at::autocast::get_autocast_dtype(DEVICE)) const {
    return at::autocast::cached_cast(type, tensors, DEVICE);
  }

 private:
  const c10::impl::ExcludeDispatchKeyGuard guard_{at::autocast::get_autocast_dispatch_key_from_device_type(DEVICE)};
};

}  // namespace jaa_ext

// Registers functions for the CPU, and also for GPUs where these are compiled:
//
//   JAA_EXT_KERNELS(m) { m.impl("scaled_add", &forward); }
#ifdef JAA_EXT_CUDA
#define JAA_EXT_CUDA_KERNELS \
  TORCH_LIBRARY_IMPL(jaa_ext, CUDA, m) { register_kernels(m); }
#else
#define JAA_EXT_CUDA_KERNELS
#endif
#define JAA_EXT_KERNELS(m)                                     \
  static void register_kernels(torch::Library& m);             \
  TORCH_LIBRARY_IMPL(jaa_ext, CPU, m) { register_kernels(m); } \
  JAA_EXT_CUDA_KERNELS                                         \
  void register_kernels(torch::Library& m)

// Registers functions for autocast on either device, DEVICE:
//
//   JAA_EXT_AUTOCAST(m) { m.impl("scaled_add", &forward_autocast<DEVICE>); }
#define JAA_EXT_AUTOCAST(m)                                                         \
  template <c10::DeviceType DEVICE>                                                 \
  static void register_autocast(torch::Library& m);                                 \
  TORCH_LIBRARY_IMPL(jaa_ext, AutocastCPU, m) { register_autocast<at::kCPU>(m); }   \
  TORCH_LIBRARY_IMPL(jaa_ext, AutocastCUDA, m) { register_autocast<at::kCUDA>(m); } \
  template <c10::DeviceType DEVICE>                                                 \
  void register_autocast(torch::Library& m)
