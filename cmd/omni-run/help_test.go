package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestHelp(t *testing.T) {
	tests := map[string][]string{
		"help.txt":                 {"--help"},
		"help-serve.txt":           {"serve", "--help"},
		"help-bench-serve.txt":     {"bench", "serve", "--help"},
		"help-make-checkpoint.txt": {"make-checkpoint", "--help"},
		"help-devices.txt":         {"devices", "--help"},
	}
	for file, args := range tests {
		t.Run(file, func(t *testing.T) {
			got := runCommand(t, &fakeOmni{}, "", args...)
			require.Zero(t, got.code, got.stderr)
			golden(t, file, got.stdout)
			for line := range strings.Lines(got.stdout) {
				require.LessOrEqual(t, len(line), 125, "a line that wraps on a usual terminal: %q", line)
			}
		})
	}
}

func TestEveryFlagAndCommandIsInTheHelp(t *testing.T) {
	env := &environment{}
	app := newApp(env)
	for _, flag := range generateFlags() {
		require.Contains(t, app.CustomAppHelpTemplate, "--"+flag.Names()[0])
	}
	for _, command := range app.Commands {
		require.Contains(t, app.CustomAppHelpTemplate, "\n  "+command.Name)
		for _, flag := range command.Flags {
			require.Contains(t, command.CustomHelpTemplate, "--"+flag.Names()[0])
		}
	}
}
