# Decides MODALKV_HAS_CUDA from MODALKV_CUDA=AUTO|ON|OFF and enables the language.
# AUTO never fails: without a working toolkit of version 12 or newer the CUDA parts are left out.
set_property(CACHE MODALKV_CUDA PROPERTY STRINGS AUTO ON OFF)
set(MODALKV_HAS_CUDA FALSE)

# modalkv_kernel_options(TARGET FOLDER): how the kernels in FOLDER are compiled, wherever they are.
function(modalkv_kernel_options target folder)
  # Constants and arithmetic are shared with the host; a kernel that spills registers is an error.
  target_compile_options(${target} PRIVATE
    "$<$<COMPILE_LANGUAGE:CUDA>:--expt-relaxed-constexpr;-lineinfo;-Xptxas=-warn-spills>")
  # Every rounding as written.
  file(GLOB exact CONFIGURE_DEPENDS ${folder}/encode*.cu ${folder}/decode.cu)
  set_source_files_properties(${exact} PROPERTIES COMPILE_OPTIONS --fmad=false)
endfunction()

if(NOT MODALKV_CUDA MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "MODALKV_CUDA is '${MODALKV_CUDA}', expected AUTO, ON or OFF")
endif()
if(MODALKV_CUDA STREQUAL "OFF")
  message(STATUS "CUDA parts: off (MODALKV_CUDA=OFF)")
  return()
endif()

# Sets `reason` to why CUDA can't be used, empty where it can; enables nothing.
function(modalkv_find_cuda reason)
  # CMake itself does not look into /usr/local/cuda.
  find_program(MODALKV_NVCC nvcc
               HINTS $ENV{CUDACXX} ENV CUDA_HOME ENV CUDA_PATH PATH_SUFFIXES bin
               PATHS /usr/local/cuda)
  if(NOT MODALKV_NVCC)
    set(${reason} "no nvcc in CUDA_HOME, PATH or /usr/local/cuda" PARENT_SCOPE)
    return()
  endif()
  execute_process(COMMAND ${MODALKV_NVCC} --version OUTPUT_VARIABLE text ERROR_QUIET)
  if(NOT text MATCHES "release ([0-9]+\\.[0-9]+)")
    set(${reason} "${MODALKV_NVCC} does not run" PARENT_SCOPE)
    return()
  endif()
  if(CMAKE_MATCH_1 VERSION_LESS 12)
    set(${reason} "${MODALKV_NVCC} is version ${CMAKE_MATCH_1}, 12 or newer is needed" PARENT_SCOPE)
    return()
  endif()
  include(CheckLanguage)
  set(ENV{CUDACXX} ${MODALKV_NVCC})
  check_language(CUDA)
  if(NOT CMAKE_CUDA_COMPILER)
    set(${reason} "${MODALKV_NVCC} cannot compile with this host compiler" PARENT_SCOPE)
    return()
  endif()
  set(${reason} "" PARENT_SCOPE)
endfunction()

modalkv_find_cuda(missing)
if(missing)
  if(MODALKV_CUDA STREQUAL "ON")
    message(FATAL_ERROR "MODALKV_CUDA=ON: ${missing}")
  endif()
  message(STATUS "CUDA parts: left out (${missing})")
  return()
endif()

# One architecture keeps the normal build short: native code for sm_80 and its PTX, which newer
# GPUs compile at first use. `native` would fail where no GPU is. Releases name their own list.
if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES 80 CACHE STRING "GPU architectures to compile for")
endif()
enable_language(CUDA)
find_package(CUDAToolkit REQUIRED)
# CMake 3.25 does not know that nvcc 12 and newer speak C++20.
if(CMAKE_VERSION VERSION_LESS 3.26)
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
  set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
endif()
set(CMAKE_CUDA_STANDARD 20)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
set(MODALKV_HAS_CUDA TRUE)
message(STATUS "CUDA parts: built with ${CMAKE_CUDA_COMPILER} ${CMAKE_CUDA_COMPILER_VERSION} "
               "for ${CMAKE_CUDA_ARCHITECTURES}")
