package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/omni-run/omni/profiler/picture"
)

// profileCommand groups the commands that read what profile sessions have left.
func profileCommand(env *environment) *cli.Command {
	group := &cli.Command{
		Name:      "profile",
		Usage:     "control the profiling of a server, and read what sessions have recorded",
		UsageText: "omni-run profile COMMAND [DIR] [flags]",
		Action: func(c *cli.Context) error {
			if c.NArg() > 0 {
				return usagef("profile: unknown command %q; want one of %s", c.Args().First(), strings.Join(names(c.Command.Subcommands), ", "))
			}
			fmt.Fprint(env.stdout, c.Command.CustomHelpTemplate)
			return nil
		},
		HideHelpCommand: true,
	}
	for _, make := range []command{
		profileMergeCommand,
		profileSummaryCommand,
		profileTopCommand,
		profileCriticalPathCommand,
		profileDiffCommand,
		profileFlameCommand,
		profileReportCommand,
		profileRepairCommand,
		profileStartCommand,
		profileStopCommand,
		profileStatusCommand,
		profileFetchCommand,
	} {
		c := make(env)
		c.OnUsageError = onUsageError
		c.HelpName = "omni-run profile " + c.Name
		c.CustomHelpTemplate = strings.Replace(commandHelpText(c), "omni-run ", "omni-run profile ", 1)
		group.Subcommands = append(group.Subcommands, c)
	}
	var table strings.Builder
	for _, c := range group.Subcommands {
		table.WriteString(row(c.Name, c.Usage))
	}
	group.Description = `DIR is the folder given to --profile-dir. It may hold several sessions; --session chooses one, the default is the last.
start, stop, status and fetch talk to a server (omni-run serve), which --url names.

Commands (omni-run profile COMMAND --help says more):
` + strings.TrimSuffix(table.String(), "\n")
	return group
}

func names(commands []*cli.Command) []string {
	var list []string
	for _, c := range commands {
		list = append(list, c.Name)
	}
	return list
}

// sessionFlag chooses among the sessions of a folder.
func sessionFlag() cli.Flag {
	return &cli.StringFlag{Name: "session", Usage: "`NAME` session to read: s1, s1.1771924633000000000, or -2 for the last but one; default: the last"}
}

// withArguments makes an action that finds flags also behind the arguments: omni-run profile merge DIR -o FILE.
// count is how many arguments there must be; what says which.
func withArguments(count int, what string, action func(c *cli.Context, args []string) error) cli.ActionFunc {
	return func(c *cli.Context) error {
		var args []string
		rest := c.Args().Slice()
		for len(rest) > 0 {
			word := rest[0]
			rest = rest[1:]
			if word == "--" {
				args = append(args, rest...)
				break
			}
			if len(word) < 2 || word[0] != '-' {
				args = append(args, word)
				continue
			}
			if word == "--help" || word == "-h" {
				fmt.Fprint(c.App.Writer, c.Command.CustomHelpTemplate)
				return nil
			}
			var err error
			if rest, err = setFlag(c, word, rest); err != nil {
				return err
			}
		}
		if len(args) != count {
			return usagef("%s: got %d arguments, want %s", c.Command.Name, len(args), what)
		}
		return action(c, args)
	}
}

// setFlag sets the flag that word names and returns what follows it and its value.
func setFlag(c *cli.Context, word string, rest []string) ([]string, error) {
	name, value, hasValue := strings.Cut(strings.TrimLeft(word, "-"), "=")
	i := slices.IndexFunc(c.Command.Flags, func(f cli.Flag) bool { return slices.Contains(f.Names(), name) })
	if i < 0 {
		return nil, usagef("flag provided but not defined: %s", word)
	}
	if !hasValue {
		value = "true"
		if flag, ok := c.Command.Flags[i].(cli.DocGenerationFlag); ok && flag.TakesValue() {
			if len(rest) == 0 {
				return nil, usagef("flag needs an argument: %s", word)
			}
			value, rest = rest[0], rest[1:]
		}
	}
	if err := c.Set(c.Command.Flags[i].Names()[0], value); err != nil { // an alias would not be seen under the name
		return nil, usagef("invalid value %q for flag %s: %v", value, word, err)
	}
	return rest, nil
}

// openSession finds a session and reads its ledger, if it has one.
func openSession(c *cli.Context, stderr io.Writer, dir string) (*picture.Source, error) {
	session, err := picture.Open(dir, c.String("session"))
	if err != nil {
		return nil, err
	}
	if session.Ledger == "" {
		fmt.Fprintf(stderr, "session %s has no ledger: nothing is known of its requests\n", session.ID())
	}
	if session.About.Running > 0 || session.About.Dropped > 0 {
		fmt.Fprintf(stderr, "the ledger lacks %d requests that had not ended and %d for which there was no room\n",
			session.About.Running, session.About.Dropped)
	}
	return session, nil
}

// outputPath is what --output says, or else where a session has the file of a name.
func outputPath(c *cli.Context, session *picture.Source, name string) string {
	if path := c.String("output"); path != "" {
		return path
	}
	return session.Path(name)
}
