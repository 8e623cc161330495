// Package analysis computes what people want to know from the traces and the ledger of a profile session: what each stage
// did with its time, which operators took it, what requests waited for, and what differs between two sessions.
//
// [ReadWorker] reads one trace, an event at a time, into a [Worker]: a call tree, in which calls of one name at one place
// are one node, and per operator the time in every step. Its size depends on how many different operators and how many
// steps there are, not on how often operators ran.
package analysis
