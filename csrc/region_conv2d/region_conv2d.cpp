#include "region_conv2d.h"

#include <ATen/ops/empty.h>
#include <torch/version.h>

#ifdef JAA_EXT_CUDA
#include <ATen/Context.h>
#endif

#include "../common/registration.h"
#include "../common/tensors.h"

namespace jaa_ext {
namespace {

using at::Tensor;
using std::optional;

constexpr const char* NAME = "region_conv2d";

Border border_of(c10::string_view name) {
  if (name == "cell") return Border::cell;
  TORCH_CHECK_VALUE(name == "image", NAME, ": border must be \"cell\" or \"image\", got \"", name, "\"");
  return Border::image;
}

// The words are those of check_region_conv2d in jaa_ext/ops/reference.py.
void check(const Tensor& input, const Tensor& weight, const optional<Tensor>& bias) {
  TORCH_CHECK_VALUE(input.dim() == 4, NAME, ": input must be (N, in_channels, H, W), got ", input.sizes());
  TORCH_CHECK_VALUE(weight.dim() == 6, NAME,
                    ": weight must be (grid_h, grid_w, out_channels, in_channels, kernel_h, kernel_w), got ",
                    weight.sizes());
  TORCH_CHECK_VALUE(weight.numel() > 0, NAME, ": every dimension of weight must be at least 1, got ", weight.sizes());
  TORCH_CHECK_VALUE(input.size(1) == weight.size(3), NAME, ": input has ", input.size(1),
                    " channels, but weight wants ", weight.size(3));
  TORCH_CHECK_VALUE(weight.size(4) % 2 == 1 && weight.size(5) % 2 == 1, NAME, ": kernel sides must be odd, got ",
                    weight.size(4), " x ", weight.size(5));
  const int64_t grid_h = weight.size(0), grid_w = weight.size(1), height = input.size(2), width = input.size(3);
  TORCH_CHECK_VALUE(grid_h <= height && grid_w <= width, NAME, ": the grid must have at most one cell a pixel, got ",
                    grid_h, " x ", grid_w, " cells for an image of ", height, " x ", width);
  if (bias) {
    TORCH_CHECK_VALUE(bias->sizes() == weight.sizes().slice(0, 3), NAME,
                      ": bias must be (grid_h, grid_w, out_channels) = ", weight.sizes().slice(0, 3), ", got ",
                      bias->sizes());
  }
  check_float(NAME, "input", input);
  check_like_input(NAME, "weight", weight, input);
  if (bias) check_like_input(NAME, "bias", *bias, input);
}

// Whether torch.backends.cudnn allows TensorFloat-32 in convolutions.
bool allow_tf32() {
#ifndef JAA_EXT_CUDA
  return false;
#elif TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR < 9
  return at::globalContext().allowTF32CuDNN();
#else
  return at::globalContext().allowTF32CuDNN(at::Float32Op::CONV);
#endif
}

RegionConv2dParams checked(const Tensor& input, const Tensor& weight, const optional<Tensor>& bias,
                           c10::string_view border_name) {
  const Border border = border_of(border_name);
  check(input, weight, bias);
  return {scalar_type_of(input), border,        allow_tf32(),   input.size(0),  input.size(1),  weight.size(2),
          input.size(2),         input.size(3), weight.size(0), weight.size(1), weight.size(4), weight.size(5)};
}

void* mutable_or_null(const Tensor& tensor, bool wanted) { return wanted ? tensor.data_ptr() : nullptr; }

Tensor forward(const Tensor& input, const Tensor& weight, const optional<Tensor>& bias, c10::string_view border) {
  const RegionConv2dParams params = checked(input, weight, bias, border);
  const Tensor weights = weight.contiguous(), biases = bias ? bias->contiguous() : Tensor();
  const Tensor output = at::empty({params.batch, params.out_channels, params.height, params.width}, input.options(),
                                  input.suggest_memory_format());
#ifdef JAA_EXT_CUDA
  if (input.is_cuda()) {
    const c10::cuda::CUDAGuard guard(input.device());
    Tensor workspace;
    region_conv2d_forward_cuda(params, image_view(input), weights.data_ptr(), data_or_null(biases),
                               image_view(output), allocate_in(workspace, input), c10::cuda::getCurrentCUDAStream());
    return output;
  }
#endif
  region_conv2d_forward_cpu(params, image_view(input), weights.data_ptr(), data_or_null(biases), image_view(output),
                            aten_parallel());
  return output;
}

// Returns the gradients of input, weight and bias; an empty tensor for each that output_mask does not ask for.
std::tuple<Tensor, Tensor, Tensor> backward(const Tensor& grad_output, const Tensor& input, const Tensor& weight,
                                            c10::string_view border, std::array<bool, 3> output_mask) {
  const RegionConv2dParams params = checked(input, weight, {}, border);
  const std::array<int64_t, 4> output_shape = {params.batch, params.out_channels, params.height, params.width};
  check_grad_output(NAME, grad_output, output_shape, input);

  const auto [wants_input, wants_weight, wants_bias] = output_mask;
  const Tensor nothing = at::empty({0}, input.options());
  const Tensor grad_input =
      wants_input ? at::empty(input.sizes(), input.options(), input.suggest_memory_format()) : nothing;
  const Tensor grad_weight = wants_weight ? at::empty(weight.sizes(), weight.options()) : nothing;
  const Tensor grad_bias = wants_bias ? at::empty(weight.sizes().slice(0, 3), weight.options()) : nothing;
  const Tensor weights = weight.contiguous();
#ifdef JAA_EXT_CUDA
  if (input.is_cuda()) {
    const c10::cuda::CUDAGuard guard(input.device());
    const CudaStream stream = c10::cuda::getCurrentCUDAStream();
    if (wants_input) {
      Tensor workspace;
      region_conv2d_backward_input_cuda(params, image_view(grad_output), weights.data_ptr(), image_view(grad_input),
                                        allocate_in(workspace, input), stream);
    }
    if (wants_weight || wants_bias) {
      Tensor workspace;
      region_conv2d_backward_weight_cuda(
          params, image_view(grad_output), image_view(input), mutable_or_null(grad_weight, wants_weight),
          mutable_or_null(grad_bias, wants_bias), allocate_in(workspace, input), stream);
    }
    return {grad_input, grad_weight, grad_bias};
  }
#endif
  if (wants_input) {
    region_conv2d_backward_input_cpu(params, image_view(grad_output), weights.data_ptr(), image_view(grad_input),
                                     aten_parallel());
  }
  if (wants_weight || wants_bias) {
    region_conv2d_backward_weight_cpu(params, image_view(grad_output), image_view(input),
                                      mutable_or_null(grad_weight, wants_weight),
                                      mutable_or_null(grad_bias, wants_bias), aten_parallel());
  }
  return {grad_input, grad_weight, grad_bias};
}

constexpr OpCall<&forward> call_forward{"jaa_ext::region_conv2d"};
constexpr OpCall<&backward> call_backward{"jaa_ext::region_conv2d_backward"};

class Function : public torch::autograd::Function<Function> {
 public:
  static Tensor forward(torch::autograd::AutogradContext* context, const Tensor& input, const Tensor& weight,
                        const optional<Tensor>& bias, std::string border) {
    context->save_for_backward({input, weight});
    context->saved_data["border"] = border;
    context->saved_data["has_bias"] = bias.has_value();
    return call_forward.below_autograd(input, weight, bias, border);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list grads) {
    const auto saved = context->get_saved_variables();
    const bool has_bias = context->saved_data["has_bias"].toBool();
    return input_weight_bias_gradients(*context, 4, true, has_bias, [&](std::array<bool, 3> mask) {
      return call_backward(grads[0], saved[0], saved[1], context->saved_data["border"].toStringRef(), mask);
    });
  }
};

Tensor forward_autograd(const Tensor& input, const Tensor& weight, const optional<Tensor>& bias,
                        c10::string_view border) {
  return Function::apply(input, weight, bias, std::string(border));
}

template <c10::DeviceType DEVICE>
Tensor forward_autocast(const Tensor& input, const Tensor& weight, const optional<Tensor>& bias,
                        c10::string_view border) {
  const BelowAutocast<DEVICE> below;
  return call_forward(below.cast(input), below.cast(weight), below.cast(bias), border);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(jaa_ext, m) {
  m.def("region_conv2d(Tensor input, Tensor weight, Tensor? bias, str border) -> Tensor");
  m.def(
      "region_conv2d_backward(Tensor grad_output, Tensor input, Tensor weight, str border, bool[3] output_mask)"
      " -> (Tensor, Tensor, Tensor)");
}

JAA_EXT_KERNELS(m) {
  m.impl("region_conv2d", &forward);
  m.impl("region_conv2d_backward", &backward);
}

TORCH_LIBRARY_IMPL(jaa_ext, Autograd, m) {
  m.impl("region_conv2d", &forward_autograd);
  m.impl("region_conv2d_backward", torch::autograd::autogradNotImplementedFallback());
}

JAA_EXT_AUTOCAST(m) { m.impl("region_conv2d", &forward_autocast<DEVICE>); }

}  // namespace jaa_ext
