package main

import (
	"fmt"
	"net/http"

	"github.com/urfave/cli/v2"
)

// profileStopCommand ends a session in a server.
func profileStopCommand(env *environment) *cli.Command {
	return &cli.Command{
		Name:      "stop",
		Usage:     "end the session of a server and wait for its files",
		UsageText: "omni-run profile stop [--url URL] [--stages LIST] [--no-wait]",
		Description: `Collection ends at once, the models go on, and the command returns when the files are complete. The name of the session
goes to standard output.

Examples:
  omni-run profile stop
  omni-run profile stop --no-wait && omni-run profile status`,
		Flags: append([]cli.Flag{
			stagesFlag(),
			&cli.BoolFlag{Name: "no-wait", Usage: "return when collection has ended, while files are written"},
		}, clientFlags()...),
		Action: withArguments(0, "none: the server is named with --url", func(c *cli.Context, _ []string) error {
			return stopProfileByURL(c, env)
		}),
	}
}

func stopProfileByURL(c *cli.Context, env *environment) error {
	client, err := newProfileClient(c, env)
	if err != nil {
		return err
	}
	body := map[string]any{"wait": !c.Bool("no-wait")}
	if text := c.String("stages"); text != "" {
		if body["stages"], err = parseStages(text); err != nil {
			return usagef("--stages: %w", err)
		}
	}
	var answer profileAnswer
	if err := client.call(c.Context, http.MethodPost, body, &answer, "stop_profile"); err != nil {
		return err
	}
	fmt.Fprintln(env.stdout, answer.Session)
	return answer.report(env.stderr)
}
