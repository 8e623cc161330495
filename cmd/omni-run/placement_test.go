package main

import (
	"testing"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/dgxa100"
	"github.com/stretchr/testify/require"

	"github.com/omni-run/omni/pipeline"
	"github.com/omni-run/omni/pipeline/pipelinetest"
	"github.com/omni-run/omni/profiler/gpu"
)

// mockMachine is go-nvml's machine of eight GPUs of 40 GiB, which do not report what they are doing.
func mockMachine() *dgxa100.Server {
	server := dgxa100.New()
	for i := range server.Devices {
		device := server.Devices[i].(*dgxa100.Device)
		device.GetUtilizationRatesFunc = func() (nvml.Utilization, nvml.Return) { return nvml.Utilization{}, nvml.ERROR_NOT_SUPPORTED }
		device.GetTemperatureFunc = func(nvml.TemperatureSensors) (uint32, nvml.Return) { return 0, nvml.ERROR_NOT_SUPPORTED }
	}
	return server
}

// openOn opens a pipeline of scripted engines, none of whose stages names a device, on a machine of go-nvml's.
func openOn(t *testing.T, server *dgxa100.Server, cuda bool, env ...string) *pipeline.Omni {
	t.Helper()
	cfg := pipelinetest.Config(t, nil)
	cfg.WorkerEnv = append(cfg.WorkerEnv, env...)
	cfg.Machine = machine(cuda, func() (gpu.Machine, error) { return gpu.ListFrom(server) })
	graph := pipelinetest.Graph()
	graph.Config = graph.Config.WithDevice("auto")
	o, err := pipeline.OpenGraph(t.Context(), cfg, graph)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, o.Close()) })
	return o
}

func devicesOf(o *pipeline.Omni) (devices []string) {
	for _, s := range o.Stages() {
		devices = append(devices, s.Device)
	}
	return devices
}

func TestStagesAreSpreadOverTheGPUsWithMostFreeMemory(t *testing.T) {
	server := mockMachine()
	for i, used := range []uint64{9, 3, 30, 1, 2, 39, 38, 37} {
		server.Devices[i].(*dgxa100.Device).MemoryInfo.Used = used << 30
	}
	o := openOn(t, server, true)
	require.Equal(t, []string{"cuda:3", "cuda:4", "cuda:1"}, devicesOf(o))
	require.Contains(t, o.Stages()[0].Placement, "39.0 GiB")

	o = openOn(t, server, true, "CUDA_VISIBLE_DEVICES=2,0")
	require.Equal(t, []string{"cuda:1", "cuda:0", "cuda:1"}, devicesOf(o), "as the workers number what they see")
}

func TestStagesRunOnTheCPUAndSayWhy(t *testing.T) {
	none := mockMachine()
	none.InitFunc = func() nvml.Return { return nvml.ERROR_LIBRARY_NOT_FOUND }
	broken := mockMachine()
	broken.DeviceGetCountFunc = func() (int, nvml.Return) { return 0, nvml.ERROR_GPU_IS_LOST }
	tests := []struct {
		name   string
		server *dgxa100.Server
		cuda   bool
		env    string
		want   string
	}{
		{"a build without CUDA", mockMachine(), false, "A=b", "make build TAGS=cuda"},
		{"no driver", none, true, "A=b", "no NVIDIA driver is installed"},
		{"a driver that fails", broken, true, "A=b", "the driver fails: count GPUs"},
		{"GPUs that are hidden", mockMachine(), true, "CUDA_VISIBLE_DEVICES=", `CUDA_VISIBLE_DEVICES="" shows none of 8`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			o := openOn(t, test.server, test.cuda, test.env)
			require.Equal(t, []string{"cpu", "cpu", "cpu"}, devicesOf(o))
			require.Contains(t, o.Stages()[2].Placement, test.want)
		})
	}
}

func TestMemoryThatTheDriverDoesNotReportCountsAsNone(t *testing.T) {
	found, err := machine(true, func() (gpu.Machine, error) {
		return gpu.Machine{Devices: []gpu.Device{{Index: 0, UUID: "GPU-a"}}}, nil
	})()
	require.NoError(t, err)
	require.Len(t, found.GPUs, 1)
	require.Zero(t, found.GPUs[0].FreeBytes)
}
