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
