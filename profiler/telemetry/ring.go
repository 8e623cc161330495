package telemetry

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Ring keeps what GPUs did in the last seconds. Its memory is that of so many samples.
type Ring struct {
	watch
	span time.Duration

	mu      sync.Mutex // guards samples
	samples []Sample
}

// Keep begins to ask the source's GPUs once a period and to keep what they say for a time. Without GPUs it returns nil, which
// can be written and stopped like any other, and writes nothing.
func Keep(source Source, span, period time.Duration) (*Ring, error) {
	probe, err := open(source)
	if probe == nil {
		return nil, err
	}
	r := &Ring{watch: newWatch(probe), span: span}
	go func() {
		defer close(r.done)
		err := r.run(period, r.take)
		if err := errors.Join(err, probe.Close()); err != nil {
			r.err = fmt.Errorf("telemetry: %w", err)
		}
	}()
	return r, nil
}

func (r *Ring) take(samples []Sample) error {
	if len(samples) == 0 {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	from := samples[0].NS - r.span.Nanoseconds()
	r.samples = append(slices.DeleteFunc(r.samples, func(s Sample) bool { return s.NS < from }), samples...)
	return nil
}

// Write writes what is kept to path. The error may be that of asking, which has ended then: what came before is written.
func (r *Ring) Write(path string) error {
	if r == nil {
		return nil
	}
	f, err := create(path)
	if err != nil {
		return err
	}
	r.mu.Lock()
	kept := slices.Clone(r.samples)
	r.mu.Unlock()
	err = f.header(r.probe.Devices())
	if err == nil {
		err = f.write(kept)
	}
	if err := f.complete(err); err != nil {
		return fmt.Errorf("telemetry: %w", err)
	}
	select {
	case <-r.done:
		return r.err
	default:
		return nil
	}
}

// Stop ends asking and returns the first error. Calls after the first do nothing more.
func (r *Ring) Stop() error {
	if r == nil {
		return nil
	}
	return r.end()
}
