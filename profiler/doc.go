// Package profiler holds what the profiler of a pipeline is told, does and reports, without any tensor in sight.
//
// A [Config] says what to record and where to put it. The parent process owns a [Sessions], which numbers sessions and
// hands out file names that no other worker and no earlier session uses; its [Start] message goes to every named worker.
// A worker owns a [Worker], the state machine that turns Start, the steps of its engine and Stop into calls of a
// [Recorder], which does the recording in C++. Every worker answers for itself with a [Report].
//
// A session has two ends. Collection ends when the worker is stopped or a budget is used up; the files are written after
// that, away from the thread that runs the model, and the report says when they are complete.
//
// Files of one session, per worker, in the directory of the Config:
//
//	{worker}_{session}.{ns}.pt.trace.json.gz   the trace: Perfetto, HTA, TensorBoard, chrome://tracing
//	profiler_out_{N}.txt                       the operator table
//
// The package never writes other .json or .gz files there: analysers take every such file for a trace.
package profiler
