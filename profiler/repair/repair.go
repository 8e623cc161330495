// Package repair completes traces whose writer was killed.
//
// A recorder writes a trace under a name that ends in .tmp and renames it when it is complete. What a killed one leaves is
// a beginning: the header and events up to somewhere in the middle of one. All whole events are kept. The recorder "stream"
// brings what it has to disk every second, "kineto" nothing but the header before it is stopped.
package repair

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/omni-run/omni/profiler/trace"
)

// Suffix is that of unfinished files.
const Suffix = ".tmp"

// Quiet is how long a file must not have been written to: a recorder that lives would lose it.
const Quiet = 10 * time.Second

// ErrBusy says that a file may still be written to.
var ErrBusy = errors.New("it was written to a moment ago; is its recorder still running?")

// Result says what could be kept.
type Result struct {
	Path   string `json:"path"`   // of the trace
	Events int64  `json:"events"` // without names of tracks
	// Complete says that nothing was missing but the name.
	Complete bool `json:"complete"`
}

// Trace makes a trace of an unfinished one and removes that. quiet is usually [Quiet].
func Trace(ctx context.Context, unfinished string, quiet time.Duration) (*Result, error) {
	result, err := repair(ctx, unfinished, quiet)
	if err != nil {
		return nil, fmt.Errorf("repair %s: %w", unfinished, err)
	}
	return result, nil
}

func repair(ctx context.Context, unfinished string, quiet time.Duration) (*Result, error) {
	path, ok := strings.CutSuffix(unfinished, Suffix)
	if !ok {
		return nil, fmt.Errorf("an unfinished trace has the suffix %s", Suffix)
	}
	info, err := os.Stat(unfinished)
	if err != nil {
		return nil, err
	}
	if time.Since(info.ModTime()) < quiet {
		return nil, ErrBusy
	}
	if _, err := os.Stat(path); err == nil {
		return nil, fmt.Errorf("%s is there already", path)
	}
	in, err := trace.Open(unfinished)
	if err != nil {
		return nil, err
	}
	defer func() { _ = in.Close() }() // it was only read
	if err := in.Start(); err != nil {
		return nil, err
	}
	out, err := trace.CreateAs(path, path+".repair")
	if err != nil {
		return nil, err
	}
	defer out.Discard()
	result := &Result{Path: path}
	if err := rescue(ctx, in, out, result); err != nil {
		return nil, err
	}
	if err := out.Commit(); err != nil {
		return nil, err
	}
	return result, os.Remove(unfinished)
}

// rescue copies what there is.
func rescue(ctx context.Context, in *trace.Reader, out *trace.Writer, result *Result) error {
	before := maps.Clone(in.Header())
	if err := members(out, before); err != nil {
		return err
	}
	var e trace.Event
	whole := int64(0) // events, names of tracks among them
	for {
		if whole%4096 == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		err := in.Next(&e)
		if errors.Is(err, io.EOF) {
			result.Complete = true
			break
		}
		if errors.Is(err, io.ErrUnexpectedEOF) {
			break
		}
		if err != nil {
			return err
		}
		whole++
		if e.Phase != trace.Metadata {
			result.Events++
		}
		if err := out.Write(&e); err != nil {
			return err
		}
	}
	if whole == 0 {
		return errors.New("there is no whole event in it")
	}
	after := maps.Clone(in.Header())
	for name := range before {
		delete(after, name)
	}
	after["omniRepaired"] = jsontext.Value(fmt.Sprintf(`{"events": %d, "complete": %t}`, result.Events, result.Complete))
	return members(out, after)
}

// members writes members in the order of their names. The last, traceName, is the writer's.
func members(out *trace.Writer, header trace.Header) error {
	for _, name := range slices.Sorted(maps.Keys(header)) {
		if name == "traceName" {
			continue
		}
		if err := out.Member(name, header[name]); err != nil {
			return err
		}
	}
	return nil
}
