# What `cmake --install` lays down: the library with its package, the program, its profiles.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/modalkv)
install(TARGETS modalkv modalkv_headers EXPORT modalkvTargets FILE_SET HEADERS)
install(EXPORT modalkvTargets NAMESPACE modalkv:: DESTINATION ${package_dir})

# A static library leaves its private dependencies to whoever links it; a shared one does not.
set(MODALKV_PACKAGE_NEEDS "")
if(NOT BUILD_SHARED_LIBS)
  string(CONCAT MODALKV_PACKAGE_NEEDS
         "find_dependency(fmt)\nfind_dependency(OpenSSL COMPONENTS Crypto)\nfind_dependency(TBB)\n"
         "find_dependency(Threads)\nfind_dependency(PkgConfig)\n"
         "pkg_check_modules(hwloc REQUIRED IMPORTED_TARGET hwloc)\n"
         "pkg_check_modules(liburing REQUIRED IMPORTED_TARGET liburing)\n")
  if(MODALKV_HAS_CUDA)
    string(APPEND MODALKV_PACKAGE_NEEDS "find_dependency(CUDAToolkit)\n")
  endif()
endif()
configure_package_config_file(tools/cmake/modalkvConfig.cmake.in
                              ${PROJECT_BINARY_DIR}/modalkvConfig.cmake
                              INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/modalkvConfigVersion.cmake
                                 COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/modalkvConfig.cmake
              ${PROJECT_BINARY_DIR}/modalkvConfigVersion.cmake DESTINATION ${package_dir})
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})

if(TARGET modalkv_tool)
  # Found from wherever the tree is moved to.
  file(RELATIVE_PATH bin_to_lib ${CMAKE_INSTALL_FULL_BINDIR} ${CMAKE_INSTALL_FULL_LIBDIR})
  set_target_properties(modalkv_tool PROPERTIES INSTALL_RPATH "$ORIGIN/${bin_to_lib}")
  install(TARGETS modalkv_tool)
  foreach(folder models hardware samples)
    if(IS_DIRECTORY ${PROJECT_SOURCE_DIR}/tools/${folder})
      install(DIRECTORY tools/${folder} DESTINATION ${CMAKE_INSTALL_DATADIR}/modalkv
              FILES_MATCHING PATTERN *.json PATTERN *.jsonl PATTERN *.csv)
    endif()
  endforeach()
endif()
