// Package pipeline runs a model as a graph of stages, each in a worker process of its own.
//
// [Open] resolves a checkpoint, starts one worker per stage, all at once, and returns when they are ready. A request
// ([Omni.Generate], [Omni.Stream]) is rendered and tokenised here, becomes a sequence in every stage that it needs, and
// what a stage gives is handed to the next as soon as it exists, through this process: exactly the tokens and tensors
// that the family's edges name. Many requests run at once; each stage batches what it has.
//
// # Flow control
//
// A sequence may have 64 outputs under way that nobody has taken. A caller of Stream that reads slowly stops its own
// request's stages and no other request. Up to Config.MaxConcurrency requests are in the stages; the others wait in order.
//
// # Failure
//
// An error concerns the smallest thing possible. A fault of one sequence ends its request with a [*StageError]. When a
// worker dies, all requests that were in it are told at once, with the cause and the worker's last words; those of which
// nothing had been shown to the caller are run once more when the worker is back, so Generate fails only if that fails
// too. A dead worker is started again after a pause that doubles from death to death. Omni.Stages says what is ready.
//
// # Processes
//
// A worker is killed by the kernel when this process dies and ends by itself when its connection does. [Omni.Close]
// cancels what runs, asks each worker to stop, insists with SIGTERM and SIGKILL, and returns when all are gone.
//
// # Limits
//
// One process and one device per stage, on this host. A request is text; results are text and speech.
package pipeline
