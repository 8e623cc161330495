package telemetry_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/omni-run/omni/profiler/telemetry"
)

// probe is two GPUs of which the second reports little; it says when it is asked.
type probe struct {
	asked  chan struct{}
	err    error
	closed int
}

func (p *probe) Devices() []telemetry.Device {
	return []telemetry.Device{{Index: 0, Name: "first", UUID: "a"}, {Index: 1, Name: "second", UUID: "b"}}
}

func (p *probe) Sample() ([]telemetry.Sample, error) {
	select {
	case p.asked <- struct{}{}:
	default:
	}
	watts, busy := 250.5, uint32(90)
	return []telemetry.Sample{{Device: 0, PowerWatts: &watts, BusyPercent: &busy, Throttle: []string{"power cap"}}, {Device: 1}}, p.err
}

func (p *probe) Close() error {
	p.closed++
	return nil
}

type source struct {
	probe telemetry.Probe
	err   error
}

func (s source) Open() (telemetry.Probe, error) { return s.probe, s.err }

func TestRecord(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s1.5", "gpu.jsonl")
	p := &probe{asked: make(chan struct{}, 1)}
	before := time.Now().UnixNano()
	recording, err := telemetry.Record(source{probe: p}, path, time.Millisecond)
	require.NoError(t, err)
	for range 3 {
		<-p.asked
	}
	require.NoError(t, recording.Stop())
	require.NoError(t, recording.Stop(), "stopping twice is harmless")
	require.Equal(t, 1, p.closed)
	require.NoFileExists(t, path+".tmp")
	var samples []telemetry.Sample
	devices, err := telemetry.Read(path, func(s telemetry.Sample) error {
		samples = append(samples, s)
		return nil
	})
	require.NoError(t, err)
	require.Equal(t, p.Devices(), devices)
	require.GreaterOrEqual(t, len(samples), 8, "four times two: the last is taken at the end")
	require.InDelta(t, 250.5, *samples[0].PowerWatts, 0)
	require.Equal(t, []string{"power cap"}, samples[0].Throttle)
	require.Nil(t, samples[1].PowerWatts, "what a GPU does not report is not 0")
	last := before
	for _, s := range samples {
		require.GreaterOrEqual(t, s.NS, last)
		last = s.NS
	}
}

// once is a probe of one GPU that is asked when the test lets it.
type once struct {
	probe
	let chan struct{}
}

func (p *once) Sample() ([]telemetry.Sample, error) {
	<-p.let
	if p.err != nil {
		return nil, p.err
	}
	return []telemetry.Sample{{Device: 0}}, nil
}

func TestRingKeepsTheLastSeconds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s1.5", "gpu.jsonl")
	kept := func(ring *telemetry.Ring) int {
		require.NoError(t, ring.Write(path))
		n := 0
		devices, err := telemetry.Read(path, func(telemetry.Sample) error { n++; return nil })
		require.NoError(t, err)
		require.Len(t, devices, 2)
		return n
	}
	p := &once{let: make(chan struct{})}
	long, err := telemetry.Keep(source{probe: p}, time.Hour, time.Nanosecond)
	require.NoError(t, err)
	for range 4 {
		p.let <- struct{}{}
	}
	require.GreaterOrEqual(t, kept(long), 3, "the fourth may be under way")
	close(p.let)
	require.NoError(t, long.Stop())
	require.NoError(t, long.Stop(), "stopping twice is harmless")
	require.Equal(t, 1, p.closed)

	p = &once{let: make(chan struct{})}
	short, err := telemetry.Keep(source{probe: p}, 0, time.Nanosecond)
	require.NoError(t, err)
	for range 100 {
		p.let <- struct{}{}
	}
	require.LessOrEqual(t, kept(short), 1)
	close(p.let)
	require.NoError(t, short.Stop())
}

func TestRingFaults(t *testing.T) {
	var none *telemetry.Ring
	none, err := telemetry.Keep(source{}, time.Hour, time.Hour)
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "gpu.jsonl")
	require.NoError(t, none.Write(path))
	require.NoFileExists(t, path)
	require.NoError(t, none.Stop())
	broken := errors.New("the driver hangs")
	_, err = telemetry.Keep(source{err: broken}, time.Hour, time.Hour)
	require.ErrorIs(t, err, broken)
	ring, err := telemetry.Keep(source{probe: &probe{err: broken}}, time.Hour, time.Hour)
	require.NoError(t, err)
	require.ErrorIs(t, ring.Stop(), broken)
	require.ErrorIs(t, ring.Write(path), broken, "a dump says that its telemetry ended")
	require.FileExists(t, path)
	require.Error(t, ring.Write("/proc/no/gpu.jsonl"))
}

func TestRecordWithoutGPUs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s1.5", "gpu.jsonl")
	recording, err := telemetry.Record(source{}, path, time.Hour)
	require.NoError(t, err)
	require.NoError(t, recording.Stop())
	require.NoDirExists(t, filepath.Dir(path))
	devices, err := telemetry.Read(path, nil)
	require.NoError(t, err)
	require.Empty(t, devices)
}

func TestFaults(t *testing.T) {
	broken := errors.New("the driver hangs")
	_, err := telemetry.Record(source{err: broken}, "x", time.Hour)
	require.ErrorIs(t, err, broken)
	p := &probe{}
	_, err = telemetry.Record(source{probe: p}, "/proc/no/gpu.jsonl", time.Hour)
	require.Error(t, err)
	require.Equal(t, 1, p.closed)
	path := filepath.Join(t.TempDir(), "gpu.jsonl")
	recording, err := telemetry.Record(source{probe: &probe{err: broken}}, path, time.Hour)
	require.NoError(t, err)
	require.ErrorIs(t, recording.Stop(), broken)
	require.FileExists(t, path, "what there is can be read")
	for text, want := range map[string]string{
		"": "first line", `{"telemetry": 9}`: "version 9, expected 1", `{"telemetry": 1}` + "\n{": "sample 1",
	} {
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		_, err = telemetry.Read(path, func(telemetry.Sample) error { return nil })
		require.ErrorContains(t, err, want)
	}
}
