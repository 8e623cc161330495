package transport

import (
	"context"
	"errors"

	"github.com/omni-run/omni/pipeline/message"
)

// Sentinels of a connection's end.
var (
	// ErrClosed is returned when this side has closed the connection.
	ErrClosed = errors.New("the connection is closed")
	// ErrBroken is in the chain of what Send and Flush return when the other side has gone.
	ErrBroken = errors.New("the connection is broken")
	// ErrCut is in the chain of what Recv returns when the other side has gone in the middle of a message.
	ErrCut = errors.New("the connection ended inside a frame")
)

// Conn is a two-way stream of messages between one pipeline and one worker.
//
// Data messages (message.IsControl says which they are not) arrive in the order in which Send was called. A control
// message may overtake data that was sent before it; control messages keep their order among themselves.
type Conn interface {
	// Send queues a message. It waits while the queue is full, until ctx ends or the connection does, and may be
	// called by any number of goroutines. The tensors of m must not be changed afterwards.
	Send(ctx context.Context, m message.Message) error
	// Recv returns the next message, whose tensors belong to the caller. One goroutine may call it. It returns io.EOF
	// when the other side has closed between two messages, an error with ErrCut inside of one, ErrClosed after Close.
	Recv() (message.Message, error)
	// Flush waits until everything that was sent before has been handed to the system.
	Flush(ctx context.Context) error
	// Close ends the connection at once; what is queued is lost. It may be called more than once.
	Close() error
}
