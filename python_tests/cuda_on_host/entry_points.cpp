// The functions that Python calls. They launch kernels and return null, or a message of what went wrong.
#include <cstring>
#include <exception>
#include <memory>
#include <string>
#include <vector>

#include "attention_maps/attention_maps.h"
#include "region_batch_norm/region_batch_norm.h"
#include "region_conv2d/region_conv2d.h"
#include "softmax_dice_loss/softmax_dice_loss.h"

using namespace jaa_ext;

namespace {

template <typename Call>
const char* message_of(const Call& call) {
  static std::string message;
  try {
    call();
    return nullptr;
  } catch (const std::exception& error) {
    message = error.what();
    return message.c_str();
  }
}

// Gives launchers memory, full of NaN whatever type is read, and frees it at its end.
class Workspace {
 public:
  Allocate allocate() {
    return [this](int64_t bytes) {
      memory_.emplace_back(new unsigned char[bytes]);
      return std::memset(memory_.back().get(), 0xff, bytes);
    };
  }

 private:
  std::vector<std::unique_ptr<unsigned char[]>> memory_;
};

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

const char* region_conv2d_forward(const RegionConv2dParams* params, const ImageView* input, const void* weight,
                                  const void* bias, const ImageView* output) {
  return message_of([&] {
    Workspace workspace;
    region_conv2d_forward_cuda(*params, *input, weight, bias, *output, workspace.allocate(), nullptr);
  });
}

const char* region_conv2d_backward_input(const RegionConv2dParams* params, const ImageView* grad_output,
                                         const void* weight, const ImageView* grad_input) {
  return message_of([&] {
    Workspace workspace;
    region_conv2d_backward_input_cuda(*params, *grad_output, weight, *grad_input, workspace.allocate(), nullptr);
  });
}

const char* region_conv2d_backward_weight(const RegionConv2dParams* params, const ImageView* grad_output,
                                          const ImageView* input, void* grad_weight, void* grad_bias) {
  return message_of([&] {
    Workspace workspace;
    region_conv2d_backward_weight_cuda(*params, *grad_output, *input, grad_weight, grad_bias, workspace.allocate(),
                                       nullptr);
  });
}

const char* region_batch_norm_forward(const RegionBatchNormParams* params, const RegionBatchNormTensors* tensors,
                                      const ImageView* input, const ImageView* output) {
  return message_of([&] {
    Workspace workspace;
    region_batch_norm_forward_cuda(*params, *tensors, *input, *output, workspace.allocate(), nullptr);
  });
}

const char* region_batch_norm_backward(const RegionBatchNormParams* params, const RegionBatchNormTensors* tensors,
                                       const ImageView* grad_output, const ImageView* input,
                                       const ImageView* grad_input, void* grad_weight, void* grad_bias) {
  return message_of([&] {
    Workspace workspace;
    region_batch_norm_backward_cuda(*params, *tensors, *grad_output, *input, *grad_input, grad_weight, grad_bias,
                                    workspace.allocate(), nullptr);
  });
}

const char* attention_maps(const AttentionMapsParams* params, const int64_t* points, const double* dy) {
  return message_of([&] { attention_maps_cuda(*params, {points, dy}, nullptr); });
}

const char* softmax_dice_loss_forward(const SoftmaxDiceLossParams* params, void* softmax, void* dice) {
  return message_of([&] { softmax_dice_loss_forward_cuda(*params, softmax, dice, nullptr); });
}

const char* softmax_dice_loss_backward(const SoftmaxDiceLossParams* params, const void* grad_softmax,
                                       const void* grad_dice, void* grad_logits) {
  return message_of([&] { softmax_dice_loss_backward_cuda(*params, grad_softmax, grad_dice, grad_logits, nullptr); });
}

void planted_cuda(int mistake, int shared_bytes, const int* input, int* output);  // planted.cu
void shuffles_cuda(int lanes, const int* input, int* output);
void matrix_product_cuda(ScalarType type, const unsigned char* a, const unsigned char* b, bool b_by_rows,
                         const float* c, float* d, int threads, int displacement);  // matrices.cu

const char* planted(int mistake, int shared_bytes, const int* input, int* output) {
  return message_of([&] { planted_cuda(mistake, shared_bytes, input, output); });
}

const char* shuffles(int lanes, const int* input, int* output) {
  return message_of([&] { shuffles_cuda(lanes, input, output); });
}

const char* matrix_product(ScalarType type, const unsigned char* a, const unsigned char* b, bool b_by_rows,
                           const float* c, float* d, int threads, int displacement) {
  return message_of([&] { matrix_product_cuda(type, a, b, b_by_rows, c, d, threads, displacement); });
}

}  // extern "C"
#pragma GCC visibility pop
