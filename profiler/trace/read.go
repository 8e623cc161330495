package trace

import (
	"context"
	"errors"
	"io"
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

// Read gives the events of a trace file to visit, one after the other, and returns its header. It ends with the first error
// of visit, and with ctx.
func Read(ctx context.Context, path string, visit func(*Event) error) (Header, error) {
	r, err := Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }() // it was only read
	var e Event
	for n := 0; ; n++ {
		if n%4096 == 0 && ctx.Err() != nil {
			return nil, context.Cause(ctx)
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
