package main

import (
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/urfave/cli/v2"
)

// profileStatusCommand says how the session of a server stands.
func profileStatusCommand(env *environment) *cli.Command {
	return &cli.Command{
		Name:      "status",
		Usage:     "say how the current or last session of a server stands",
		UsageText: "omni-run profile status [--url URL] [--json]",
		Description: `Examples:
  omni-run profile status
  omni-run profile status --url http://gpu1:8000 --json`,
		Flags: append([]cli.Flag{
			&cli.BoolFlag{Name: "json", Usage: "print the server's answer"},
		}, clientFlags()...),
		Action: withArguments(0, "none: the server is named with --url", func(c *cli.Context, _ []string) error {
			return showProfileByURL(c, env)
		}),
	}
}

func showProfileByURL(c *cli.Context, env *environment) error {
	client, err := newProfileClient(c, env)
	if err != nil {
		return err
	}
	var text json.RawMessage
	if err := client.call(c.Context, http.MethodGet, nil, &text, "profile_status"); err != nil {
		return err
	}
	if c.Bool("json") {
		_, err := env.stdout.Write(append(text, '\n'))
		return err
	}
	var answer profileAnswer
	if err := json.Unmarshal(text, &answer); err != nil {
		return fmt.Errorf("answer of %s: %w", client.base, err)
	}
	switch {
	case answer.Session == "":
		fmt.Fprintln(env.stdout, "no session since the server was started")
		return nil
	case answer.Active:
		fmt.Fprintf(env.stdout, "session %s is active\n", answer.Session)
	default:
		fmt.Fprintf(env.stdout, "session %s was stopped\n", answer.Session)
	}
	return printWorkers(env.stdout, &answer.ProfileReport)
}
