# The one library, modalkv::modalkv, and the layers it is made of.
find_package(fmt REQUIRED)
find_package(Threads REQUIRED)
find_package(TBB REQUIRED)
find_package(Boost 1.81 REQUIRED)
find_package(OpenSSL REQUIRED COMPONENTS Crypto)
find_package(PkgConfig REQUIRED)
pkg_check_modules(hwloc REQUIRED IMPORTED_TARGET hwloc)
pkg_check_modules(liburing REQUIRED IMPORTED_TARGET liburing)
set(modalkv_needs fmt::fmt OpenSSL::Crypto TBB::tbb Threads::Threads PkgConfig::hwloc
                  PkgConfig::liburing)

# The public headers: standard library only.
add_library(modalkv_headers INTERFACE)
add_library(modalkv::headers ALIAS modalkv_headers)
file(GLOB public_headers CONFIGURE_DEPENDS include/modalkv/*.hpp include/modalkv/*.h)
target_sources(modalkv_headers INTERFACE FILE_SET HEADERS BASE_DIRS include FILES ${public_headers})
set_target_properties(modalkv_headers PROPERTIES EXPORT_NAME headers VERIFY_INTERFACE_HEADER_SETS ON)

# static or shared, by BUILD_SHARED_LIBS. Who links it sees the public headers and nothing else;
# inside this build the tools and tests see every layer.
add_library(modalkv)
add_library(modalkv::modalkv ALIAS modalkv)
set_target_properties(modalkv PROPERTIES
  VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR}
  LINKER_LANGUAGE CXX)
target_include_directories(modalkv PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}>)
target_link_libraries(modalkv PUBLIC modalkv_headers PRIVATE ${modalkv_needs})
target_link_options(modalkv PRIVATE LINKER:--no-undefined)
if(MODALKV_HAS_CUDA)
  target_link_libraries(modalkv PRIVATE CUDA::cudart_static)
endif()

# modalkv_layer(NAME): one folder, compiled once. `x_none.cpp` stands in for `cuda/x.cu` where CUDA
# is not built.
function(modalkv_layer layer)
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${layer}/*.cpp)
  list(FILTER sources EXCLUDE REGEX "/simt/")  # the emulated GPU is for tests
  if(MODALKV_HAS_CUDA)
    file(GLOB_RECURSE cuda_sources CONFIGURE_DEPENDS ${layer}/*.cu)
    list(FILTER sources EXCLUDE REGEX "_none\\.cpp$")
    list(APPEND sources ${cuda_sources})
  endif()
  if(NOT sources)
    return()
  endif()
  add_library(modalkv_${layer} OBJECT ${sources})
  target_include_directories(modalkv_${layer} PUBLIC ${PROJECT_SOURCE_DIR})
  target_link_libraries(modalkv_${layer} PUBLIC modalkv_headers ${modalkv_needs}
                        PRIVATE Boost::headers)
  # The same Asio in every file: io_uring for files, epoll for sockets.
  target_compile_definitions(modalkv_${layer} PRIVATE BOOST_ASIO_HAS_IO_URING
                             BOOST_ASIO_NO_DEPRECATED BOOST_ERROR_CODE_HEADER_ONLY)
  # Every rounding as written: the same page bytes and digests on every processor.
  target_compile_options(modalkv_${layer} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-ffp-contract=off>)
  # Constants and arithmetic are shared with the host; a kernel that spills registers is an error.
  target_compile_options(modalkv_${layer} PRIVATE
    "$<$<COMPILE_LANGUAGE:CUDA>:--expt-relaxed-constexpr;-lineinfo;-Xptxas=-warn-spills>")
  file(GLOB exact CONFIGURE_DEPENDS ${layer}/cuda/encode*.cu ${layer}/cuda/decode.cu)
  set_source_files_properties(${exact} PROPERTIES COMPILE_OPTIONS --fmad=false)
  target_sources(modalkv PRIVATE $<TARGET_OBJECTS:modalkv_${layer}>)
  # What kernels compare is loop counters, no magic values that a fuzzer could learn: half its time.
  if(MODALKV_FUZZ AND layer STREQUAL kernels)
    target_compile_options(modalkv_${layer} PRIVATE -fno-sanitize-coverage=trace-cmp)
  endif()
  # clang 14 cannot assemble its signatures of coroutines.
  if(MODALKV_FUZZ)
    set_source_files_properties(runtime/admin_server.cpp PROPERTIES
                                COMPILE_OPTIONS -fno-sanitize=function)
  endif()
  # Loops unrolled by lambdas have thousands of scopes; marking them all for the address sanitizer
  # takes GCC minutes. Everything else of it stays.
  file(GLOB unrolled CONFIGURE_DEPENDS ${layer}/attention_avx*.cpp)
  set_source_files_properties(${unrolled} PROPERTIES
                              COMPILE_OPTIONS -fno-sanitize-address-use-after-scope)
endfunction()
