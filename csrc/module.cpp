// The Python module `_C`. Loading it registers the ops; it also holds build_info() and the renderer of faces.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <torch/version.h>

#include <map>
#include <string>

#include "common/cpu_level.h"
#include "conv3x3/form.h"
#include "rendering/bindings.h"

#ifndef JAA_EXT_CUDA_ARCHS
#define JAA_EXT_CUDA_ARCHS ""
#endif
#ifndef JAA_EXT_CUDA_VERSION
#define JAA_EXT_CUDA_VERSION ""
#endif

namespace {

std::string compiler() {
#if defined(__clang__)
  return "clang " __clang_version__;
#elif defined(__GNUC__)
  return "gcc " __VERSION__;
#else
  return "unknown";
#endif
}

const char* threads() {
#ifdef _OPENMP
  return "OpenMP";
#else
  return "none";
#endif
}

std::map<std::string, std::string> build_info() {
  return {{"torch", TORCH_VERSION},      {"cuda", JAA_EXT_CUDA_VERSION},
          {"archs", JAA_EXT_CUDA_ARCHS}, {"compiler", compiler()},
          {"threads", threads()},        {"cpu_level", jaa_ext::name(jaa_ext::cpu_level())}};
}

}  // namespace

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  m.doc() = "Compiled kernels of jaa_ext; torch.ops.jaa_ext holds the ops.";
  m.def("build_info", &build_info,
        "Versions of torch and CUDA, architectures, compiler, threading, CPU level in use.");
  m.def(
      "conv3x3_form",
      [](int64_t in_channels, int64_t out_channels) {
        return jaa_ext::name(jaa_ext::conv3x3_form(in_channels, out_channels));
      },
      "How a 3 x 3 convolution in float32 runs: \"winograd\", \"direct\" or \"torch\".");
  m.def("conv3x3_about", &jaa_ext::conv3x3_about, "One line on how 3 x 3 convolutions run on this processor.");
  jaa_ext::rendering::bind(m);
}
