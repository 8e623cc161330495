package profiler

import (
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
)

// stepSite is the name under which recorders know the call site of all steps.
const stepSite = "ProfilerStep"

// sourceRoot is where the module's files lay when they were compiled.
var sourceRoot = func() string {
	_, file, _, _ := runtime.Caller(0)
	return strings.TrimSuffix(file, "profiler/call_site.go")
}()

// callerOf is the place from which the function was called that is skip calls above its caller.
func callerOf(skip int) uintptr {
	var pc [1]uintptr
	runtime.Callers(skip+3, pc[:])
	return pc[0]
}

// callSite describes a place in the program as recorders describe theirs: "pipeline/worker/steps.go(133): step". Files of the
// module are named from its root, others by their name alone.
func callSite(pc uintptr) string {
	frame, _ := runtime.CallersFrames([]uintptr{pc}).Next()
	file, ours := strings.CutPrefix(frame.File, sourceRoot)
	if !ours {
		file = filepath.Base(file)
	}
	return fmt.Sprintf("%s(%d): %s", file, frame.Line, shortName(frame.Function))
}

// shortName is the name of a function without its package and receiver.
func shortName(function string) string {
	_, name, _ := strings.Cut(function[strings.LastIndexByte(function, '/')+1:], ".")
	if _, method, ok := strings.Cut(name, ")."); ok {
		name = method
	}
	return name
}
