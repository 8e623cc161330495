package main

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"github.com/omni-run/omni/profiler/gpu"
)

// devicesCommand lists the GPUs of this machine.
func devicesCommand(env *environment) *cli.Command {
	return &cli.Command{
		Name:      "devices",
		Usage:     "list this machine's GPUs, or say why there is none",
		UsageText: "omni-run devices [--format text|json]",
		Description: `Asks the NVIDIA driver. INDEX is the N of --device cuda:N, as long as CUDA_VISIBLE_DEVICES is not set and
CUDA_DEVICE_ORDER is PCI_BUS_ID. Memory is used and total; a dash is what the GPU does not report.

Examples:
  omni-run devices
  omni-run devices --format json`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "format", Value: "text", Usage: "`FORMAT` text (the default) or json"},
		},
		Action: func(c *cli.Context) error {
			format := c.String("format")
			if format != "text" && format != "json" {
				return usagef("--format is %q, want text or json", format)
			}
			if c.NArg() > 0 {
				return usagef("unexpected argument %q", c.Args().First())
			}
			machine, err := env.devices()
			if err != nil {
				return fmt.Errorf("list GPUs: %w", err)
			}
			if format == "json" {
				return printJSON(env.stdout, machine)
			}
			return printDevices(env.stdout, machine)
		},
	}
}

func printDevices(w io.Writer, machine gpu.Machine) error {
	if len(machine.Devices) == 0 {
		_, err := fmt.Fprintf(w, "no GPU: %s\n", machine.Reason)
		return err
	}
	if _, err := fmt.Fprintf(w, "driver %s, CUDA %s\n", machine.Driver, machine.CUDA); err != nil {
		return err
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "INDEX\tNAME\tCAPABILITY\tMEMORY\tBUSY\tTEMPERATURE")
	for _, d := range machine.Devices {
		memory := "-"
		if d.MemoryUsedBytes != nil && d.MemoryTotalBytes != nil {
			memory = fmt.Sprintf("%.1f / %.1f GiB", float64(*d.MemoryUsedBytes)/(1<<30), float64(*d.MemoryTotalBytes)/(1<<30))
		}
		fmt.Fprintf(table, "%d\t%s\t%s\t%s\t%s\t%s\n", d.Index, d.Name, d.ComputeCapability, memory,
			measured(d.UtilizationPercent, " %"), measured(d.TemperatureCelsius, " °C"))
	}
	return table.Flush()
}

// measured formats a number that may not be known.
func measured(value *uint32, unit string) string {
	if value == nil {
		return "-"
	}
	return fmt.Sprint(*value) + unit
}
