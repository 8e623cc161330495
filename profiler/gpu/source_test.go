package gpu

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/dgxa100"
	"github.com/stretchr/testify/require"

	"github.com/omni-run/omni/profiler/telemetry"
)

// busyMachine is go-nvml's machine of eight A100; the first reports everything, the others only their memory.
func busyMachine() *dgxa100.Server {
	server := mockMachine()
	for i := range server.Devices {
		device, code := server.Devices[i].(*dgxa100.Device), nvml.SUCCESS
		if i > 0 {
			code = nvml.ERROR_NOT_SUPPORTED
		}
		device.GetPowerUsageFunc = func() (uint32, nvml.Return) { return 301_500, code }
		device.GetClockInfoFunc = func(kind nvml.ClockType) (uint32, nvml.Return) {
			return map[nvml.ClockType]uint32{nvml.CLOCK_SM: 1410, nvml.CLOCK_MEM: 1215}[kind], code
		}
		device.GetCurrentClocksEventReasonsFunc = func() (uint64, nvml.Return) {
			return nvml.ClocksEventReasonSwPowerCap | nvml.ClocksThrottleReasonHwSlowdown | nvml.ClocksEventReasonGpuIdle, code
		}
	}
	return server
}

// A session's telemetry on a machine with GPUs.
func TestSourceOfAMachineWithGPUs(t *testing.T) {
	server := busyMachine()
	path := filepath.Join(t.TempDir(), "gpu.jsonl")
	recording, err := telemetry.Record(Source{library: func() Library { return server }}, path, time.Hour)
	require.NoError(t, err)
	require.NoError(t, recording.Stop())
	var samples []telemetry.Sample
	devices, err := telemetry.Read(path, func(s telemetry.Sample) error {
		samples = append(samples, s)
		return nil
	})
	require.NoError(t, err)
	require.Len(t, devices, 8)
	require.Equal(t, "Mock NVIDIA A100-SXM4-40GB", devices[7].Name)
	require.Len(t, samples, 16, "one at the beginning and one at the end of each")
	first, second := samples[0], samples[1]
	require.InDelta(t, 301.5, *first.PowerWatts, 1e-9)
	require.EqualValues(t, 1410, *first.SMClockMHz)
	require.EqualValues(t, 1215, *first.MemoryClockMHz)
	require.EqualValues(t, 37, *first.BusyPercent)
	require.EqualValues(t, 0, *first.MemoryBusyPercent)
	require.EqualValues(t, 41, *first.TemperatureC)
	require.Equal(t, []string{"power cap", "hardware slowdown"}, first.Throttle)
	require.Equal(t, 1, second.Device)
	require.EqualValues(t, 1<<30, *second.MemoryUsedBytes)
	require.Nil(t, second.PowerWatts, "what a GPU does not report is not 0")
	require.Empty(t, second.Throttle)
	require.Len(t, server.ShutdownCalls(), 1)
}

func TestSourceWithoutGPUs(t *testing.T) {
	for code := range noGPU {
		server := busyMachine()
		server.InitFunc = func() nvml.Return { return code }
		probe, err := Source{library: func() Library { return server }}.Open()
		require.NoError(t, err)
		require.Nil(t, probe)
	}
	server := busyMachine()
	server.DeviceGetCountFunc = func() (int, nvml.Return) { return 0, nvml.SUCCESS }
	probe, err := Source{library: func() Library { return server }}.Open()
	require.NoError(t, err)
	require.Nil(t, probe)
	require.Len(t, server.ShutdownCalls(), 1)
}

func TestSourceFaults(t *testing.T) {
	server := busyMachine()
	server.InitFunc = func() nvml.Return { return nvml.ERROR_UNKNOWN }
	_, err := Source{library: func() Library { return server }}.Open()
	require.ErrorIs(t, err, nvml.ERROR_UNKNOWN)
	server = busyMachine()
	server.DeviceGetHandleByIndexFunc = func(int) (nvml.Device, nvml.Return) { return nil, nvml.ERROR_GPU_IS_LOST }
	_, err = Source{library: func() Library { return server }}.Open()
	require.ErrorContains(t, err, "open GPU 0")
	require.Len(t, server.ShutdownCalls(), 1)
	server = busyMachine()
	server.Devices[3].(*dgxa100.Device).GetUtilizationRatesFunc = func() (nvml.Utilization, nvml.Return) {
		return nvml.Utilization{}, nvml.ERROR_GPU_IS_LOST
	}
	probe, err := Source{library: func() Library { return server }}.Open()
	require.NoError(t, err)
	_, err = probe.Sample()
	require.ErrorContains(t, err, "GPU 3")
}
