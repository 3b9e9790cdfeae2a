// CUDA's stream type by name alone, for headers that are read without the toolkit.
#pragma once

struct CUstream_st;

namespace jaa_ext {

using CudaStream = CUstream_st*;

}  // namespace jaa_ext
