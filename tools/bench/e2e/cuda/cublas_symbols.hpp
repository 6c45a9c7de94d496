// cuBLASLt, found at run time: it is large, and the program starts without it.
#pragma once

#include <cublasLt.h>
#include <dlfcn.h>

#include <string>
#include <type_traits>

#include "modalkv/error.hpp"

namespace modalkv {

/// The library's calls by their own names, without the prefix. Plain pointers: copy it.
struct CublasSymbols {
  decltype(&cublasLtCreate) create;
  decltype(&cublasLtDestroy) destroy;
  decltype(&cublasLtMatmul) matmul;
  decltype(&cublasLtMatmulAlgoGetHeuristic) find_algorithms;
  decltype(&cublasLtMatmulDescCreate) create_matmul;
  decltype(&cublasLtMatmulDescDestroy) destroy_matmul;
  decltype(&cublasLtMatmulDescSetAttribute) set_matmul;
  decltype(&cublasLtMatrixLayoutCreate) create_layout;
  decltype(&cublasLtMatrixLayoutDestroy) destroy_layout;
  decltype(&cublasLtMatmulPreferenceCreate) create_preference;
  decltype(&cublasLtMatmulPreferenceDestroy) destroy_preference;
  decltype(&cublasLtMatmulPreferenceSetAttribute) set_preference;

  /// Of the toolkit's version, from where the loader looks or the toolkit was. Stays loaded. Throws
  /// Error.
  static CublasSymbols load() {
    const std::string name = "libcublasLt.so." + std::to_string(CUBLAS_VER_MAJOR);
    void* library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr)
      library = dlopen((MODALKV_CUDA_LIBRARIES "/" + name).c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr)
      throw Error("bench e2e: " + name +
                  " is not to be found; install cuBLAS or set LD_LIBRARY_PATH");
    CublasSymbols symbols{};
    const auto find = [&](auto& call, const char* symbol) {
      call = reinterpret_cast<std::remove_reference_t<decltype(call)>>(dlsym(library, symbol));
      if (call == nullptr) throw Error("bench e2e: " + name + " has no " + symbol);
    };
    find(symbols.create, "cublasLtCreate");
    find(symbols.destroy, "cublasLtDestroy");
    find(symbols.matmul, "cublasLtMatmul");
    find(symbols.find_algorithms, "cublasLtMatmulAlgoGetHeuristic");
    find(symbols.create_matmul, "cublasLtMatmulDescCreate");
    find(symbols.destroy_matmul, "cublasLtMatmulDescDestroy");
    find(symbols.set_matmul, "cublasLtMatmulDescSetAttribute");
    find(symbols.create_layout, "cublasLtMatrixLayoutCreate");
    find(symbols.destroy_layout, "cublasLtMatrixLayoutDestroy");
    find(symbols.create_preference, "cublasLtMatmulPreferenceCreate");
    find(symbols.destroy_preference, "cublasLtMatmulPreferenceDestroy");
    find(symbols.set_preference, "cublasLtMatmulPreferenceSetAttribute");
    return symbols;
  }
};

}  // namespace modalkv
