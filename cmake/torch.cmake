# libtorch for the trainer: scripts/setup-torch puts it into .torch/. The engine never links it.
set(DSPARK_TRAIN AUTO CACHE STRING "Build the trainer (dspark-train): ON, OFF, or AUTO = when libtorch is there")
set(DSPARK_TORCH_DIR ${PROJECT_SOURCE_DIR}/.torch/site CACHE PATH "Where scripts/setup-torch installed to")

set(torch_found OFF)
if(EXISTS ${DSPARK_TORCH_DIR}/torch/include/ATen/ATen.h)
  set(torch_found ON)
endif()
if(DSPARK_TRAIN STREQUAL "AUTO")
  set(dspark_build_train ${torch_found})
  if(DSPARK_SANITIZE)
    set(dspark_build_train OFF)  # libtorch is not instrumented
  endif()
else()
  set(dspark_build_train ${DSPARK_TRAIN})
endif()

if(dspark_build_train)
  if(NOT torch_found)
    message(FATAL_ERROR "DSPARK_TRAIN needs libtorch: run scripts/setup-torch (looked in ${DSPARK_TORCH_DIR})")
  endif()
  set(torch_lib ${DSPARK_TORCH_DIR}/torch/lib)
  add_library(dspark_torch INTERFACE)
  # Behind all other folders: it brings copies of libraries that we have ourselves (fmt). As a system folder its
  # headers are not held to our warnings.
  target_compile_options(dspark_torch INTERFACE "SHELL:-idirafter ${DSPARK_TORCH_DIR}/torch/include")
  # The packages that libtorch_cpu itself needs are found through its own RPATH at run time.
  target_link_options(dspark_torch INTERFACE -Wl,-rpath,${torch_lib} -Wl,--unresolved-symbols=ignore-in-shared-libs)
  target_link_libraries(dspark_torch INTERFACE ${torch_lib}/libtorch_cpu.so ${torch_lib}/libc10.so)
  if(EXISTS ${torch_lib}/libtorch_cuda.so)
    # Nothing names a symbol of it; it registers itself when it is loaded.
    target_link_options(dspark_torch INTERFACE -Wl,--no-as-needed)
    target_link_libraries(dspark_torch INTERFACE ${torch_lib}/libtorch_cuda.so ${torch_lib}/libc10_cuda.so)
  endif()
endif()
