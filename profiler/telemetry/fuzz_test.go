package telemetry_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/omni-run/omni/profiler/telemetry"
)

// FuzzRead reads any bytes as what GPUs did: nothing may panic, every fault names the file, and reading ends.
func FuzzRead(f *testing.F) {
	const devices = `{"telemetry":1,"devices":[{"index":0,"name":"first","uuid":"a"},{"index":1}]}` + "\n"
	f.Add([]byte(devices + `{"ns":5,"device":0,"power_watts":250.5,"busy_percent":90,"throttle":["power cap"]}` + "\n" + `{"ns":6,"device":1}` + "\n"))
	f.Add([]byte(devices + `{"ns":5,"device":7,"power_watts":1e400}`))
	f.Add([]byte(devices + `{"ns":5,"busy_percent":-1}`))
	f.Add([]byte(devices + `{"ns":`))
	f.Add([]byte(devices))
	f.Add([]byte(`{"telemetry":2}`))
	f.Add([]byte("\x00"))
	f.Fuzz(func(t *testing.T, text []byte) {
		path := filepath.Join(t.TempDir(), "gpu.jsonl")
		require.NoError(t, os.WriteFile(path, text, 0o600))
		samples := 0
		_, err := telemetry.Read(path, func(telemetry.Sample) error { samples++; return nil })
		if err != nil {
			require.ErrorContains(t, err, path)
		}
		require.LessOrEqual(t, samples, len(text))
	})
}
