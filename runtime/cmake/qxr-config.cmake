include("${CMAKE_CURRENT_LIST_DIR}/qxr-targets.cmake")
