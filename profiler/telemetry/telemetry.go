// Package telemetry holds what GPUs did during a profile session: power, clocks, use, memory, temperature, and why they
// ran slower than they could.
//
// A [Source] knows how to ask the GPUs; package gpu has the one that asks NVIDIA's driver. [Record] asks it again and again
// while a session lasts and writes a line of JSON per answer, after a line about the GPUs, into the session's folder. A [Ring]
// asks all the time and keeps the last seconds, for flight recorders. The package itself calls no C, so that whatever reads
// profiles can use it.
package telemetry

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Version is that of the file's form.
const Version = 1

// Period is how often GPUs are asked. They renew most of their answers ten times a second at most.
const Period = 100 * time.Millisecond

// Device is one GPU.
type Device struct {
	Index int    `json:"index"`
	Name  string `json:"name"`
	UUID  string `json:"uuid"`
}

// Sample is what one GPU did at a moment. A nil field is one that it does not report.
type Sample struct {
	NS     int64 `json:"ns"` // Unix time
	Device int   `json:"device"`
	// BusyPercent is the share of time in which a kernel ran, MemoryBusyPercent that in which memory was read or written,
	// both over the GPU's own last period.
	BusyPercent       *uint32  `json:"busy_pct,omitempty"`
	MemoryBusyPercent *uint32  `json:"memory_busy_pct,omitempty"`
	MemoryUsedBytes   *uint64  `json:"memory_used_bytes,omitempty"`
	PowerWatts        *float64 `json:"power_w,omitempty"`
	SMClockMHz        *uint32  `json:"sm_clock_mhz,omitempty"`
	MemoryClockMHz    *uint32  `json:"memory_clock_mhz,omitempty"`
	TemperatureC      *uint32  `json:"temperature_c,omitempty"`
	// Throttle says what keeps the clocks down, empty if nothing does.
	Throttle []string `json:"throttle,omitempty"`
}

// Source opens a way to ask GPUs.
type Source interface {
	// Open returns a Probe, or nil if there are no GPUs, which is no error.
	Open() (Probe, error)
}

// Probe asks GPUs. It is used by one goroutine at a time.
type Probe interface {
	Devices() []Device
	// Sample returns what all GPUs do now; their NS is set by the caller.
	Sample() ([]Sample, error)
	Close() error
}

// header is the first line of a file.
type header struct {
	Version int      `json:"telemetry"`
	Devices []Device `json:"devices"`
}

// watch asks GPUs in a goroutine of its own until Stop is called.
type watch struct {
	probe Probe
	stop  chan struct{}
	done  chan struct{}
	once  sync.Once
	err   error // read after done
}

func newWatch(probe Probe) watch {
	return watch{probe: probe, stop: make(chan struct{}), done: make(chan struct{})}
}

// open returns a source's probe, nil without GPUs.
func open(source Source) (Probe, error) {
	probe, err := source.Open()
	if err != nil {
		return nil, fmt.Errorf("telemetry: %w", err)
	}
	return probe, nil
}

// end waits for the goroutine and returns the first error. Calls after the first do nothing more.
func (w *watch) end() error {
	w.once.Do(func() { close(w.stop) })
	<-w.done
	return w.err
}

// run hands on what the GPUs say once a period, and once more after the end, so that a short session has two samples.
func (w *watch) run(period time.Duration, take func([]Sample) error) error {
	ticker := time.NewTicker(period)
	defer ticker.Stop()
	for stopped := false; ; {
		samples, err := w.probe.Sample()
		if err != nil {
			return err
		}
		now := time.Now().UnixNano()
		for i := range samples {
			samples[i].NS = now
		}
		if err := take(samples); err != nil || stopped {
			return err
		}
		select {
		case <-w.stop:
			stopped = true
		case <-ticker.C:
		}
	}
}

// file is a file that becomes visible when it is complete.
type file struct {
	*os.File
	path     string
	buffered *bufio.Writer
	lines    *json.Encoder
}

func create(path string) (*file, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("telemetry: %w", err)
	}
	f, err := os.Create(path + ".tmp")
	if err != nil {
		return nil, fmt.Errorf("telemetry: %w", err)
	}
	buffered := bufio.NewWriter(f)
	return &file{File: f, path: path, buffered: buffered, lines: json.NewEncoder(buffered)}, nil
}

func (f *file) header(devices []Device) error {
	return f.lines.Encode(header{Version: Version, Devices: devices})
}

func (f *file) write(samples []Sample) error {
	for i := range samples {
		if err := f.lines.Encode(&samples[i]); err != nil {
			return err
		}
	}
	return nil
}

// complete closes the file and gives it its name, also after an error: what there is can be read.
func (f *file) complete(err error) error {
	if flushErr := f.buffered.Flush(); err == nil {
		err = flushErr
	}
	return errors.Join(err, f.Close(), os.Rename(f.path+".tmp", f.path))
}

// Recording is a file that is being written.
type Recording struct{ watch }

// Record begins to ask the source's GPUs once a period and to write what they say to path. Without GPUs it returns nil,
// which can be stopped like any other, and leaves no file.
func Record(source Source, path string, period time.Duration) (*Recording, error) {
	probe, err := open(source)
	if probe == nil {
		return nil, err
	}
	f, err := create(path)
	if err != nil {
		return nil, errors.Join(err, probe.Close())
	}
	r := &Recording{watch: newWatch(probe)}
	go func() {
		defer close(r.done)
		err := f.header(probe.Devices())
		if err == nil {
			err = r.run(period, f.write)
		}
		if err := errors.Join(f.complete(err), probe.Close()); err != nil {
			r.err = fmt.Errorf("telemetry: %w", err)
		}
	}()
	return r, nil
}

// Stop ends the recording, completes the file and returns the first error. Calls after the first do nothing more.
func (r *Recording) Stop() error {
	if r == nil {
		return nil
	}
	return r.end()
}

// Read reads a file and calls visit with every sample, in the order of time. A file that does not exist has no devices.
func Read(path string, visit func(Sample) error) ([]Device, error) {
	file, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read telemetry: %w", err)
	}
	defer func() { _ = file.Close() }() // it was only read
	lines := json.NewDecoder(bufio.NewReader(file))
	var h header
	if err := lines.Decode(&h); err != nil {
		return nil, fmt.Errorf("telemetry %s: first line: %w", path, err)
	}
	if h.Version != Version {
		return nil, fmt.Errorf("telemetry %s: version %d, expected %d", path, h.Version, Version)
	}
	for n := 1; ; n++ {
		var s Sample
		err := lines.Decode(&s)
		if errors.Is(err, io.EOF) {
			return h.Devices, nil
		}
		if err == nil {
			err = visit(s)
		}
		if err != nil {
			return nil, fmt.Errorf("telemetry %s: sample %d: %w", path, n, err)
		}
	}
}
