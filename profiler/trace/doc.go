// Package trace reads and writes traces in the form of torch.profiler's, one event at a time.
//
// Such a trace is a JSON object whose member traceEvents is a long list; the other members describe the recording. A
// [Reader] yields the events in their order and keeps the other members; a [Writer] is the reverse. Neither holds more
// than one event, so a trace of any length takes the same memory.
//
// Times in the file are microseconds with decimals, counted from the file's baseTimeNanoseconds. In this package they are
// integer nanoseconds from that base: as floating-point numbers they would lose the last digits, and slices that touch
// would overlap.
package trace
