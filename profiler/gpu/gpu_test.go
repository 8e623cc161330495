package gpu

import (
	"testing"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/dgxa100"
	"github.com/stretchr/testify/require"
)

// mockMachine is go-nvml's machine of eight A100, of which the first reports everything.
func mockMachine() *dgxa100.Server {
	server := dgxa100.New()
	for i := range server.Devices {
		device := server.Devices[i].(*dgxa100.Device)
		utilization, code := nvml.Utilization{Gpu: 37}, nvml.SUCCESS
		if i > 0 {
			code = nvml.ERROR_NOT_SUPPORTED
		}
		device.MemoryInfo.Used = uint64(i) << 30
		device.GetUtilizationRatesFunc = func() (nvml.Utilization, nvml.Return) { return utilization, code }
		device.GetTemperatureFunc = func(nvml.TemperatureSensors) (uint32, nvml.Return) { return 41, code }
	}
	return server
}

func TestListOfAMachineWithGPUs(t *testing.T) {
	machine, err := ListFrom(mockMachine())
	require.NoError(t, err)
	require.Equal(t, "550.54.15", machine.Driver)
	require.Equal(t, "12.4", machine.CUDA)
	require.Empty(t, machine.Reason)
	require.Len(t, machine.Devices, 8)

	first, second := machine.Devices[0], machine.Devices[1]
	require.NotEmpty(t, first.UUID)
	first.UUID = ""
	memory, used, busy, warm := uint64(42949672960), uint64(0), uint32(37), uint32(41)
	require.Equal(t, Device{
		Name: "Mock NVIDIA A100-SXM4-40GB", ComputeCapability: "8.0", MemoryTotalBytes: &memory, MemoryUsedBytes: &used,
		UtilizationPercent: &busy, TemperatureCelsius: &warm,
	}, first)
	require.Equal(t, 1, second.Index)
	require.EqualValues(t, 1<<30, *second.MemoryUsedBytes)
	require.Nil(t, second.UtilizationPercent, "what a GPU does not report is not 0")
	require.Nil(t, second.TemperatureCelsius)
}

func TestListSaysWhyThereIsNoGPU(t *testing.T) {
	tests := map[nvml.Return]string{
		nvml.ERROR_LIBRARY_NOT_FOUND: "no NVIDIA driver is installed",
		nvml.ERROR_DRIVER_NOT_LOADED: "not loaded",
		nvml.ERROR_NO_PERMISSION:     "this user may not",
	}
	for code, want := range tests {
		t.Run(code.String(), func(t *testing.T) {
			server := mockMachine()
			server.InitFunc = func() nvml.Return { return code }
			machine, err := ListFrom(server)
			require.NoError(t, err)
			require.Empty(t, machine.Devices)
			require.NotNil(t, machine.Devices, "JSON has an empty list, not null")
			require.Contains(t, machine.Reason, want)
		})
	}
	server := mockMachine()
	server.DeviceGetCountFunc = func() (int, nvml.Return) { return 0, nvml.SUCCESS }
	machine, err := ListFrom(server)
	require.NoError(t, err)
	require.Contains(t, machine.Reason, "knows no GPU")
}

func TestListReportsADriverThatFails(t *testing.T) {
	tests := []struct {
		name   string
		damage func(*dgxa100.Server)
		want   string
	}{
		{"opening", func(s *dgxa100.Server) { s.InitFunc = func() nvml.Return { return nvml.ERROR_UNKNOWN } }, "open NVML"},
		{"driver version", func(s *dgxa100.Server) {
			s.SystemGetDriverVersionFunc = func() (string, nvml.Return) { return "", nvml.ERROR_UNKNOWN }
		}, "driver version"},
		{"CUDA version", func(s *dgxa100.Server) {
			s.SystemGetCudaDriverVersionFunc = func() (int, nvml.Return) { return 0, nvml.ERROR_UNKNOWN }
		}, "CUDA version"},
		{"counting", func(s *dgxa100.Server) {
			s.DeviceGetCountFunc = func() (int, nvml.Return) { return 0, nvml.ERROR_UNKNOWN }
		}, "count GPUs"},
		{"a lost GPU", func(s *dgxa100.Server) {
			s.Devices[3].(*dgxa100.Device).GetNameFunc = func() (string, nvml.Return) { return "", nvml.ERROR_GPU_IS_LOST }
		}, "GPU 3: name"},
		{"closing", func(s *dgxa100.Server) { s.ShutdownFunc = func() nvml.Return { return nvml.ERROR_UNKNOWN } }, "close NVML"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			server := mockMachine()
			test.damage(server)
			_, err := ListFrom(server)
			require.ErrorContains(t, err, test.want)
		})
	}
}

func TestListWorksOnThisMachine(t *testing.T) {
	machine, err := List()
	require.NoError(t, err)
	if len(machine.Devices) == 0 {
		require.NotEmpty(t, machine.Reason)
		return
	}
	require.NotEmpty(t, machine.Driver)
}
