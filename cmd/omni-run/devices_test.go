package main

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/omni-run/omni/profiler/gpu"
)

func TestDevicesTable(t *testing.T) {
	machine := gpu.Machine{Driver: "580.1", CUDA: "13.0", Devices: []gpu.Device{
		{
			Index: 0, Name: "NVIDIA A100", ComputeCapability: "8.0", MemoryTotalBytes: ptr(uint64(40 << 30)), MemoryUsedBytes: ptr(uint64(3 << 29)),
			UtilizationPercent: ptr(uint32(37)), TemperatureCelsius: ptr(uint32(41)),
		},
		{Index: 1, Name: "NVIDIA T4", ComputeCapability: "7.5"},
	}}
	omni := &fakeOmni{devices: machine}
	got := runCommand(t, omni, "", "devices")
	require.Zero(t, got.code, got.stderr)
	require.Equal(t, `driver 580.1, CUDA 13.0
INDEX  NAME         CAPABILITY  MEMORY          BUSY  TEMPERATURE
0      NVIDIA A100  8.0         1.5 / 40.0 GiB  37 %  41 °C
1      NVIDIA T4    7.5         -               -     -
`, got.stdout)

	got = runCommand(t, omni, "", "devices", "--format", "json")
	require.Zero(t, got.code, got.stderr)
	devices := got.object(t)["devices"].([]any)
	require.Equal(t, 37.0, devices[0].(map[string]any)["utilization_percent"])
	require.Nil(t, devices[1].(map[string]any)["utilization_percent"])
}

func TestDevicesWithoutAGPU(t *testing.T) {
	omni := &fakeOmni{devices: gpu.Machine{Devices: []gpu.Device{}, Reason: "no driver"}}
	got := runCommand(t, omni, "", "devices")
	require.Zero(t, got.code, got.stderr)
	require.Equal(t, "no GPU: no driver\n", got.stdout)

	got = runCommand(t, omni, "", "devices", "--format", "json")
	require.Equal(t, map[string]any{"driver": "", "cuda": "", "devices": []any{}, "reason": "no driver"}, got.object(t))
}
