package main

import (
	"github.com/omni-run/omni/pipeline/config"
	"github.com/omni-run/omni/profiler/gpu"
)

// machine is what stages without a device may be placed on: the GPUs of this machine, if workers of this build can use
// them.
func machine(withCUDA bool, devices func() (gpu.Machine, error)) func() (config.Machine, error) {
	return func() (config.Machine, error) {
		if !withCUDA {
			return config.Machine{Reason: "workers of this build run on the CPU (make build TAGS=cuda)"}, nil
		}
		found, err := devices()
		if err != nil {
			return config.Machine{}, err
		}
		m := config.Machine{Reason: found.Reason}
		for _, d := range found.Devices {
			g := config.GPU{Index: d.Index, UUID: d.UUID}
			if d.MemoryTotalBytes != nil && d.MemoryUsedBytes != nil && *d.MemoryUsedBytes < *d.MemoryTotalBytes {
				g.FreeBytes = *d.MemoryTotalBytes - *d.MemoryUsedBytes
			}
			m.GPUs = append(m.GPUs, g)
		}
		return m, nil
	}
}
