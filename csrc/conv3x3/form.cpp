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

ConvForm conv3x3_form(int64_t in_channels, int64_t out_channels, int64_t out_height, int64_t out_width) {
  if (forced()) return *forced();
  const int64_t fewer = std::min(in_channels, out_channels);
  if (fewer <= 4) return ConvForm::direct;
  // The transforms of a tile cost as much as the products of some ten channels, and a tile that is mostly outside of
  // the image saves nothing.
  return fewer >= 16 && std::min(out_height, out_width) >= 4 ? ConvForm::winograd : ConvForm::torch;
}

ConvForm conv3x3_weight_form(int64_t in_channels, int64_t out_channels, int64_t out_height, int64_t out_width) {
  if (forced()) return *forced() == ConvForm::winograd ? ConvForm::winograd : ConvForm::torch;
  return std::min(in_channels, out_channels) >= 16 && std::min(out_height, out_width) >= 4 ? ConvForm::winograd
                                                                                           : ConvForm::torch;
}

ConvForm region_conv3x3_form(int64_t in_channels, int64_t out_channels, int64_t cell_height, int64_t cell_width) {
  if (forced()) return *forced() == ConvForm::winograd ? ConvForm::winograd : ConvForm::direct;
  const bool wide = std::min(in_channels, out_channels) >= 16;
  const bool large = std::min(cell_height, cell_width) >= 8;
  return wide && large ? ConvForm::winograd : ConvForm::direct;
}

std::string conv3x3_about() {
  if (forced()) return std::string(name(*forced())) + " (" + VARIABLE + ")";
  return "Winograd F(4x4, 3x3) in float32 from 16 channels on, else PyTorch's";
}

}  // namespace jaa_ext
