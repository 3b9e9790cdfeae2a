// From the run-time element type to the kernel compiled for it.
#pragma once

#include "scalar.h"

namespace jaa_ext {

// Calls body with a value of the element type.
template <typename Body>
void dispatch(Scalar scalar, const Body& body) {
  switch (scalar) {
    case Scalar::f64:
      return body(double{});
    case Scalar::f32:
      return body(float{});
    case Scalar::f16:
      return body(Half{});
    case Scalar::bf16:
      return body(BFloat16{});
  }
}

}  // namespace jaa_ext
