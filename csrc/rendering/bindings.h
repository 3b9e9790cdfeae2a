#pragma once

#include <pybind11/pybind11.h>

namespace jaa_ext::rendering {

// Adds Head, PosedHead, Scene, Light, Rod and render() to a module.
void bind(pybind11::module_& m);

}  // namespace jaa_ext::rendering
