package gpu

import (
	"errors"
	"fmt"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/omni-run/omni/profiler/telemetry"
)

// Source asks NVIDIA's driver what the GPUs of this machine do. Where there is no driver it has no GPUs.
type Source struct {
	library func() Library
}

// NewSource returns a Source. The driver is opened by Open.
func NewSource() Source { return Source{library: func() Library { return nvml.New() }} }

// Open opens the driver.
func (s Source) Open() (telemetry.Probe, error) {
	lib := s.library()
	if code := lib.Init(); code != nvml.SUCCESS {
		if _, known := noGPU[code]; known {
			return nil, nil
		}
		return nil, fmt.Errorf("open NVML: %w", code)
	}
	p := &probe{lib: lib}
	if err := p.open(); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	if len(p.handles) == 0 {
		return nil, p.Close()
	}
	return p, nil
}

// probe is an open driver.
type probe struct {
	lib     Library
	handles []nvml.Device
	devices []telemetry.Device
}

func (p *probe) open() error {
	count, code := p.lib.DeviceGetCount()
	if code != nvml.SUCCESS {
		return fmt.Errorf("count GPUs: %w", code)
	}
	for index := range count {
		handle, code := p.lib.DeviceGetHandleByIndex(index)
		if code != nvml.SUCCESS {
			return fmt.Errorf("open GPU %d: %w", index, code)
		}
		device := telemetry.Device{Index: index}
		device.Name, _ = handle.GetName() // without one it is known by its number
		device.UUID, _ = handle.GetUUID()
		p.handles, p.devices = append(p.handles, handle), append(p.devices, device)
	}
	return nil
}

// Devices lists the GPUs, numbered by their place on the bus.
func (p *probe) Devices() []telemetry.Device { return p.devices }

// Sample asks every GPU. What one does not report is left out; a GPU that is gone is an error.
func (p *probe) Sample() ([]telemetry.Sample, error) {
	samples := make([]telemetry.Sample, 0, len(p.handles))
	for index, handle := range p.handles {
		s := telemetry.Sample{Device: index}
		utilization, code := handle.GetUtilizationRates()
		if code == nvml.ERROR_GPU_IS_LOST {
			return nil, fmt.Errorf("GPU %d: %w", index, code)
		}
		s.BusyPercent, s.MemoryBusyPercent = reported(utilization.Gpu, code), reported(utilization.Memory, code)
		memory, code := handle.GetMemoryInfo()
		s.MemoryUsedBytes = reported(memory.Used, code)
		milliwatts, code := handle.GetPowerUsage()
		s.PowerWatts = reported(float64(milliwatts)/1000, code)
		clock, code := handle.GetClockInfo(nvml.CLOCK_SM)
		s.SMClockMHz = reported(clock, code)
		clock, code = handle.GetClockInfo(nvml.CLOCK_MEM)
		s.MemoryClockMHz = reported(clock, code)
		temperature, code := handle.GetTemperature(nvml.TEMPERATURE_GPU)
		s.TemperatureC = reported(temperature, code)
		if reasons, code := handle.GetCurrentClocksEventReasons(); code == nvml.SUCCESS {
			s.Throttle = throttle(reasons)
		}
		samples = append(samples, s)
	}
	return samples, nil
}

// Close closes the driver.
func (p *probe) Close() error {
	if code := p.lib.Shutdown(); code != nvml.SUCCESS {
		return fmt.Errorf("close NVML: %w", code)
	}
	return nil
}

// slowdowns are the reasons that keep a busy GPU from its highest clocks. Having nothing to do, and clocks that somebody
// has set, are no such reasons.
var slowdowns = []struct {
	bit  uint64
	text string
}{
	{nvml.ClocksEventReasonSwPowerCap, "power cap"},
	{nvml.ClocksThrottleReasonHwSlowdown, "hardware slowdown"},
	{nvml.ClocksEventReasonSyncBoost, "sync boost"},
	{nvml.ClocksEventReasonSwThermalSlowdown, "thermal slowdown"},
	{nvml.ClocksThrottleReasonHwThermalSlowdown, "hardware thermal slowdown"},
	{nvml.ClocksThrottleReasonHwPowerBrakeSlowdown, "power brake"},
}

// throttle names the reasons in a mask.
func throttle(mask uint64) []string {
	var list []string
	for _, reason := range slowdowns {
		if mask&reason.bit != 0 {
			list = append(list, reason.text)
		}
	}
	return list
}
