// CUDA's stream type, declared for headers that are compiled without the toolkit.
#pragma once

struct CUstream_st;

namespace jaa_ext {

using CudaStream = CUstream_st*;

}  // namespace jaa_ext
