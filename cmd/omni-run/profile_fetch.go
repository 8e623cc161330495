package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/omni-run/omni/profiler"
	"github.com/omni-run/omni/profiler/archive"
	"github.com/omni-run/omni/profiler/ledger"
	"github.com/omni-run/omni/profiler/picture"
)

// profileFetchCommand copies the files of a session from a server.
func profileFetchCommand(env *environment) *cli.Command {
	return &cli.Command{
		Name:      "fetch",
		Usage:     "copy the files of a session from a server",
		UsageText: "omni-run profile fetch [--url URL] [--session NAME] [--output DIR] [--merged]",
		Description: `The files land in DIR as they lie in the server's folder, so that the other profile commands can read DIR. Their names go
to standard output.

Examples:
  omni-run profile fetch --output ./profiles && omni-run profile summary ./profiles
  omni-run profile fetch --url http://gpu1:8000 --session s3 --merged --output .`,
		Flags: append([]cli.Flag{
			sessionFlag(),
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Value: "profiles", Usage: "`DIR` to copy to (-o; profiles)"},
			&cli.BoolFlag{Name: "merged", Usage: "only the one trace of all workers, into DIR itself"},
		}, clientFlags()...),
		Action: withArguments(0, "none: the server is named with --url", func(c *cli.Context, _ []string) error {
			return fetchProfile(c, env)
		}),
	}
}

// listedProfile is a session as the server lists and describes it.
type listedProfile struct {
	ID    string         `json:"id"`
	State string         `json:"state"`
	Files []archive.File `json:"files"`
}

func fetchProfile(c *cli.Context, env *environment) error {
	client, err := newProfileClient(c, env)
	if err != nil {
		return err
	}
	which := c.String("session")
	if which == "" {
		var list struct {
			Profiles []listedProfile `json:"profiles"`
		}
		if err := client.call(c.Context, http.MethodGet, nil, &list, "profiles"); err != nil {
			return err
		}
		if len(list.Profiles) == 0 {
			return fmt.Errorf("the server at %s has no sessions: omni-run profile start begins one", client.base)
		}
		which = list.Profiles[0].ID
	}
	profile, err := client.written(c.Context, which)
	if err != nil {
		return err
	}
	if c.Bool("merged") {
		profile.Files = slices.DeleteFunc(profile.Files, func(f archive.File) bool { return f.Name != archive.MergedName })
		if len(profile.Files) == 0 {
			return fmt.Errorf("session %s has no merged trace; without --merged its traces are copied, and omni-run profile merge makes one", profile.ID)
		}
	}
	for _, f := range profile.Files {
		if !f.Complete {
			fmt.Fprintf(env.stderr, "left out: %s is not complete\n", f.Name)
			continue
		}
		path := filepath.Join(c.String("output"), filepath.FromSlash(localName(profile.ID, f)))
		if c.Bool("merged") {
			path = filepath.Join(c.String("output"), profile.ID+"."+archive.MergedName)
		}
		if err := client.copyFile(c.Context, path, "profiles", profile.ID, f.Name); err != nil {
			return err
		}
		fmt.Fprintln(env.stdout, path)
	}
	return nil
}

// written describes a session once nothing of it is being written any more.
func (p *profileClient) written(ctx context.Context, which string) (profile listedProfile, err error) {
	for {
		if err := p.call(ctx, http.MethodGet, nil, &profile, "profiles", which); err != nil || profile.State != string(profiler.StateWriting) {
			return profile, err
		}
		select {
		case <-time.After(writtenPause):
		case <-ctx.Done():
			return profile, context.Cause(ctx)
		}
	}
}

// writtenPause is how often a server is asked whether a session is complete.
const writtenPause = 500 * time.Millisecond

// localName is where a file lies in a profile folder. Of a name that the server gives, only the last part counts.
func localName(id string, f archive.File) string {
	name := filepath.Base(f.Name)
	switch f.Kind {
	case archive.KindMade:
		return filepath.Join(filepath.Base(id), name)
	case archive.KindLedger:
		return filepath.Join(ledger.Folder, name)
	}
	return name
}

// copyFile copies a file whole or not at all.
func (p *profileClient) copyFile(ctx context.Context, path string, parts ...string) error {
	response, err := p.send(ctx, http.MethodGet, nil, parts...)
	if err != nil {
		return err
	}
	return picture.Write(path, func(w io.Writer) error {
		_, err := io.Copy(w, response.Body)
		return cmp.Or(err, response.Body.Close())
	})
}
