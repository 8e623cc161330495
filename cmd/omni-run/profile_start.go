package main

import (
	"fmt"
	"maps"
	"net/http"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/omni-run/omni/profiler"
)

// profileStartCommand begins a session in a server.
func profileStartCommand(env *environment) *cli.Command {
	return &cli.Command{
		Name:      "start",
		Usage:     "begin a session in a server that runs",
		UsageText: "omni-run profile start [--url URL] [--stages LIST] [--set NAME=VALUE ...]",
		Description: `The server must have been started with --profile-dir or --profiler-config. Its models go on serving. The name of the
session goes to standard output. --set lays a setting over the server's own, for this session. With --request-ids the
session tells of the requests that had these X-Request-Id headers, and of no others.

Examples:
  omni-run profile start
  omni-run profile start --url http://gpu1:8000 --stages 0,2 --set max_iterations=50 --set detail=modules`,
		Flags: append([]cli.Flag{
			stagesFlag(),
			&cli.StringFlag{Name: "request-ids", Usage: "`LIST` keep the times of these requests alone: values of their X-Request-Id headers, with commas between; default: all"},
			&cli.StringSliceFlag{Name: "set", Usage: "`NAME=VALUE` a profiler setting; docs/profiling.md lists them"},
		}, clientFlags()...),
		Action: withArguments(0, "none: the server is named with --url", func(c *cli.Context, _ []string) error {
			return startProfileByURL(c, env)
		}),
	}
}

func startProfileByURL(c *cli.Context, env *environment) error {
	client, err := newProfileClient(c, env)
	if err != nil {
		return err
	}
	body := map[string]any{}
	if text := c.String("stages"); text != "" {
		if body["stages"], err = parseStages(text); err != nil {
			return usagef("--stages: %w", err)
		}
	}
	if text := c.String("request-ids"); text != "" {
		body["request_ids"] = strings.Split(text, ",")
	}
	settings, err := profiler.Settings(strings.Join(c.StringSlice("set"), ","))
	if err != nil {
		return usagef("--set: %w", err)
	}
	maps.Copy(body, settings)
	var answer profileAnswer
	if err := client.call(c.Context, http.MethodPost, body, &answer, "start_profile"); err != nil {
		return err
	}
	fmt.Fprintln(env.stdout, answer.Session)
	return answer.report(env.stderr)
}
