# Compares what the library exports with testdata/symbols.txt: whoever adds a function writes it down there, and nothing
# else gets out. Arguments: -DLIBRARY=..., -DGOLDEN=..., -DNM=...
execute_process(COMMAND ${NM} -D --defined-only --format=posix ${LIBRARY}
  OUTPUT_VARIABLE output COMMAND_ERROR_IS_FATAL ANY)
string(REGEX REPLACE " [^\n]*" "" output "${output}")
string(REGEX MATCHALL "[^\n]+" found "${output}")
file(STRINGS ${GOLDEN} expected)
set(missing ${expected})
list(REMOVE_ITEM missing ${found})
set(unexpected ${found})
list(REMOVE_ITEM unexpected ${expected})
if(missing OR unexpected)
  message(FATAL_ERROR "${LIBRARY} differs from ${GOLDEN}: missing [${missing}], unexpected [${unexpected}]")
endif()
