#include "conv3x3.h"

#include <ATen/ops/conv2d.h>
#include <ATen/ops/convolution_backward.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/max_pool2d.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros.h>

#include "../common/parts.h"
#include "../common/registration.h"
#include "../common/tensors.h"
#include "form.h"

namespace jaa_ext {
namespace {

using at::Tensor;
using std::optional;

constexpr const char* NAME = "conv3x3";

// The words are those of check_conv3x3 in jaa_ext/ops/reference.py.
void check(const Tensor& input, const Tensor& weight, const optional<Tensor>& bias, int64_t padding, int64_t groups,
           bool pool, const optional<Tensor>& attention) {
  TORCH_CHECK_VALUE(padding == 0 || padding == 1, NAME, ": padding must be 0 or 1, got ", padding);
  TORCH_CHECK_VALUE(input.dim() == 4, NAME, ": input must be (N, in_channels, H, W), got ", input.sizes());
  TORCH_CHECK_VALUE(weight.dim() == 4 && weight.size(2) == 3 && weight.size(3) == 3, NAME,
                    ": weight must be (out_channels, in_channels, 3, 3), got ", weight.sizes());
  TORCH_CHECK_VALUE(weight.numel() > 0, NAME, ": every dimension of weight must be at least 1, got ", weight.sizes());
  TORCH_CHECK_VALUE(groups >= 1 && weight.size(0) % groups == 0, NAME, ": groups must divide the ", weight.size(0),
                    " output channels, got ", groups);
  TORCH_CHECK_VALUE(input.size(1) == groups * weight.size(1), NAME, ": input has ", input.size(1),
                    " channels, but weight wants ", groups * weight.size(1));
  const int64_t least = (pool ? 4 : 3) - 2 * padding, height = input.size(2), width = input.size(3);
  TORCH_CHECK_VALUE(height >= least && width >= least, NAME, ": images must be at least ", least, " x ", least,
                    " with padding ", padding, pool ? " and pooling" : "", ", got ", height, " x ", width);
  if (bias) {
    TORCH_CHECK_VALUE(bias->sizes() == weight.sizes().slice(0, 1), NAME,
                      ": bias must be (out_channels) = ", weight.sizes().slice(0, 1), ", got ", bias->sizes());
  }
  TORCH_CHECK_VALUE(!attention || groups == 1, NAME, ": attention needs groups=1, got ", groups);
  const std::array<int64_t, 4> maps = {input.size(0), 1, height, width};
  if (attention) {
    TORCH_CHECK_VALUE(attention->sizes() == at::IntArrayRef(maps), NAME,
                      ": attention must be (N, 1, H, W) = ", at::IntArrayRef(maps), ", got ", attention->sizes());
  }
  check_float(NAME, "input", input);
  check_like_input(NAME, "weight", weight, input);
  if (bias) check_like_input(NAME, "bias", *bias, input);
  if (attention) check_like_input(NAME, "attention", *attention, input);
}

Conv3x3Params describe(const Tensor& input, const Tensor& weight, int64_t padding, int64_t groups) {
  return {input.size(0), weight.size(1), weight.size(0) / groups, input.size(2), input.size(3), padding, groups};
}

// The convolution whose output is the gradient of the input.
Conv3x3Params reversed(const Conv3x3Params& params) {
  return {params.batch,       params.out_channels, params.in_channels, params.out_height(),
          params.out_width(), 2 - params.padding,  params.groups};
}

ConvForm form_of(const Conv3x3Params& params, const Tensor& input) {
  return input.scalar_type() == at::kFloat ? conv3x3_form(params.in_channels, params.out_channels) : ConvForm::torch;
}

ConvForm weight_form_of(const Conv3x3Params& params, const Tensor& input) {
  const int64_t tiles = params.batch * ceil_div(params.out_height(), 4) * ceil_div(params.out_width(), 4);
  return input.scalar_type() == at::kFloat ? conv3x3_weight_form(params.in_channels, tiles) : ConvForm::torch;
}

// The memory format that torch's convolutions give their output.
at::MemoryFormat memory_format(const Tensor& input, const Tensor& weight) {
  const bool last = input.suggest_memory_format() == at::MemoryFormat::ChannelsLast ||
                    weight.suggest_memory_format() == at::MemoryFormat::ChannelsLast;
  return last ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous;
}

// The tensor with the channels of a pixel side by side.
Tensor channels_last(const Tensor& tensor) {
  return tensor.stride(1) == 1 || tensor.size(1) == 1 ? tensor : tensor.contiguous(at::MemoryFormat::ChannelsLast);
}

Tensor with_channels_last(at::IntArrayRef sizes, const Tensor& like) {
  return at::empty(sizes, like.options(), at::MemoryFormat::ChannelsLast);
}

// The weight with its nine taps at equal distances.
Tensor with_even_taps(const Tensor& weight) {
  return weight.stride(2) == 3 * weight.stride(3) ? weight : weight.contiguous();
}

Filters3x3 filters_of(const Conv3x3Params& params, const Tensor& weight) {
  return {weight.const_data_ptr<float>(), weight.stride(0) * params.out_channels, weight.stride(0), weight.stride(1),
          weight.stride(3)};
}

// For the gradient of the input: the two kinds of channels change places, and the taps run backwards.
Filters3x3 reversed(const Filters3x3& filters) {
  return {filters.data + 8 * filters.stride_tap, filters.stride_part, filters.stride_in, filters.stride_out,
          -filters.stride_tap};
}

Tensor transform(const Conv3x3Params& params, const Filters3x3& filters, const Tensor& like) {
  const Tensor transformed = at::empty({winograd_filters_size(params)}, like.options());
  winograd_filters(params, filters, transformed.mutable_data_ptr<float>(), aten_parallel());
  return transformed;
}

Tensor filters(const Tensor& weight, int64_t groups) {
  check(weight.new_empty({0, groups * weight.size(1), 4, 4}), weight, {}, 1, groups, false, {});
  const Conv3x3Params params{1, weight.size(1), weight.size(0) / groups, 4, 4, 1, groups};
  if (form_of(params, weight) != ConvForm::winograd) return at::empty({0}, weight.options());
  const Tensor w = with_even_taps(weight);
  // winograd_filters leaves vectors that no channel fills as they are.
  const Tensor transformed = at::zeros({winograd_filters_size(params)}, weight.options());
  winograd_filters(params, filters_of(params, w), transformed.mutable_data_ptr<float>(), aten_parallel());
  return transformed;
}

Tensor fused(const Tensor& input, const Tensor& weight, const optional<Tensor>& transformed,
             const optional<Tensor>& bias, const optional<Tensor>& attention, int64_t padding, int64_t groups,
             bool relu, bool pool) {
  check(input, weight, bias, padding, groups, pool, attention);
  const Conv3x3Params params = describe(input, weight, padding, groups);
  const ConvForm form = form_of(params, input);
  if (form == ConvForm::torch) {
    Tensor output = at::conv2d(attention ? input * *attention : input, weight, bias, 1, padding, 1, groups);
    if (relu) output.relu_();
    return pool ? at::max_pool2d(output, 2) : output;
  }
  const int64_t step = pool && form == ConvForm::winograd ? 2 : 1;
  const Tensor x = channels_last(input), w = with_even_taps(weight), b = bias ? bias->contiguous() : Tensor();
  const Tensor output = with_channels_last(
      {params.batch, groups * params.out_channels, params.out_height() / step, params.out_width() / step}, input);
  const Fusion3x3 fusion{b.defined() ? b.const_data_ptr<float>() : nullptr,
                         attention ? image_view(*attention) : ImageView{}, relu, pool};
  if (form == ConvForm::direct) {
    direct_forward(params, image_view(x), filters_of(params, w), fusion, image_view(output), aten_parallel());
    return (pool ? at::max_pool2d(output, 2) : output).contiguous(memory_format(input, weight));
  }
  const bool given = transformed && transformed->numel() > 0;
  // The kernels read whole vectors of the filters.
  const auto fits = [&](const Tensor& ready) {
    return ready.numel() == winograd_filters_size(params) && ready.is_contiguous() &&
           reinterpret_cast<uintptr_t>(ready.const_data_ptr()) % 64 == 0;
  };
  TORCH_CHECK_VALUE(!given || fits(*transformed), NAME,
                    ": filters must be those that conv3x3_filters gave for this weight");
  const Tensor ready = given ? *transformed : transform(params, filters_of(params, w), w);
  winograd_forward(params, image_view(x), ready.const_data_ptr<float>(), fusion, image_view(output), aten_parallel());
  return output.contiguous(memory_format(input, weight));
}

Tensor forward(const Tensor& input, const Tensor& weight, const optional<Tensor>& bias, int64_t padding,
               int64_t groups) {
  return fused(input, weight, {}, bias, {}, padding, groups, false, false);
}

Tensor backward_input(const Conv3x3Params& params, const Tensor& gradient, const Tensor& input,
                      const Tensor& weight) {
  const Conv3x3Params reverse = reversed(params);
  const Tensor grad_input = with_channels_last(input.sizes(), input), w = with_even_taps(weight);
  const Filters3x3 filters = reversed(filters_of(params, w));
  if (form_of(reverse, input) == ConvForm::direct) {
    direct_forward(reverse, image_view(gradient), filters, {}, image_view(grad_input), aten_parallel());
  } else {
    const Tensor transformed = transform(reverse, filters, w);
    winograd_forward(reverse, image_view(gradient), transformed.const_data_ptr<float>(), {}, image_view(grad_input),
                     aten_parallel());
  }
  return grad_input.contiguous(memory_format(input, weight));
}

// Returns the gradients of input, weight and bias; an empty tensor for each that output_mask does not ask for.
std::tuple<Tensor, Tensor, Tensor> backward(const Tensor& grad_output, const Tensor& input, const Tensor& weight,
                                            int64_t padding, int64_t groups, std::array<bool, 3> output_mask) {
  check(input, weight, {}, padding, groups, false, {});
  const Conv3x3Params params = describe(input, weight, padding, groups);
  const std::array<int64_t, 4> output_shape = {params.batch, groups * params.out_channels, params.out_height(),
                                               params.out_width()};
  check_grad_output(NAME, grad_output, output_shape, input);
  const auto [wants_input, wants_weight, wants_bias] = output_mask;
  const bool input_by_torch = form_of(reversed(params), input) == ConvForm::torch;
  const bool weight_by_torch = weight_form_of(params, input) == ConvForm::torch;
  const Tensor gradient = channels_last(grad_output);
  const auto nothing = [&] { return at::empty({0}, input.options()); };  // outputs must not share memory
  Tensor grad_input = nothing(), grad_weight = nothing(), grad_bias = nothing();
  const std::array<bool, 3> by_torch = {wants_input && input_by_torch, wants_weight && weight_by_torch, false};
  if (by_torch[0] || by_torch[1]) {
    const auto grads = at::convolution_backward(grad_output, input, weight, {}, {1, 1}, {padding, padding}, {1, 1},
                                                false, {0, 0}, groups, by_torch);
    if (by_torch[0]) grad_input = std::get<0>(grads).contiguous(memory_format(input, weight));
    if (by_torch[1]) grad_weight = std::get<1>(grads).contiguous(weight.suggest_memory_format());
  }
  if (wants_input && !input_by_torch) grad_input = backward_input(params, gradient, input, weight);
  if (wants_weight && !weight_by_torch) {
    grad_weight = at::empty_like(weight, weight.suggest_memory_format());
    winograd_backward_weight(params, image_view(gradient), image_view(channels_last(input)), image_view(grad_weight),
                             aten_parallel());
  }
  if (wants_bias) grad_bias = grad_output.sum({0, 2, 3});
  return {grad_input, grad_weight, grad_bias};
}

constexpr OpCall<&forward> call_forward{"jaa_ext::conv3x3"};
constexpr OpCall<&backward> call_backward{"jaa_ext::conv3x3_backward"};

class Function : public torch::autograd::Function<Function> {
 public:
  static Tensor forward(torch::autograd::AutogradContext* context, const Tensor& input, const Tensor& weight,
                        const optional<Tensor>& bias, int64_t padding, int64_t groups) {
    context->save_for_backward({input, weight});
    context->saved_data["padding"] = padding;
    context->saved_data["groups"] = groups;
    context->saved_data["has_bias"] = bias.has_value();
    return call_forward.below_autograd(input, weight, bias, padding, groups);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list grads) {
    const auto saved = context->get_saved_variables();
    const bool has_bias = context->saved_data["has_bias"].toBool();
    return input_weight_bias_gradients(*context, 5, true, has_bias, [&](std::array<bool, 3> mask) {
      return call_backward(grads[0], saved[0], saved[1], context->saved_data["padding"].toInt(),
                           context->saved_data["groups"].toInt(), mask);
    });
  }
};

Tensor forward_autograd(const Tensor& input, const Tensor& weight, const optional<Tensor>& bias, int64_t padding,
                        int64_t groups) {
  return Function::apply(input, weight, bias, padding, groups);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(jaa_ext, m) {
  m.def("conv3x3(Tensor input, Tensor weight, Tensor? bias, int padding, int groups) -> Tensor");
  m.def(
      "conv3x3_backward(Tensor grad_output, Tensor input, Tensor weight, int padding, int groups,"
      " bool[3] output_mask) -> (Tensor, Tensor, Tensor)");
  m.def("conv3x3_filters(Tensor weight, int groups) -> Tensor");
  m.def(
      "conv3x3_fused(Tensor input, Tensor weight, Tensor? filters, Tensor? bias, Tensor? attention, int padding,"
      " int groups, bool relu, bool pool) -> Tensor");
}

TORCH_LIBRARY_IMPL(jaa_ext, CPU, m) {
  m.impl("conv3x3", &forward);
  m.impl("conv3x3_backward", &backward);
  m.impl("conv3x3_filters", &filters);
  m.impl("conv3x3_fused", &fused);
}

TORCH_LIBRARY_IMPL(jaa_ext, Autograd, m) {
  m.impl("conv3x3", &forward_autograd);
  m.impl("conv3x3_backward", torch::autograd::autogradNotImplementedFallback());
  m.impl("conv3x3_filters", torch::autograd::autogradNotImplementedFallback());
  m.impl("conv3x3_fused", torch::autograd::autogradNotImplementedFallback());
}

}  // namespace jaa_ext
