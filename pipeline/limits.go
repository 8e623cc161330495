package pipeline

import (
	"cmp"
	"time"
)

// Limits are the times after which the pipeline stops waiting for a worker. Zero fields have the defaults of
// [DefaultLimits].
type Limits struct {
	// Hello is for a started process to say who it is.
	Hello time.Duration
	// Load is for a worker that loads to report the next part.
	Load time.Duration
	// Ping is the pause between two questions whether a worker is alive, Pong the time that it has to answer.
	Ping, Pong time.Duration
	// Step is the longest that one step of an engine may take.
	Step time.Duration
	// Drain, Terminate and Kill are for the three ways to stop a worker, one after the other: asked by message, by
	// SIGTERM, by SIGKILL.
	Drain, Terminate, Kill time.Duration
	// ProfileDrain replaces Drain while a profile session is active, whose files are still to be written.
	ProfileDrain time.Duration
	// Dump is for a worker to set the contents of its flight recorder aside because of a slow request.
	Dump time.Duration
	// DumpPause is the least time between two dumps of the flight recorders that slow requests cause; it is never less
	// than the time that the recorders hold.
	DumpPause time.Duration
	// Backoff is the pause before a dead worker is started again; it doubles from death to death up to BackoffMax. A
	// worker that was ready for BackoffReset starts anew with the first pause.
	Backoff, BackoffMax, BackoffReset time.Duration
}

// DefaultLimits returns the limits that suit real models.
func DefaultLimits() Limits {
	return Limits{
		Hello: 30 * time.Second, Load: 10 * time.Minute,
		Ping: 5 * time.Second, Pong: 30 * time.Second, Step: 30 * time.Minute,
		Drain: 10 * time.Second, Terminate: 3 * time.Second, Kill: 5 * time.Second, ProfileDrain: 2 * time.Minute,
		Dump: 30 * time.Second, DumpPause: time.Minute,
		Backoff: 200 * time.Millisecond, BackoffMax: 30 * time.Second, BackoffReset: time.Minute,
	}
}

// filled returns l with the defaults in place of zeros.
func (l Limits) filled() Limits {
	d := DefaultLimits()
	return Limits{
		Hello: cmp.Or(l.Hello, d.Hello), Load: cmp.Or(l.Load, d.Load),
		Ping: cmp.Or(l.Ping, d.Ping), Pong: cmp.Or(l.Pong, d.Pong), Step: cmp.Or(l.Step, d.Step),
		Drain: cmp.Or(l.Drain, d.Drain), Terminate: cmp.Or(l.Terminate, d.Terminate), Kill: cmp.Or(l.Kill, d.Kill),
		ProfileDrain: cmp.Or(l.ProfileDrain, d.ProfileDrain), Dump: cmp.Or(l.Dump, d.Dump), DumpPause: cmp.Or(l.DumpPause, d.DumpPause),
		Backoff: cmp.Or(l.Backoff, d.Backoff), BackoffMax: cmp.Or(l.BackoffMax, d.BackoffMax),
		BackoffReset: cmp.Or(l.BackoffReset, d.BackoffReset),
	}
}
