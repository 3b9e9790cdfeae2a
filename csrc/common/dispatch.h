// Turns the element type, known at run time, into a template argument.
#pragma once

#include "scalar.h"

namespace jaa_ext {

// Calls body with a value of the element type.
template <typename Body>
void dispatch(ScalarType scalar_type, const Body& body) {
  switch (scalar_type) {
    case ScalarType::f64:
      return body(double{});
    case ScalarType::f32:
      return body(float{});
    case ScalarType::f16:
      return body(Half{});
    case ScalarType::bf16:
      return body(BFloat16{});
  }
}

}  // namespace jaa_ext
