# Common compile options and the two functions every room and test uses.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)

add_library(dspark_options INTERFACE)
target_include_directories(dspark_options INTERFACE ${PROJECT_SOURCE_DIR}/src ${PROJECT_SOURCE_DIR}/include)
# -ffp-contract=off: batch invariance needs every fused multiply-add to be written, never chosen by the
# compiler differently in two instances of one template.
target_compile_options(dspark_options INTERFACE -Wall -Wextra -Wshadow -Werror -ffp-contract=off -fno-math-errno)
if(DSPARK_SANITIZE)
  target_compile_options(dspark_options INTERFACE -fsanitize=${DSPARK_SANITIZE} -fno-omit-frame-pointer
                         -fno-sanitize-recover=all)
  target_link_options(dspark_options INTERFACE -fsanitize=${DSPARK_SANITIZE})
endif()

# dspark_room(NAME SOURCES ... LINKS ...): the static library dspark_NAME of one room.
# LINKS may name only rooms that the table in docs/architecture.md allows (tools/check_rooms.py).
function(dspark_room name)
  cmake_parse_arguments(ROOM "" "" "SOURCES;LINKS" ${ARGN})
  add_library(dspark_${name} STATIC ${ROOM_SOURCES})
  set_target_properties(dspark_${name} PROPERTIES LINKER_LANGUAGE CXX)
  target_link_libraries(dspark_${name} PUBLIC dspark_options ${ROOM_LINKS})
endfunction()

# Sanitizers make everything slower by a factor; the limits of tests are for a hang, not for that.
if(DSPARK_SANITIZE)
  set(DSPARK_TEST_SLOWDOWN 10 CACHE STRING "Factor on the time limits of tests")
else()
  set(DSPARK_TEST_SLOWDOWN 1 CACHE STRING "Factor on the time limits of tests")
endif()

# dspark_time_limit(TEST SECONDS): the test is stopped after that long, times DSPARK_TEST_SLOWDOWN, which the test
# finds in its environment for the limits of its own.
function(dspark_time_limit test seconds)
  math(EXPR seconds "${seconds} * ${DSPARK_TEST_SLOWDOWN}")
  set_tests_properties(${test} PROPERTIES TIMEOUT ${seconds}
    ENVIRONMENT_MODIFICATION "DSPARK_TEST_SLOWDOWN=set:${DSPARK_TEST_SLOWDOWN}")
endfunction()

# dspark_test(NAME SOURCES ... LINKS ... LABELS ...): one GoogleTest executable = one ctest entry.
# Tests find fixtures through tests/support/test_paths.h.
function(dspark_test name)
  cmake_parse_arguments(TEST "" "TIMEOUT" "SOURCES;LINKS;LABELS" ${ARGN})
  add_executable(${name} ${TEST_SOURCES})
  target_link_libraries(${name} PRIVATE dspark_options ${TEST_LINKS} GTest::gtest GTest::gtest_main)
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR}/tests)
  target_compile_definitions(${name} PRIVATE DSPARK_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
  add_test(NAME ${name} COMMAND ${name})
  if(NOT TEST_TIMEOUT)
    set(TEST_TIMEOUT 600)
  endif()
  set_tests_properties(${name} PROPERTIES LABELS "${TEST_LABELS}")
  dspark_time_limit(${name} ${TEST_TIMEOUT})
endfunction()
