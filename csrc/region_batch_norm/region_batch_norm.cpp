#include "region_batch_norm.h"

#include <ATen/ops/empty.h>

#include "../common/registration.h"
#include "../common/tensors.h"

namespace jaa_ext {
namespace {

using at::Tensor;
using std::optional;

constexpr const char* NAME = "region_batch_norm";

// The words are those of check_region_batch_norm in jaa_ext/ops/reference.py.
void check(const Tensor& input, const optional<Tensor>& weight, const optional<Tensor>& bias,
           const optional<Tensor>& mean, const optional<Tensor>& var, at::IntArrayRef grid, bool training) {
  TORCH_CHECK_VALUE(input.dim() == 4, NAME, ": input must be (N, C, H, W), got ", input.sizes());
  TORCH_CHECK_VALUE(grid.size() == 2 && grid[0] > 0 && grid[1] > 0, NAME,
                    ": grid must be two positive numbers of cells, got ", grid);
  const int64_t height = input.size(2), width = input.size(3);
  TORCH_CHECK_VALUE(grid[0] <= height && grid[1] <= width, NAME,
                    ": the grid must have at most one cell a pixel, got ", grid[0], " x ", grid[1],
                    " cells for an image of ", height, " x ", width);
  TORCH_CHECK_VALUE(weight.has_value() == bias.has_value(), NAME,
                    ": weight and bias must both be given or both be None");
  TORCH_CHECK_VALUE(mean.has_value() == var.has_value(), NAME,
                    ": running_mean and running_var must both be given or both be None");
  TORCH_CHECK_VALUE(training || mean.has_value(), NAME,
                    ": outside training running_mean and running_var must be given");
  TORCH_CHECK_VALUE(!training || input.size(0) * (height / grid[0]) * (width / grid[1]) > 1, NAME,
                    ": a training batch must have more than 1 value per channel in each cell, got ", input.size(0),
                    " images of ", height, " x ", width, " with ", grid[0], " x ", grid[1], " cells");
  check_float(NAME, "input", input);
  const std::array<int64_t, 3> shape = {grid[0], grid[1], input.size(1)};
  const auto per_channel = [&](const char* name, const optional<Tensor>& tensor) {
    if (!tensor) return;
    const bool single_cell = grid[0] == 1 && grid[1] == 1 && tensor->dim() == 1 && tensor->size(0) == input.size(1);
    TORCH_CHECK_VALUE(single_cell || tensor->sizes() == at::IntArrayRef(shape), NAME, ": ", name,
                      " must be (grid_h, grid_w, C) = ", at::IntArrayRef(shape), ", got ", tensor->sizes());
    TORCH_CHECK_TYPE(tensor->scalar_type() == input.scalar_type() || tensor->scalar_type() == at::kFloat, NAME, ": ",
                     name, " must have the dtype of input, ", dtype_name(input.scalar_type()), ", or float32, got ",
                     dtype_name(tensor->scalar_type()));
    check_device(NAME, name, *tensor, "input", input);
  };
  per_channel("weight", weight);
  per_channel("bias", bias);
  per_channel("running_mean", mean);
  per_channel("running_var", var);
}

RegionBatchNormParams describe(const Tensor& input, at::IntArrayRef grid, bool training, double eps, bool relu) {
  return {scalar_type_of(input), training,      relu,    input.size(0), input.size(1),
          input.size(2),         input.size(3), grid[0], grid[1],       eps};
}

// The kernels want an image whose channels or columns lie side by side.
Tensor side_by_side(const Tensor& input) {
  return input.stride(1) == 1 || input.stride(3) == 1 ? input : input.contiguous();
}

Tensor computable(const optional<Tensor>& tensor, at::ScalarType type) {
  return tensor ? tensor->to(type).contiguous() : Tensor();
}

// Returns the output and, in training, the batch's mean and unbiased variance, in the shape of running_mean where
// that is given, in the type that kernels compute in. Outside training these two are empty.
std::tuple<Tensor, Tensor, Tensor> forward(const Tensor& input, const optional<Tensor>& weight,
                                           const optional<Tensor>& bias, const optional<Tensor>& running_mean,
                                           const optional<Tensor>& running_var, at::IntArrayRef grid, bool training,
                                           double eps, bool relu) {
  check(input, weight, bias, running_mean, running_var, grid, training);
  const RegionBatchNormParams params = describe(input, grid, training, eps, relu);
  const at::ScalarType type = compute_type(input);
  const Tensor source = side_by_side(input);
  const Tensor weights = computable(weight, type), biases = computable(bias, type);
  const auto statistics = [&](const optional<Tensor>& running) {
    if (!training) return computable(running, type);
    const std::array<int64_t, 3> shape = {params.grid_h, params.grid_w, params.channels};
    return at::empty(running ? running->sizes() : at::IntArrayRef(shape), input.options().dtype(type));
  };
  const Tensor mean = statistics(running_mean), var = statistics(running_var);
  const Tensor output = at::empty(input.sizes(), input.options(), input.suggest_memory_format());
  const RegionBatchNormTensors tensors = {data_or_null(weights), data_or_null(biases), mean.data_ptr(),
                                          var.data_ptr()};
#ifdef JAA_EXT_CUDA
  if (input.is_cuda()) {
    const c10::cuda::CUDAGuard guard(input.device());
    Tensor workspace;
    region_batch_norm_forward_cuda(params, tensors, image_view(source), image_view(output),
                                   allocate_in(workspace, input), c10::cuda::getCurrentCUDAStream());
  } else
#endif
    region_batch_norm_forward_cpu(params, tensors, image_view(source), image_view(output), aten_parallel(),
                                  at::get_num_threads());
  if (training) return {output, mean, var};
  return {output, at::empty({0}, mean.options()), at::empty({0}, mean.options())};
}

// Returns the gradients of input, weight and bias; an empty tensor for each that output_mask does not ask for. mean
// and var are those that forward returned in training, or else the running ones.
std::tuple<Tensor, Tensor, Tensor> backward(const Tensor& grad_output, const Tensor& input,
                                            const optional<Tensor>& weight, const optional<Tensor>& bias,
                                            const Tensor& mean, const Tensor& var, at::IntArrayRef grid,
                                            bool training, double eps, bool relu, std::array<bool, 3> output_mask) {
  check(input, weight, bias, mean, var, grid, training);
  check_grad_output(NAME, grad_output, input.sizes(), input);

  const RegionBatchNormParams params = describe(input, grid, training, eps, relu);
  const at::ScalarType type = compute_type(input);
  const auto [wants_input, wants_weight, wants_bias] = output_mask;
  const Tensor source = side_by_side(input), grad = grad_output.contiguous(input.suggest_memory_format());
  const Tensor weights = computable(weight, type), biases = computable(bias, type);
  const Tensor means = computable(mean, type), vars = computable(var, type);
  const Tensor nothing = at::empty({0}, input.options());
  const Tensor grad_input =
      wants_input ? at::empty(input.sizes(), input.options(), input.suggest_memory_format()) : nothing;
  const Tensor grad_weight = at::empty(mean.sizes(), means.options());
  const Tensor grad_bias = at::empty(mean.sizes(), means.options());
  const RegionBatchNormTensors tensors = {data_or_null(weights), data_or_null(biases), means.data_ptr(),
                                          vars.data_ptr()};
  const ImageView grad_image = wants_input ? image_view(grad_input) : ImageView{nullptr, image_view(grad).stride};
#ifdef JAA_EXT_CUDA
  if (input.is_cuda()) {
    const c10::cuda::CUDAGuard guard(input.device());
    Tensor workspace;
    region_batch_norm_backward_cuda(params, tensors, image_view(grad), image_view(source), grad_image,
                                    grad_weight.data_ptr(), grad_bias.data_ptr(), allocate_in(workspace, input),
                                    c10::cuda::getCurrentCUDAStream());
  } else
#endif
    region_batch_norm_backward_cpu(params, tensors, image_view(grad), image_view(source), grad_image,
                                   grad_weight.data_ptr(), grad_bias.data_ptr(), aten_parallel(),
                                   at::get_num_threads());
  const auto like = [&](const Tensor& gradient, bool wanted, const optional<Tensor>& parameter) {
    return wanted ? gradient.to(parameter->scalar_type()).view(parameter->sizes()) : nothing;
  };
  return {grad_input, like(grad_weight, wants_weight, weight), like(grad_bias, wants_bias, bias)};
}

constexpr OpCall<&forward> call_forward{"jaa_ext::region_batch_norm"};
constexpr OpCall<&backward> call_backward{"jaa_ext::region_batch_norm_backward"};

class Function : public torch::autograd::Function<Function> {
 public:
  static torch::autograd::variable_list forward(torch::autograd::AutogradContext* context, const Tensor& input,
                                                const optional<Tensor>& weight, const optional<Tensor>& bias,
                                                const optional<Tensor>& running_mean,
                                                const optional<Tensor>& running_var, std::vector<int64_t> grid,
                                                bool training, double eps, bool relu) {
    auto [output, mean, var] =
        call_forward.below_autograd(input, weight, bias, running_mean, running_var, grid, training, eps, relu);
    const bool affine = weight.has_value();
    context->save_for_backward({input, affine ? *weight : Tensor(), affine ? *bias : Tensor(),
                                training ? mean : *running_mean, training ? var : *running_var});
    context->saved_data["grid"] = std::move(grid);
    context->saved_data["training"] = training;
    context->saved_data["eps"] = eps;
    context->saved_data["relu"] = relu;
    context->mark_non_differentiable({mean, var});
    context->set_materialize_grads(false);  // else autograd would make zeros for mean and var
    return {output, mean, var};
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list grads) {
    if (!grads[0].defined()) return torch::autograd::variable_list(9);
    const auto saved = context->get_saved_variables();
    const bool affine = saved[1].defined();
    const auto parameter = [&](int k) { return affine ? optional<Tensor>(saved[k]) : std::nullopt; };
    auto& data = context->saved_data;
    return input_weight_bias_gradients(*context, 9, affine, affine, [&](std::array<bool, 3> mask) {
      return call_backward(grads[0], saved[0], parameter(1), parameter(2), saved[3], saved[4],
                           data["grid"].toIntVector(), data["training"].toBool(), data["eps"].toDouble(),
                           data["relu"].toBool(), mask);
    });
  }
};

std::tuple<Tensor, Tensor, Tensor> forward_autograd(const Tensor& input, const optional<Tensor>& weight,
                                                    const optional<Tensor>& bias,
                                                    const optional<Tensor>& running_mean,
                                                    const optional<Tensor>& running_var, at::IntArrayRef grid,
                                                    bool training, double eps, bool relu) {
  const auto results =
      Function::apply(input, weight, bias, running_mean, running_var, grid.vec(), training, eps, relu);
  return {results[0], results[1], results[2]};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(jaa_ext, m) {
  m.def(
      "region_batch_norm(Tensor input, Tensor? weight, Tensor? bias, Tensor? running_mean, Tensor? running_var, "
      "int[2] grid, bool training, float eps, bool relu) -> (Tensor, Tensor, Tensor)");
  m.def(
      "region_batch_norm_backward(Tensor grad_output, Tensor input, Tensor? weight, Tensor? bias, Tensor mean, "
      "Tensor var, int[2] grid, bool training, float eps, bool relu, bool[3] output_mask) "
      "-> (Tensor, Tensor, Tensor)");
}

JAA_EXT_KERNELS(m) {
  m.impl("region_batch_norm", &forward);
  m.impl("region_batch_norm_backward", &backward);
}

TORCH_LIBRARY_IMPL(jaa_ext, Autograd, m) {
  m.impl("region_batch_norm", &forward_autograd);
  m.impl("region_batch_norm_backward", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace jaa_ext
