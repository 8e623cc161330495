package trace

import (
	"context"
	"errors"
	"io"

	"github.com/omni-run/omni/profiler/background"
)

// ReadHeader returns what stands in a trace file before its events.
func ReadHeader(path string) (Header, error) {
	r, err := Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }() // it was only read
	if err := r.Start(); err != nil {
		return nil, err
	}
	return r.Header(), nil
}

// restAfter events take a millisecond or two.
const restAfter = 256

// Read gives the events of a trace file to visit, one after the other, and returns its header. It ends with the first error
// of visit, and with ctx, which may be [background.Paced].
func Read(ctx context.Context, path string, visit func(*Event) error) (Header, error) {
	r, err := Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }() // it was only read
	var e Event
	for n := 0; ; n++ {
		if n%restAfter == 0 {
			if background.Rest(ctx); ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
		}
		err := r.Next(&e)
		if errors.Is(err, io.EOF) {
			return r.Header(), nil
		}
		if err == nil {
			err = visit(&e)
		}
		if err != nil {
			return nil, err
		}
	}
}
