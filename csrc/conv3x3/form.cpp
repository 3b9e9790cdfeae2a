#include "form.h"

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <stdexcept>

#include "../common/cpu_level.h"

namespace jaa_ext {
namespace {

constexpr const char* VARIABLE = "JAA_EXT_CONV3X3";

// The form that the environment variable names.
std::optional<ConvForm> forced() {
  static const std::optional<ConvForm> form = []() -> std::optional<ConvForm> {
    const char* wanted = std::getenv(VARIABLE);
    if (wanted == nullptr || *wanted == '\0') return std::nullopt;
    for (ConvForm form : {ConvForm::winograd, ConvForm::direct, ConvForm::torch}) {
      if (std::string(wanted) == name(form)) return form;
    }
    throw std::runtime_error(std::string(VARIABLE) + " must be winograd, direct or torch, got " + wanted);
  }();
  return form;
}

}  // namespace

const char* name(ConvForm form) {
  switch (form) {
    case ConvForm::winograd:
      return "winograd";
    case ConvForm::direct:
      return "direct";
    default:
      return "torch";
  }
}

ConvForm conv3x3_form(int64_t in_channels, int64_t out_channels) {
  if (forced()) return *forced();
  if (in_channels == 1 && out_channels == 1) return ConvForm::torch;  // these are mostly groups of one channel
  if (in_channels == 1 || out_channels == 1) return ConvForm::direct;
  // With a few channels the transforms of a tile cost as much as its products.
  return in_channels <= 4 ? ConvForm::torch : ConvForm::winograd;
}

ConvForm conv3x3_weight_form(int64_t in_channels, int64_t tiles) {
  if (forced()) return *forced() == ConvForm::winograd ? ConvForm::winograd : ConvForm::torch;
  // Few tiles do not repay that 36 positions are summed in place of 9 taps.
  return in_channels > 4 && tiles >= 16 ? ConvForm::winograd : ConvForm::torch;
}

// Every call transforms the filters of every cell, which small cells do not repay.
constexpr int64_t LEAST_CELL = 100;

ConvForm region_conv3x3_form(int64_t in_channels, int64_t out_channels, int64_t cell_pixels) {
  if (forced()) return *forced() == ConvForm::winograd ? ConvForm::winograd : ConvForm::direct;
  const bool wide = std::min(in_channels, out_channels) >= 8;
  return wide && cell_pixels >= LEAST_CELL ? ConvForm::winograd : ConvForm::direct;
}

ConvForm region_conv3x3_weight_form(int64_t in_channels, int64_t out_channels, int64_t cell_pixels) {
  if (forced()) return *forced() == ConvForm::winograd ? ConvForm::winograd : ConvForm::direct;
  const bool wide = std::min(in_channels, out_channels) >= 16;
  return wide && cell_pixels >= LEAST_CELL ? ConvForm::winograd : ConvForm::direct;
}

std::string conv3x3_about() {
  if (forced()) return std::string(name(*forced())) + ", as " + VARIABLE + " says";
  return "Winograd F(4x4, 3x3) in float32, a quarter of the multiplications; direct with one channel in or out; "
         "PyTorch's with 2 to 4 in, and in other types";
}

}  // namespace jaa_ext
