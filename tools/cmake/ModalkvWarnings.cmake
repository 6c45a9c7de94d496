# Warnings are errors in our own targets, and only where modalkv is the project being built: who
# adds it to a larger one keeps their own flags. Directory scope, so nothing of it is exported.
if(NOT PROJECT_IS_TOP_LEVEL)
  return()
endif()
if(NOT DEFINED CMAKE_COMPILE_WARNING_AS_ERROR)
  set(CMAKE_COMPILE_WARNING_AS_ERROR ON)
endif()
set(warnings -Wall -Wextra -Wpedantic -Wshadow -Wconversion)
add_compile_options("$<$<COMPILE_LANGUAGE:CXX>:${warnings}>")
# GCC 12 sees overlaps in std::string's own concatenation that are not there (GCC bug 105651).
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  add_compile_options("$<$<COMPILE_LANGUAGE:CXX>:-Wno-restrict>")
endif()
# Asio has fences that TSan does not see, beside mutexes that it does.
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_FLAGS MATCHES "-fsanitize=thread")
  add_compile_options("$<$<COMPILE_LANGUAGE:CXX>:-Wno-tsan>")
endif()
# nvcc's own line markers are not pedantic C++, so -Wpedantic stays out.
add_compile_options("$<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-Wall,-Wextra,-Wshadow,-Wconversion>")

if(MODALKV_FUZZ)
  if(NOT CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
    message(FATAL_ERROR "MODALKV_FUZZ needs clang (libFuzzer), found ${CMAKE_CXX_COMPILER_ID}: "
                        "use the preset 'fuzz' or set CMAKE_CXX_COMPILER=clang++")
  endif()
  add_compile_options(-fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all)
  add_link_options(-fsanitize=address,undefined)
endif()
