package api

import (
	"errors"
	"fmt"
	"time"
)

// Limits bound what one client can ask for. Make them with [DefaultLimits].
type Limits struct {
	// BodyBytes is the size of a request's body.
	BodyBytes int64
	// PromptBytes is the size of all text in a request.
	PromptBytes int
	// MaxTokens is the most that a request may ask for with max_tokens.
	MaxTokens int
	// AudioSeconds ends a request's speech.
	AudioSeconds float64
	// ProfileSeconds is the longest that one GET /profile records.
	ProfileSeconds float64
	// Running is how many requests the engine works on at once; it is used to say whether a request waits.
	Running int
	// Waiting is how many requests may wait beside those that run. One more is refused.
	Waiting int
	// Request is the longest that a generation may take, with its wait.
	Request time.Duration
	// Body is how long a client may take to send a request.
	Body time.Duration
	// Write is how long a client may take to accept a piece of an answer.
	Write time.Duration
	// Idle is how long a connection without requests is kept.
	Idle time.Duration
	// Drain is how long the requests that run may take to end once the server is told to.
	Drain time.Duration
}

// DefaultLimits returns limits that suit one machine.
func DefaultLimits() Limits {
	return Limits{
		BodyBytes: 4 << 20, PromptBytes: 256 << 10, MaxTokens: 1 << 16, AudioSeconds: 300, ProfileSeconds: 3600, Running: 16, Waiting: 64,
		Request: 10 * time.Minute, Body: 30 * time.Second, Write: 30 * time.Second, Idle: 2 * time.Minute, Drain: time.Minute,
	}
}

// Validate reports all faults, joined.
func (l Limits) Validate() error {
	var faults []error
	for _, limit := range []struct {
		name string
		ok   bool
		got  any
	}{
		{"body bytes", l.BodyBytes > 0, l.BodyBytes},
		{"prompt bytes", l.PromptBytes > 0, l.PromptBytes},
		{"max tokens", l.MaxTokens > 0, l.MaxTokens},
		{"audio seconds", l.AudioSeconds > 0, l.AudioSeconds},
		{"profile seconds", l.ProfileSeconds > 0, l.ProfileSeconds},
		{"running requests", l.Running > 0, l.Running},
		{"request time", l.Request > 0, l.Request},
		{"body time", l.Body > 0, l.Body},
		{"write time", l.Write > 0, l.Write},
		{"idle time", l.Idle > 0, l.Idle},
		{"drain time", l.Drain > 0, l.Drain},
	} {
		if !limit.ok {
			faults = append(faults, fmt.Errorf("limit of %s is %v, want more than 0", limit.name, limit.got))
		}
	}
	if l.Waiting < 0 {
		faults = append(faults, fmt.Errorf("limit of waiting requests is %d, want 0 or more", l.Waiting))
	}
	return errors.Join(faults...)
}
