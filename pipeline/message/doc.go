// Package message defines what a pipeline and its workers say to each other.
//
// A worker process runs one stage. The first message on a connection is the worker's [Hello]; the parent answers with
// [Open], the worker reports [Progress] while it loads and then says [Ready] or [Fault]. From then on the parent sends
// sequences ([Admit]), their further input ([Feed]), [Cancel] and [Credit]; the worker sends one [Output] for every step
// that concerns a sequence. Pings, profile requests and [Drain] travel beside them at any time, and [Bye] is the last word
// of a worker that was asked to stop.
//
// A message is a JSON header plus raw bytes: [Encode] gives both, [Decode] takes both. The header is
//
//	{"type":"feed","tensors":[{"name":"reply_rows","dtype":"bfloat16","shape":[1,64]}],"payload":{"sequence":7}}
//
// and the bytes are those of the tensors, one after the other, dense and row-major. Decoding is strict: an unknown type or
// field, a missing number, a tensor whose bytes do not fit its shape are errors that say what was expected. Messages know
// nothing of sockets (package transport), processes (package pipeline) or engines (package worker).
package message
