package pipeline

import (
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"

	"github.com/omni-run/omni/pipeline/config"
)

// place gives every stage of a deployment a device, and says why where the deployment left that open.
func place(cfg *Config, deployment *config.Config, log *slog.Logger) (*config.Config, map[int]string) {
	open := slices.ContainsFunc(deployment.Stages, func(s config.Stage) bool { return s.Device == config.Auto })
	if !open {
		return deployment, nil
	}
	placed, reasons := deployment.Place(visibleMachine(cfg))
	for _, s := range placed.Stages {
		if reason := reasons[s.ID]; reason != "" {
			log.Info("stage is placed", "stage", s.ID, "name", s.Name, "device", s.Device, "reason", reason)
		}
	}
	return placed, reasons
}

// visibleMachine asks for the GPUs and leaves those that the workers will see, numbered as they will be there.
func visibleMachine(cfg *Config) config.Machine {
	if cfg.Machine == nil {
		return config.Machine{Reason: "this program does not look for one"}
	}
	machine, err := cfg.Machine()
	if err != nil {
		// A driver that fails is a reason to compute without it, not to refuse.
		return config.Machine{Reason: fmt.Sprintf("the driver fails: %v", err)}
	}
	visible, set := variable(cfg.WorkerEnv, "CUDA_VISIBLE_DEVICES")
	order, _ := variable(cfg.WorkerEnv, "CUDA_DEVICE_ORDER")
	return machine.Visible(visible, set, order)
}

// variable is an environment variable as a worker will see it.
func variable(extra []string, name string) (value string, set bool) {
	for _, e := range slices.Backward(extra) {
		if value, ok := strings.CutPrefix(e, name+"="); ok {
			return value, true
		}
	}
	return os.LookupEnv(name)
}
