# The target onnxruntime::onnxruntime: from ONNXRUNTIME_ROOT (include/ and lib/), from build/onnxruntime, which
# setup/onnxruntime.sh makes of the Python wheel's library and the distribution's headers, or from the system.
set(ONNXRUNTIME_ROOT "" CACHE PATH "Folder with ONNX Runtime's include/ and lib/")
set(_hints ${ONNXRUNTIME_ROOT} ${PROJECT_SOURCE_DIR}/build/onnxruntime)
find_path(ONNXRUNTIME_INCLUDE onnxruntime_cxx_api.h HINTS ${_hints}
          PATH_SUFFIXES include include/onnxruntime include/onnxruntime/core/session)
find_library(ONNXRUNTIME_LIBRARY onnxruntime HINTS ${_hints} PATH_SUFFIXES lib)
if(NOT ONNXRUNTIME_INCLUDE OR NOT ONNXRUNTIME_LIBRARY)
  message(FATAL_ERROR "ONNX Runtime was not found: run setup/onnxruntime.sh, install libonnxruntime-dev, or set ONNXRUNTIME_ROOT")
endif()
add_library(onnxruntime::onnxruntime SHARED IMPORTED)
set_target_properties(onnxruntime::onnxruntime PROPERTIES
  IMPORTED_LOCATION ${ONNXRUNTIME_LIBRARY}
  INTERFACE_INCLUDE_DIRECTORIES ${ONNXRUNTIME_INCLUDE})
