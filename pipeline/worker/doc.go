// Package worker is the child's side of a pipeline: the loop that runs one stage.
//
// [Run] is called on the goroutine that owns the torch thread and makes every call of the [Backend] there: it opens the
// engine, then admits, feeds, steps and releases sequences, and starts recordings, all between two steps. One other
// goroutine receives. It answers pings and profile status by itself, so that a worker inside a long step is known to be
// alive, ends recordings in the middle of steps if their recorder can (profiler.Recorder.Cut), and lays everything else into
// an inbox that the loop empties before each step; so a cancel takes effect after the step that is running.
//
// Which sequences a step advances is the scheduler's decision: every sequence that is ready to go on, up to the largest
// batch, those that have waited longest first, and beside them as many new prompts as fit into a budget of tokens, at
// least one. So a stream of new prompts cannot stop the running sequences, nor they the new prompts.
//
// What a step gives is sent before the next begins. A sequence may have as many outputs under way as its window says; a
// consumer that is slow stops that sequence and no other. An error of a sequence ends that sequence alone. The loop ends
// after a drain, when the connection ends, or when the engine reports that its device is lost.
package worker
