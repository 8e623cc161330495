# Compares what the library exports with testdata/symbols.txt: whoever adds a function writes it down there, and nothing
# else gets out. Arguments: -DLIBRARY=..., -DGOLDEN=..., -DNM=...
execute_process(COMMAND ${NM} -D --defined-only --format=posix ${LIBRARY} OUTPUT_VARIABLE output COMMAND_ERROR_IS_FATAL ANY)
string(REGEX REPLACE " [^\n]*" "" symbols "${output}")
string(REGEX MATCHALL "[^\n]+" symbols "${symbols}")
list(SORT symbols)
list(JOIN symbols "\n" found)
file(READ ${GOLDEN} expected)
string(STRIP "${expected}" expected)
if(NOT found STREQUAL expected)
  message(FATAL_ERROR "${LIBRARY} exports\n${found}\nbut ${GOLDEN} says\n${expected}")
endif()
