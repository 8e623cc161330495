// Package gpu says which NVIDIA GPUs a machine has and what they are doing, through NVML, the driver's own library.
//
// It belongs to the parent process. NVML is opened at run time: on a machine without a driver the package still works
// and says that there is no GPU, and why. It must never be linked into a program that links libomni.so, since the flags
// with which its binding is linked hide missing functions.
//
// NVML numbers devices by their place on the bus. CUDA's cuda:N has the same order with CUDA_DEVICE_ORDER=PCI_BUS_ID and
// no CUDA_VISIBLE_DEVICES; otherwise it may differ.
package gpu

import (
	"errors"
	"fmt"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

// Machine is what the driver says about this machine. Without a GPU, Devices is empty and Reason says why.
type Machine struct {
	Driver  string   `json:"driver"`
	CUDA    string   `json:"cuda"` // the newest CUDA that the driver supports: 13.2
	Devices []Device `json:"devices"`
	Reason  string   `json:"reason,omitempty"`
}

// Device is one GPU. A nil field is one that this GPU or driver does not report.
type Device struct {
	Index             int     `json:"index"`
	Name              string  `json:"name"`
	UUID              string  `json:"uuid"`
	ComputeCapability string  `json:"compute_capability"`
	MemoryTotalBytes  *uint64 `json:"memory_total_bytes"`
	MemoryUsedBytes   *uint64 `json:"memory_used_bytes"`
	// UtilizationPercent is how much of the last sample period, a sixth of a second to a second, the GPU was busy.
	UtilizationPercent *uint32 `json:"utilization_percent"`
	TemperatureCelsius *uint32 `json:"temperature_celsius"`
}

// Library is the part of NVML that [List] uses.
type Library interface {
	Init() nvml.Return
	Shutdown() nvml.Return
	SystemGetDriverVersion() (string, nvml.Return)
	SystemGetCudaDriverVersion() (int, nvml.Return)
	DeviceGetCount() (int, nvml.Return)
	DeviceGetHandleByIndex(index int) (nvml.Device, nvml.Return)
}

// List asks the driver. Having no driver or no GPU is no error; a driver that fails is.
func List() (Machine, error) { return ListFrom(nvml.New()) }

// ListFrom is List for another implementation of NVML: a mock of go-nvml is a machine of any kind.
func ListFrom(lib Library) (machine Machine, err error) {
	machine.Devices = []Device{}
	if code := lib.Init(); code != nvml.SUCCESS {
		reason, known := noGPU[code]
		if !known {
			return machine, fmt.Errorf("open NVML: %w", code)
		}
		machine.Reason = reason
		return machine, nil
	}
	defer func() {
		if code := lib.Shutdown(); code != nvml.SUCCESS {
			err = errors.Join(err, fmt.Errorf("close NVML: %w", code))
		}
	}()
	var code nvml.Return
	if machine.Driver, code = lib.SystemGetDriverVersion(); code != nvml.SUCCESS {
		return machine, fmt.Errorf("driver version: %w", code)
	}
	version, code := lib.SystemGetCudaDriverVersion()
	if code != nvml.SUCCESS {
		return machine, fmt.Errorf("CUDA version of the driver: %w", code)
	}
	machine.CUDA = fmt.Sprintf("%d.%d", version/1000, version%1000/10)
	count, code := lib.DeviceGetCount()
	if code != nvml.SUCCESS {
		return machine, fmt.Errorf("count GPUs: %w", code)
	}
	for index := range count {
		device, err := describe(lib, index)
		if err != nil {
			return machine, fmt.Errorf("GPU %d: %w", index, err)
		}
		machine.Devices = append(machine.Devices, device)
	}
	if count == 0 {
		machine.Reason = "the NVIDIA driver is there but knows no GPU"
	}
	return machine, nil
}

// noGPU explains the ways in which NVML says that there is nothing to use.
var noGPU = map[nvml.Return]string{
	nvml.ERROR_LIBRARY_NOT_FOUND: "no NVIDIA driver is installed (libnvidia-ml.so.1 was not found)",
	nvml.ERROR_DRIVER_NOT_LOADED: "the NVIDIA driver is installed but not loaded (is the kernel module there?)",
	nvml.ERROR_NO_PERMISSION:     "this user may not talk to the NVIDIA driver",
}

func describe(lib Library, index int) (Device, error) {
	device := Device{Index: index}
	handle, code := lib.DeviceGetHandleByIndex(index)
	if code != nvml.SUCCESS {
		return device, fmt.Errorf("open: %w", code)
	}
	if device.Name, code = handle.GetName(); code != nvml.SUCCESS {
		return device, fmt.Errorf("name: %w", code)
	}
	if device.UUID, code = handle.GetUUID(); code != nvml.SUCCESS {
		return device, fmt.Errorf("UUID: %w", code)
	}
	major, minor, code := handle.GetCudaComputeCapability()
	if code != nvml.SUCCESS {
		return device, fmt.Errorf("compute capability: %w", code)
	}
	device.ComputeCapability = fmt.Sprintf("%d.%d", major, minor)

	memory, memoryCode := handle.GetMemoryInfo()
	device.MemoryTotalBytes = reported(memory.Total, memoryCode)
	device.MemoryUsedBytes = reported(memory.Used, memoryCode)
	utilization, code := handle.GetUtilizationRates()
	device.UtilizationPercent = reported(utilization.Gpu, code)
	temperature, code := handle.GetTemperature(nvml.TEMPERATURE_GPU)
	device.TemperatureCelsius = reported(temperature, code)
	return device, nil
}

// reported is nil for what the GPU or the driver could not say: many leave something out.
func reported[T any](value T, code nvml.Return) *T {
	if code != nvml.SUCCESS {
		return nil
	}
	return &value
}
