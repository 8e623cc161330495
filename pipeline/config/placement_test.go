package config_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/omni-run/omni/pipeline/config"
)

func devicesOf(c *config.Config) []string {
	var devices []string
	for _, s := range c.Stages {
		devices = append(devices, s.Device)
	}
	return devices
}

func TestPlace(t *testing.T) {
	gpu := func(index int, free uint64) config.GPU { return config.GPU{Index: index, FreeBytes: free << 30} }
	tests := []struct {
		name    string
		devices []string
		machine config.Machine
		want    []string
		reason  string // of the first stage that was placed
	}{
		{"no GPU", []string{"auto", "auto", "auto"}, config.Machine{Reason: "no driver"}, []string{"cpu", "cpu", "cpu"}, "no driver"},
		{"one GPU takes all", []string{"auto", "auto", "auto"}, config.Machine{GPUs: []config.GPU{gpu(0, 8)}}, []string{"cuda:0", "cuda:0", "cuda:0"}, "8.0 GiB"},
		{"most free memory first", []string{"auto", "auto", "auto"}, config.Machine{GPUs: []config.GPU{gpu(0, 8), gpu(1, 40), gpu(2, 20)}}, []string{"cuda:1", "cuda:2", "cuda:0"}, "40.0 GiB"},
		{"more stages than GPUs", []string{"auto", "auto", "auto"}, config.Machine{GPUs: []config.GPU{gpu(0, 8), gpu(1, 40)}}, []string{"cuda:1", "cuda:0", "cuda:1"}, "of 2 GPUs"},
		{"what is given stays, and counts", []string{"auto", "cuda:1", "cpu"}, config.Machine{GPUs: []config.GPU{gpu(0, 8), gpu(1, 40)}}, []string{"cuda:0", "cuda:1", "cpu"}, "8.0 GiB"},
		{"nothing to place", []string{"cpu", "cpu", "cuda:7"}, config.Machine{GPUs: []config.GPU{gpu(0, 8)}}, []string{"cpu", "cpu", "cuda:7"}, ""},
		{"memory that is not known", []string{"auto", "auto", "auto"}, config.Machine{GPUs: []config.GPU{gpu(0, 0), gpu(1, 0)}}, []string{"cuda:0", "cuda:1", "cuda:0"}, "0.0 GiB"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			b := base()
			for i := range b.Stages {
				b.Stages[i].Device = test.devices[i]
			}
			placed, reasons := b.Place(test.machine)
			assert.Equal(t, test.want, devicesOf(placed))
			assert.Equal(t, test.devices, devicesOf(b), "the original is not changed")
			require.NoError(t, placed.Validate())
			if test.reason != "" {
				assert.Contains(t, reasons[0], test.reason)
			} else {
				assert.Empty(t, reasons)
			}
		})
	}
}

func TestVisible(t *testing.T) {
	machine := config.Machine{GPUs: []config.GPU{
		{Index: 0, UUID: "GPU-aa11", FreeBytes: 1}, {Index: 1, UUID: "GPU-bb22", FreeBytes: 2}, {Index: 2, UUID: "GPU-cc33", FreeBytes: 3},
	}}
	tests := []struct {
		visible string
		set     bool
		order   string
		want    []uint64 // free bytes by the N of cuda:N
		reason  string
	}{
		{"", false, "", []uint64{1, 2, 3}, ""},
		{"", false, "PCI_BUS_ID", []uint64{1, 2, 3}, ""},
		{"2,0", true, "", []uint64{3, 1}, ""},
		{"GPU-bb, GPU-aa11", true, "", []uint64{2, 1}, ""},
		{"1,7,0", true, "", []uint64{2}, ""},
		{"", true, "", nil, `CUDA_VISIBLE_DEVICES="" shows none of 3`},
		{"-1", true, "", nil, "shows none"},
		{"0", true, "FASTEST_FIRST", nil, "CUDA_DEVICE_ORDER=FASTEST_FIRST"},
	}
	for _, test := range tests {
		got := machine.Visible(test.visible, test.set, test.order)
		var free []uint64
		for i, g := range got.GPUs {
			assert.Equal(t, i, g.Index)
			free = append(free, g.FreeBytes)
		}
		assert.Equal(t, test.want, free, "%+v", test)
		assert.Contains(t, got.Reason, test.reason)
		assert.Equal(t, test.reason == "", got.Reason == "", "%+v", test)
	}
	none := config.Machine{Reason: "no driver"}
	assert.Equal(t, none, none.Visible("0", true, "FASTEST_FIRST"))
}
