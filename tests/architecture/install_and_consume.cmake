# Installs BUILD below WORK, builds and runs CONSUMER and the example engines against it, and runs the
# installed program.
function(run)
  execute_process(COMMAND ${ARGN} WORKING_DIRECTORY ${WORK} RESULT_VARIABLE code
                  OUTPUT_VARIABLE output ERROR_VARIABLE output)
  message(STATUS "${ARGN}\n${output}")
  if(NOT code EQUAL 0)
    message(FATAL_ERROR "failed (${code}): ${ARGN}")
  endif()
  set(output "${output}" PARENT_SCOPE)
endfunction()

function(expect text)
  if(NOT output MATCHES "${text}")
    message(FATAL_ERROR "expected '${text}' in:\n${output}")
  endif()
endfunction()

file(REMOVE_RECURSE ${WORK})
file(MAKE_DIRECTORY ${WORK})
run(${CMAKE_COMMAND} --install ${BUILD} --prefix ${WORK}/prefix)

function(build source)
  get_filename_component(name ${source} NAME)
  run(${CMAKE_COMMAND} -S ${source} -B ${WORK}/${name} -G ${GENERATOR}
      -D CMAKE_PREFIX_PATH=${WORK}/prefix -D CMAKE_CXX_COMPILER=${COMPILER}
      -D CMAKE_CXX_FLAGS=${FLAGS} -D EXPECTED_VERSION=${VERSION})
  run(${CMAKE_COMMAND} --build ${WORK}/${name})
  run(${WORK}/${name}/${name})
  set(output "${output}" PARENT_SCOPE)
endfunction()

build(${CONSUMER})
expect("^linked modalkv ${VERSION}\n$")
build(${EXAMPLES}/engine_loop)
expect("the first [0-9]+ of 32 answered tokens are the same")
build(${EXAMPLES}/engine_loop_c)
expect("3 sequences answered 48 tokens")

if(EXISTS ${WORK}/prefix/bin/modalkv)
  unset(ENV{MODALKV_PROFILE_DIR})
  run(${WORK}/prefix/bin/modalkv --version)
  expect("${VERSION}")
  run(${WORK}/prefix/bin/modalkv inspect models)
  expect("llava-1.5-7b")
endif()
