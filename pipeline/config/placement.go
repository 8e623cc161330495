package config

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Auto is the device of a stage that leaves the choice to [Config.Place].
const Auto = "auto"

// GPU is one that stages can be placed on.
type GPU struct {
	Index     int    // its number on the bus
	UUID      string // GPU-...
	FreeBytes uint64 // 0 if the driver does not say
}

// Machine is what [Config.Place] may choose from. Without GPUs, Reason says why.
type Machine struct {
	GPUs   []GPU
	Reason string
}

// Place returns a copy in which no stage is on Auto, and a sentence about each choice by stage id. A stage that named no
// device gets a GPU: one with as few other stages as possible, and of those the one with most free memory. Without GPUs it
// runs on the CPU.
func (c *Config) Place(machine Machine) (*Config, map[int]string) {
	out, reasons := c.Clone(), map[int]string{}
	load := map[string]int{} // stages by device
	for _, s := range out.Stages {
		load[s.Device]++
	}
	for i := range out.Stages {
		s := &out.Stages[i]
		if s.Device != Auto {
			continue
		}
		if len(machine.GPUs) == 0 {
			s.Device = "cpu"
			reasons[s.ID] = "no device was given, and there is no GPU to use: " + machine.Reason
			continue
		}
		best := slices.MinFunc(machine.GPUs, func(a, b GPU) int {
			return cmp.Or(
				cmp.Compare(load[a.device()], load[b.device()]),
				cmp.Compare(b.FreeBytes, a.FreeBytes),
				cmp.Compare(a.Index, b.Index),
			)
		})
		s.Device = best.device()
		reasons[s.ID] = fmt.Sprintf("no device was given; of %d GPUs it has the fewest stages (%d), and of those the most free memory (%.1f GiB)",
			len(machine.GPUs), load[s.Device], float64(best.FreeBytes)/(1<<30))
		load[s.Device]++
	}
	return out, reasons
}

func (g GPU) device() string { return fmt.Sprintf("cuda:%d", g.Index) }

// Visible returns the machine as a CUDA program sees it for these values of CUDA_VISIBLE_DEVICES and CUDA_DEVICE_ORDER
// (set says whether the first is set at all): what is hidden is gone, and Index is the N of cuda:N. Where the two
// numberings cannot be matched there is no GPU to choose from, and Reason says so.
func (m Machine) Visible(visible string, set bool, order string) Machine {
	if len(m.GPUs) == 0 {
		return m
	}
	if len(m.GPUs) > 1 && order != "" && order != "PCI_BUS_ID" {
		return Machine{Reason: fmt.Sprintf("CUDA_DEVICE_ORDER=%s numbers GPUs differently from the driver: give devices, or PCI_BUS_ID", order)}
	}
	if !set {
		return m
	}
	seen := Machine{Reason: fmt.Sprintf("CUDA_VISIBLE_DEVICES=%q shows none of %d", visible, len(m.GPUs))}
	for name := range strings.SplitSeq(visible, ",") {
		i := slices.IndexFunc(m.GPUs, func(g GPU) bool { return g.is(strings.TrimSpace(name)) })
		if i < 0 {
			break // CUDA stops at the first that is not there
		}
		g := m.GPUs[i]
		g.Index = len(seen.GPUs)
		seen.GPUs = append(seen.GPUs, g)
	}
	if len(seen.GPUs) > 0 {
		seen.Reason = ""
	}
	return seen
}

// is reports whether CUDA_VISIBLE_DEVICES means g by name: its number, or the beginning of its UUID.
func (g GPU) is(name string) bool {
	return name == strconv.Itoa(g.Index) || strings.HasPrefix(name, "GPU-") && strings.HasPrefix(g.UUID, name)
}
