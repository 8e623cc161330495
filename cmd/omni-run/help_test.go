package main

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/urfave/cli/v2"
)

// eachCommand visits the program and all its commands, with the words that call each.
func eachCommand(visit func(words []string)) {
	visit(nil)
	var walk func(words []string, commands []*cli.Command)
	walk = func(words []string, commands []*cli.Command) {
		for _, c := range commands {
			called := append(slices.Clone(words), c.Name)
			visit(called)
			walk(called, c.Subcommands)
		}
	}
	walk(nil, newApp(&environment{}).Commands)
}

// Every command has a golden of its help, and every golden a command.
func TestHelp(t *testing.T) {
	var files []string
	eachCommand(func(words []string) {
		file := strings.Join(append([]string{"help"}, words...), "-") + ".txt"
		files = append(files, filepath.Join("testdata", file))
		t.Run(file, func(t *testing.T) {
			got := runCommand(t, &fakeOmni{}, "", append(slices.Clone(words), "--help")...)
			require.Zero(t, got.code, got.stderr)
			golden(t, file, got.stdout)
			for line := range strings.Lines(got.stdout) {
				require.LessOrEqual(t, len(line), 125, "a line that wraps on a usual terminal: %q", line)
			}
		})
	})
	found, err := filepath.Glob("testdata/help*.txt")
	require.NoError(t, err)
	require.ElementsMatch(t, files, found)
	require.Greater(t, len(files), 15)
}

func TestVersionFlag(t *testing.T) {
	got := runCommand(t, &fakeOmni{}, "", "--version")
	require.Zero(t, got.code, got.stderr)
	require.Equal(t, "omni-run version "+version()+"\n", got.stdout)
}

// A group of commands without one of them says what there is.
func TestGroupsPrintTheirHelp(t *testing.T) {
	for _, group := range []string{"profile", "bench"} {
		alone, asked := runCommand(t, &fakeOmni{}, "", group), runCommand(t, &fakeOmni{}, "", group, "--help")
		require.Zero(t, alone.code, alone.stderr)
		require.Equal(t, strings.TrimSpace(asked.stdout), strings.TrimSpace(alone.stdout))
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
