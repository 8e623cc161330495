package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// Columns of the help text.
const (
	helpColumn = 30
	helpWidth  = 110
)

const appHelp = `omni-run: run any-to-any models: text in, text and speech out

Usage:
  omni-run --model DIR|ID [--prompt TEXT | --prompts-file FILE | -] [flags]
  omni-run --help | --version

Examples:
  omni-run --model Qwen/Qwen2.5-Omni-7B --prompt "Why is the sky blue?"
  omni-run --model ./checkpoint --prompts-file prompts.txt --max-concurrency 16 --output-dir out
  echo "Good morning" | omni-run --model ./checkpoint --modalities text --format json -
  omni-run --model ./checkpoint --prompt "Hi" --profile-dir ./profiles --profile-stages 0,2
  omni-run --model ./checkpoint --prompt "Hi" --sampling-params '[{"temperature":0},{"temperature":0.7,"top_k":20},{}]'
  omni-run make-checkpoint --family qwen2_5_omni --preset tiny --seed 1 --out ./checkpoint

%sCommands (omni-run COMMAND --help says more):
%s
Prompts files hold one prompt a line, or one JSON object a line: {"prompt": "..."} or {"messages": [...]}, with
request_id, system, modalities, speaker, seed, max_tokens, sampling_params and speech (mode and sizes of
chunks, as in stage configs) where they differ from the flags.

Environment:
  HF_HOME       where hub ids are looked for (HF_HUB_CACHE and XDG_CACHE_HOME count too)
  OMNI_WORKER   the worker program; default: omni-worker beside omni-run, then on the PATH
  OMNI_LOG      how much is logged: debug, info, warn (default) or error
  VLLM_TORCH_PROFILER_DIR  what --profile-dir is if no flag says so

SIGUSR2 writes what the flight recorders hold (--profiler-config recorder=stream,ring_seconds=N) while everything goes on.

Exit codes: 0 all requests done, 1 some failed, 2 wrong command line, 130 interrupted.
`

const commandHelp = `omni-run %s: %s

Usage:
  %s

%s
`

// appHelpText is the answer to omni-run --help.
func appHelpText(flags []cli.Flag, commands []*cli.Command) string {
	var groups []string
	byGroup := map[string][]cli.Flag{}
	for _, flag := range flags {
		group := flag.(cli.CategorizableFlag).GetCategory()
		if !slices.Contains(groups, group) {
			groups = append(groups, group)
		}
		byGroup[group] = append(byGroup[group], flag)
	}
	var flagText, commandText strings.Builder
	for _, group := range groups {
		fmt.Fprintf(&flagText, "%s:\n%s\n", group, flagTable(byGroup[group]))
	}
	for _, command := range commands {
		commandText.WriteString(row(command.Name, command.Usage))
	}
	return fmt.Sprintf(appHelp, flagText.String(), commandText.String())
}

// commandHelpText is the answer to omni-run COMMAND --help.
func commandHelpText(c *cli.Command) string {
	text := fmt.Sprintf(commandHelp, c.Name, c.Usage, c.UsageText, c.Description)
	if len(c.Flags) == 0 {
		return text // a group of commands
	}
	return text + "\nFlags:\n" + flagTable(c.Flags)
}

// flagTable has a row per flag. What stands in backquotes in a flag's usage is the name of its value.
func flagTable(flags []cli.Flag) string {
	var table strings.Builder
	for _, flag := range flags {
		doc := flag.(cli.DocGenerationFlag)
		name, usage := "--"+flag.Names()[0], doc.GetUsage()
		if doc.TakesValue() {
			before, rest, _ := strings.Cut(usage, "`")
			value, after, _ := strings.Cut(rest, "`")
			name += " " + value
			usage = strings.TrimSpace(before + strings.TrimLeft(after, " "))
		}
		table.WriteString(row(name, usage))
	}
	return table.String()
}

// row puts a name in the first column and a text, wrapped, in the second.
func row(name, text string) string {
	out := "  " + name
	if len(out) >= helpColumn {
		out += "\n"
	}
	width := len(out[strings.LastIndex(out, "\n")+1:])
	out += strings.Repeat(" ", helpColumn-width)
	width = helpColumn
	for i, word := range strings.Fields(text) {
		switch {
		case i == 0:
		case width+1+len(word) > helpWidth:
			out += "\n" + strings.Repeat(" ", helpColumn)
			width = helpColumn
		default:
			out += " "
			width++
		}
		out += word
		width += len(word)
	}
	return out + "\n"
}
