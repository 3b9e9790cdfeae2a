#include "softmax_dice_loss.h"

#include <ATen/ops/empty.h>

#include "../common/registration.h"
#include "../common/tensors.h"

namespace jaa_ext {
namespace {

using at::Tensor;
using std::optional;

constexpr const char* NAME = "softmax_dice_loss";

// The words are those of check_softmax_dice_loss in jaa_ext/ops/reference.py.
void check(const Tensor& logits, const Tensor& target, const optional<Tensor>& weight, double smooth,
           c10::string_view dice, int64_t ignore_index) {
  TORCH_CHECK_VALUE(dice == "sample" || dice == "batch", NAME, ": dice must be \"sample\" or \"batch\", got \"", dice,
                    "\"");
  TORCH_CHECK_VALUE(smooth > 0, NAME, ": smooth must be above 0, got ", smooth);
  constexpr int64_t LARGEST = int64_t{1} << 24;  // float holds whole numbers up to here
  TORCH_CHECK_VALUE(-LARGEST <= ignore_index && ignore_index <= LARGEST, NAME,
                    ": ignore_index must be in -2^24..2^24, ", "got ", ignore_index);
  TORCH_CHECK_VALUE(logits.dim() == 3 && logits.size(1) == 2, NAME, ": logits must be (N, 2, A), got ",
                    logits.sizes());
  check_float(NAME, "logits", logits);
  const int64_t samples = logits.size(0), aus = logits.size(2);
  TORCH_CHECK_VALUE(target.dim() == 2 && target.size(0) == samples && target.size(1) == aus, NAME,
                    ": target must be (N, A) = [", samples, ", ", aus, "], got ", target.sizes());
  TORCH_CHECK_TYPE(!target.is_complex(), NAME, ": target must be bool, integer or floating, got ",
                   dtype_name(target.scalar_type()));
  TORCH_CHECK_VALUE(!weight || (weight->dim() == 1 && weight->size(0) == aus), NAME, ": weight must be (A,) = [", aus,
                    "], got ", weight ? weight->sizes() : at::IntArrayRef());
  const auto constant = [&](const char* name, const Tensor& tensor) {
    check_device(NAME, name, tensor, "logits", logits);
    TORCH_CHECK_VALUE(!tensor.requires_grad(), NAME, ": ", name,
                      " is a constant of the loss, but it requires a gradient");
  };
  constant("target", target);
  if (weight) constant("weight", *weight);
}

// The parameters of a kernel, and the tensors that they point into.
struct Prepared {
  SoftmaxDiceLossParams params;
  Tensor target, weight;
};

Prepared prepare(const Tensor& logits, const Tensor& target, const optional<Tensor>& weight, double smooth,
                 c10::string_view dice, int64_t ignore_index) {
  check(logits, target, weight, smooth, dice, ignore_index);
  const bool probability = target.is_floating_point();
  const at::ScalarType type = compute_type(logits);
  Prepared prepared;
  prepared.target = target.to(probability ? type : at::kLong).contiguous();
  if (weight) prepared.weight = weight->to(type).contiguous();
  prepared.params = {scalar_type_of(logits),
                     dice == "batch",
                     logits.size(0),
                     logits.size(2),
                     smooth,
                     logits.data_ptr(),
                     logits.stride(0),
                     logits.stride(1),
                     logits.stride(2),
                     prepared.target.data_ptr(),
                     probability,
                     ignore_index,
                     weight ? prepared.weight.data_ptr() : nullptr};
  return prepared;
}

std::tuple<Tensor, Tensor> forward(const Tensor& logits, const Tensor& target, const optional<Tensor>& weight,
                                   double smooth, c10::string_view dice, int64_t ignore_index) {
  const Prepared prepared = prepare(logits, target, weight, smooth, dice, ignore_index);
  const Tensor softmax_loss = at::empty({}, logits.options()), dice_loss = at::empty({}, logits.options());
#ifdef JAA_EXT_CUDA
  if (logits.is_cuda()) {
    const c10::cuda::CUDAGuard guard(logits.device());
    softmax_dice_loss_forward_cuda(prepared.params, softmax_loss.data_ptr(), dice_loss.data_ptr(),
                                   c10::cuda::getCurrentCUDAStream());
    return {softmax_loss, dice_loss};
  }
#endif
  const int64_t wrong =
      softmax_dice_loss_forward_cpu(prepared.params, softmax_loss.data_ptr(), dice_loss.data_ptr(), aten_parallel());
  TORCH_CHECK_VALUE(wrong < 0, NAME, ": target must be 0..1 or ignore_index (", ignore_index, "), got ",
                    prepared.target.view(-1)[wrong].item<double>(), " for sample ", wrong / prepared.params.aus,
                    ", AU at index ", wrong % prepared.params.aus);
  return {softmax_loss, dice_loss};
}

Tensor backward(const Tensor& grad_softmax, const Tensor& grad_dice, const Tensor& logits, const Tensor& target,
                const optional<Tensor>& weight, double smooth, c10::string_view dice, int64_t ignore_index) {
  const Prepared prepared = prepare(logits, target, weight, smooth, dice, ignore_index);
  const Tensor grad_logits = at::empty(logits.sizes(), logits.options());
  const Tensor softmax = grad_softmax.to(logits.scalar_type()), dice_ = grad_dice.to(logits.scalar_type());
#ifdef JAA_EXT_CUDA
  if (logits.is_cuda()) {
    const c10::cuda::CUDAGuard guard(logits.device());
    softmax_dice_loss_backward_cuda(prepared.params, softmax.data_ptr(), dice_.data_ptr(), grad_logits.data_ptr(),
                                    c10::cuda::getCurrentCUDAStream());
    return grad_logits;
  }
#endif
  softmax_dice_loss_backward_cpu(prepared.params, softmax.data_ptr(), dice_.data_ptr(), grad_logits.data_ptr(),
                                 aten_parallel());
  return grad_logits;
}

constexpr OpCall<&forward> call_forward{"jaa_ext::softmax_dice_loss"};
constexpr OpCall<&backward> call_backward{"jaa_ext::softmax_dice_loss_backward"};

class Function : public torch::autograd::Function<Function> {
 public:
  static torch::autograd::variable_list forward(torch::autograd::AutogradContext* context, const Tensor& logits,
                                                const Tensor& target, const optional<Tensor>& weight, double smooth,
                                                std::string dice, int64_t ignore_index) {
    context->save_for_backward({logits, target, weight ? *weight : Tensor()});
    context->saved_data["smooth"] = smooth;
    context->saved_data["dice"] = dice;
    context->saved_data["ignore_index"] = ignore_index;
    auto [softmax_loss, dice_loss] = call_forward.below_autograd(logits, target, weight, smooth, dice, ignore_index);
    return {softmax_loss, dice_loss};
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list grads) {
    const auto saved = context->get_saved_variables();
    const optional<Tensor> weight = saved[2].defined() ? optional<Tensor>(saved[2]) : std::nullopt;
    const Tensor grad_logits =
        call_backward(grads[0], grads[1], saved[0], saved[1], weight, context->saved_data["smooth"].toDouble(),
                      context->saved_data["dice"].toStringRef(), context->saved_data["ignore_index"].toInt());
    return {grad_logits, Tensor(), Tensor(), Tensor(), Tensor(), Tensor()};
  }
};

std::tuple<Tensor, Tensor> forward_autograd(const Tensor& logits, const Tensor& target,
                                            const optional<Tensor>& weight, double smooth, c10::string_view dice,
                                            int64_t ignore_index) {
  const auto losses = Function::apply(logits, target, weight, smooth, std::string(dice), ignore_index);
  return {losses[0], losses[1]};
}

// The losses are computed in float32, not in autocast's half type.
template <c10::DeviceType DEVICE>
std::tuple<Tensor, Tensor> forward_autocast(const Tensor& logits, const Tensor& target,
                                            const optional<Tensor>& weight, double smooth, c10::string_view dice,
                                            int64_t ignore_index) {
  const BelowAutocast<DEVICE> below;
  return call_forward(below.cast(logits, at::kFloat), target, weight, smooth, dice, ignore_index);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(jaa_ext, m) {
  m.def(
      "softmax_dice_loss(Tensor logits, Tensor target, Tensor? weight, float smooth, str dice, int ignore_index)"
      " -> (Tensor, Tensor)");
  m.def(
      "softmax_dice_loss_backward(Tensor grad_softmax, Tensor grad_dice, Tensor logits, Tensor target,"
      " Tensor? weight, float smooth, str dice, int ignore_index) -> Tensor");
}

JAA_EXT_KERNELS(m) {
  m.impl("softmax_dice_loss", &forward);
  m.impl("softmax_dice_loss_backward", &backward);
}

TORCH_LIBRARY_IMPL(jaa_ext, Autograd, m) {
  m.impl("softmax_dice_loss", &forward_autograd);
  m.impl("softmax_dice_loss_backward", torch::autograd::autogradNotImplementedFallback());
}

JAA_EXT_AUTOCAST(m) { m.impl("softmax_dice_loss", &forward_autocast<DEVICE>); }

}  // namespace jaa_ext
