package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/omni-run/omni/api/client"
	"github.com/omni-run/omni/pipeline"
	"github.com/omni-run/omni/pipeline/config"
)

// benchCommand groups the commands that measure.
func benchCommand(env *environment) *cli.Command {
	serve := benchServeCommand(env)
	serve.OnUsageError = onUsageError
	serve.HelpName = "omni-run bench serve"
	serve.CustomHelpTemplate = strings.Replace(commandHelpText(serve), "omni-run serve", "omni-run bench serve", 1)
	return &cli.Command{
		Name:            "bench",
		Usage:           "measure a server under load",
		UsageText:       "omni-run bench serve [flags]",
		Description:     "Commands (omni-run bench COMMAND --help says more):\n" + strings.TrimSuffix(row(serve.Name, serve.Usage), "\n"),
		HideHelpCommand: true,
		Subcommands:     []*cli.Command{serve},
		Action: func(c *cli.Context) error {
			if c.NArg() > 0 {
				return usagef("bench: unknown command %q; want serve", c.Args().First())
			}
			fmt.Fprint(env.stdout, c.Command.CustomHelpTemplate)
			return nil
		},
	}
}

// benchServeCommand sends requests to a server and reports the times of the answers.
func benchServeCommand(env *environment) *cli.Command {
	return &cli.Command{
		Name:      "serve",
		Usage:     "send requests to a server and report the times of its answers",
		UsageText: "omni-run bench serve [--url URL] --prompt TEXT | --prompts-file FILE [--requests N] [--concurrency N | --rate X] [flags]",
		Description: `Every request is a streamed chat completion. With --concurrency so many requests are always under way, and the next is
sent when one has ended (closed loop); with --rate requests are sent at random moments, so many a second on average,
whether those before have ended or not (open loop), which is how users come. Prompts are taken in turn; the objects of a
prompts file may set what they set for omni-run itself.

  TTFT         time to the first text          RTF    time of a request by the duration of its speech
  TPOT         time per token after the first  E2E    time of a request from its sending to its last event
  first audio  time to the first speech        queue, compute, transfer: of each stage, as the server reports

Examples:
  omni-run bench serve --prompt "Why is the sky blue?" --requests 200 --concurrency 16
  omni-run bench serve --prompts-file prompts.txt --rate 4 --requests 500 --seed 1 --format json > load.json
  omni-run bench serve --prompt "Hi" --requests 50 --profile

The report says mean, p50, p90, p99 and the most of each, and draws a histogram; --format json has the same for programs.
The exit code is 1 if any request failed.`,
		Flags: append(benchClientFlags(), []cli.Flag{
			&cli.StringFlag{Name: "model", Usage: "`NAME` of the model; default: the one that is served"},
			&cli.StringSliceFlag{Name: "prompt", Usage: "`TEXT` what to say; give it again for more"},
			&cli.StringFlag{Name: "prompts-file", Usage: "`FILE` prompts as for omni-run itself: one a line, or JSON objects; - is standard input"},
			&cli.IntFlag{Name: "requests", Value: 100, Usage: "`N` how many requests to send (100)"},
			&cli.IntFlag{Name: "warmup", Value: 1, Usage: "`N` requests before them that do not count (1)"},
			&cli.IntFlag{Name: "concurrency", Value: 1, Usage: "`N` requests that are under way at once (1)"},
			&cli.Float64Flag{Name: "rate", Usage: "`X` requests a second, in place of --concurrency"},
			&cli.IntFlag{Name: "max-tokens", Usage: "`N` end each text after so many tokens"},
			&cli.StringFlag{Name: "modalities", Usage: "`LIST` what to ask for: text,audio; default: all that the model makes"},
			&cli.StringFlag{Name: "speech-mode", Usage: "`MODE` of the speech: full or stream; default: the server's"},
			&cli.Int64Flag{Name: "seed", Usage: "`N` makes the moments of --rate and the answers repeatable"},
			&cli.BoolFlag{Name: "profile", Usage: "record a profile session meanwhile; the server must have been started with --profile-dir; the key is OMNI_PROFILE_API_KEY, if that is set"},
			&cli.StringFlag{Name: "format", Value: "text", Usage: "`FORMAT` of the report: text (the default) or json"},
		}...),
		Action: func(c *cli.Context) error { return benchServe(c, env) },
	}
}

// benchClientFlags name the server. The key is that of requests; profile control may have one of its own.
func benchClientFlags() []cli.Flag {
	return []cli.Flag{
		urlFlag(),
		&cli.StringFlag{Name: "api-key", Usage: "`KEY` of the server; default: OMNI_API_KEY"},
	}
}

// load is what to send, and how.
type load struct {
	server      *client.Client
	control     *profileClient
	chats       []client.Chat // taken in turn
	requests    int
	warmup      int
	concurrency int
	rate        float64 // 0 for a closed loop
	seed        int64
	profile     bool
	format      string
}

// readLoad reads the flags of bench serve.
func readLoad(c *cli.Context, env *environment) (*load, error) {
	control, err := newProfileClient(c, env)
	if err != nil {
		return nil, err
	}
	key := c.String("api-key")
	if key == "" {
		key = env.getenv("OMNI_API_KEY")
	}
	if own := env.getenv("OMNI_PROFILE_API_KEY"); own != "" {
		control.key = own
	}
	l := &load{
		server: &client.Client{URL: control.base.String(), Key: key}, control: control,
		requests: c.Int("requests"), warmup: c.Int("warmup"), concurrency: c.Int("concurrency"), rate: c.Float64("rate"),
		seed: c.Int64("seed"), profile: c.Bool("profile"), format: c.String("format"),
	}
	switch {
	case l.requests < 1:
		return nil, usagef("--requests is %d, want 1 or more", l.requests)
	case l.warmup < 0:
		return nil, usagef("--warmup is %d, want 0 or more", l.warmup)
	case l.concurrency < 1:
		return nil, usagef("--concurrency is %d, want 1 or more", l.concurrency)
	case c.IsSet("rate") && !(l.rate > 0 && l.rate <= math.MaxInt32):
		return nil, usagef("--rate is %v, want more than 0", l.rate)
	case c.IsSet("rate") && c.IsSet("concurrency"):
		return nil, usagef("--rate and --concurrency are two ways to load a server, want one of them")
	case l.format != "text" && l.format != "json":
		return nil, usagef("--format is %q, want text or json", l.format)
	}
	defaults, err := requestDefaults(c)
	if err != nil {
		return nil, &usageError{err}
	}
	if mode := c.String("speech-mode"); mode != "" {
		if err := config.CheckMode(mode); err != nil {
			return nil, &usageError{named("--speech-mode", err)}
		}
		defaults.Speech.Mode = mode
	}
	requests, err := readPrompts(promptSources{
		texts: c.StringSlice("prompt"), file: c.String("prompts-file"), args: c.Args().Slice(), stdin: env.stdin,
	}, defaults)
	if err != nil {
		return nil, err
	}
	for _, request := range requests {
		chat, err := chatOf(c.String("model"), request)
		if err != nil {
			return nil, err
		}
		l.chats = append(l.chats, chat)
	}
	return l, nil
}

// chatOf is a prompt as a request to a server. Its id stays behind: a prompt may be sent many times.
func chatOf(model string, r pipeline.Request) (client.Chat, error) {
	chat := client.Chat{
		Model: model, Modalities: r.Modalities, MaxTokens: r.MaxTokens, Seed: r.Seed, Audio: &client.Audio{Voice: r.Speaker, Format: "pcm16"},
		Speech: client.Speech{
			Mode: r.Speech.Mode, InitialChunk: r.Speech.InitialChunk, Chunk: r.Speech.Chunk, RightContext: r.Speech.RightContext,
		},
	}
	if r.System != "" {
		chat.Messages = append(chat.Messages, client.Message{Role: "system", Content: r.System})
	}
	for _, m := range r.Messages {
		chat.Messages = append(chat.Messages, client.Message{Role: m.Role, Content: m.Text})
	}
	if r.Prompt != "" {
		chat.Messages = append(chat.Messages, client.Message{Role: "user", Content: r.Prompt})
	}
	if len(r.Sampling) == 0 {
		return chat, nil
	}
	var err error
	chat.Sampling, err = json.Marshal(r.Sampling)
	return chat, err
}

// benchServe loads a server and prints what it measured.
func benchServe(c *cli.Context, env *environment) error {
	l, err := readLoad(c, env)
	if err != nil {
		return err
	}
	if err := l.warm(c.Context); err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	var session profileAnswer
	if l.profile {
		if err := l.control.call(c.Context, http.MethodPost, nil, &session, "start_profile"); err != nil {
			return fmt.Errorf("bench: start profile: %w", err)
		}
	}
	began := time.Now()
	samples := l.run(c.Context)
	report := l.summarise(samples, time.Since(began))
	var faults []error
	if l.profile {
		report.Profile = session.ID
		// Whoever interrupts the load does not want the server to record on.
		stop := map[string]any{"session": session.Session}
		err := l.control.call(context.WithoutCancel(c.Context), http.MethodPost, stop, &session, "stop_profile")
		if err == nil && session.Error != nil {
			err = errors.New(session.Error.Message)
		}
		faults = append(faults, named("bench: stop profile", err))
	}
	if l.format == "json" {
		err = printJSON(env.stdout, report)
	} else {
		err = report.print(env.stdout)
	}
	if l.format != "json" && report.Profile != "" {
		fmt.Fprintf(env.stdout, "\nprofile: omni-run profile fetch --url %s --session %s\n", l.control.base, report.Profile)
	}
	faults = append(faults, err)
	if report.Failed > 0 {
		faults = append(faults, fmt.Errorf("bench: %d of %d requests failed, the first with: %s", report.Failed, l.requests, report.FirstError))
	}
	return errors.Join(faults...)
}
