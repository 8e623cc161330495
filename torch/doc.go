// Package torch runs networks on libtorch through the C functions of csrc/omni.h.
//
// An [Engine] is one network with its weights. It holds many sequences and advances a chosen batch of them by one step
// per call, so that the caller decides between any two steps what runs next. A [Recorder] profiles what the engines of
// this process do. Weights, caches and intermediate tensors stay in C++; what crosses is tokens, host tensors as bytes,
// and JSON.
//
// # The torch thread
//
// Profiling sees only the operations of the thread that started it, and libtorch keeps state per thread. So one OS
// thread of the process is the torch thread: the one that calls [Init]. Everything documented with "torch thread" must
// run there and fails with [WrongThread] elsewhere. A worker uses its main thread, which libtorch's profiler wants too:
// it calls runtime.LockOSThread in an init function of package main, and either makes all calls from main itself or
// lets main serve a [Thread], an executor to which other goroutines hand their calls.
//
// Two threads at a time never share an engine or a recorder; the only exceptions are [Recorder.Finish], which may run
// beside the engines, and [Recorder.Status], which may be asked beside everything but [Recorder.Close].
//
// # Memory
//
// A handle belongs to whoever opened it and is given back with Close, which may be called again. A handle that is
// forgotten is freed some time after the last use of it; [Live] counts what is there, for tests that look for leaks.
// Tensors and JSON that come out are copies in Go's memory. What goes in is copied before the call returns.
//
// # Errors
//
// Every error of a C call is an [*Error], whose [Code] is the same in C++, here, in messages and in HTTP replies.
// Nothing panics because of what a caller passes.
//
// # Building and testing
//
// The package links libomni.so and libcgotorch.so, which make build puts into build/lib. The linker is told where they
// and libtorch are by one line in the shell:
//
//	eval "$(make env)"
//
// Tests run with a library of the same functions over engines without weights, build/fake/libomni.so, which they find
// beside the one that is linked; make build-tests makes both. make sanitize runs the tests over libraries that are compiled
// with the address and undefined-behaviour sanitizers.
//
// Leaks are found by counting handles, see [Live]: libtorch keeps memory for the life of the process, which the leak
// detector would report.
package torch
