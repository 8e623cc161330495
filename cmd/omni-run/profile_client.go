package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"github.com/omni-run/omni/pipeline"
)

// profileClient talks to the profile routes of a server.
type profileClient struct {
	base *url.URL
	key  string
}

// clientFlags are those of every command that talks to a server.
func clientFlags() []cli.Flag {
	return []cli.Flag{
		urlFlag(),
		&cli.StringFlag{Name: "api-key", Usage: "`KEY` of the server; default: OMNI_PROFILE_API_KEY, else OMNI_API_KEY"},
	}
}

func urlFlag() cli.Flag {
	return &cli.StringFlag{Name: "url", Value: "http://127.0.0.1:8000", Usage: "`URL` of the server (http://127.0.0.1:8000)"}
}

func newProfileClient(c *cli.Context, env *environment) (*profileClient, error) {
	base, err := url.Parse(c.String("url"))
	if err != nil || base.Host == "" || base.Scheme != "http" && base.Scheme != "https" {
		return nil, usagef("--url is %q, want something like http://127.0.0.1:8000", c.String("url"))
	}
	client := &profileClient{base: base, key: c.String("api-key")}
	for _, name := range []string{"OMNI_PROFILE_API_KEY", "OMNI_API_KEY"} {
		if client.key == "" {
			client.key = env.getenv(name)
		}
	}
	return client, nil
}

// profileAnswer is what the routes that control sessions answer.
type profileAnswer struct {
	Status string `json:"status"`
	pipeline.ProfileReport
	Error *struct {
		Message string `json:"message"`
	} `json:"error"`
}

// send sends a request and returns the response if its status is below 300. The caller closes the body.
func (p *profileClient) send(ctx context.Context, method string, body any, parts ...string) (*http.Response, error) {
	target := p.base.JoinPath(parts...)
	var reader io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		reader = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(ctx, method, target.String(), reader)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	if p.key != "" {
		request.Header.Set("Authorization", "Bearer "+p.key)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, fmt.Errorf("the server at %s cannot be reached: %w", p.base, errors.Unwrap(err))
	}
	if response.StatusCode < http.StatusMultipleChoices {
		return response, nil
	}
	defer response.Body.Close() //nolint:errcheck // it was only read
	return nil, p.refusal(response)
}

// refusal is the error of an answer that is none.
func (p *profileClient) refusal(response *http.Response) error {
	var answer profileAnswer
	kind, _, _ := mime.ParseMediaType(response.Header.Get("Content-Type"))
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil || kind != "application/json" || answer.Error == nil {
		return fmt.Errorf("%s answered %s: is it an omni server?", p.base, response.Status)
	}
	switch response.StatusCode {
	case http.StatusNotFound:
		if answer.Session == "" && strings.Contains(answer.Error.Message, "no such route") {
			return fmt.Errorf("the server at %s cannot record profiles: start it with --profile-dir DIR", p.base)
		}
	case http.StatusUnauthorized:
		return fmt.Errorf("%s (set OMNI_PROFILE_API_KEY, or --api-key)", answer.Error.Message)
	}
	return errors.New(answer.Error.Message)
}

// call sends a request and decodes the answer into one of the routes' types.
func (p *profileClient) call(ctx context.Context, method string, body, into any, parts ...string) error {
	response, err := p.send(ctx, method, body, parts...)
	if err != nil {
		return err
	}
	defer response.Body.Close() //nolint:errcheck // it was only read
	if err := json.NewDecoder(response.Body).Decode(into); err != nil {
		return fmt.Errorf("answer of %s: %w", p.base, err)
	}
	return nil
}

// printWorkers writes how far each worker of a session is.
func printWorkers(w io.Writer, report *pipeline.ProfileReport) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "worker\tstate\tsteps\tevents\tdropped\tsize\t")
	for _, worker := range report.Workers {
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%d\t%s\t%s\n", worker.Worker, worker.State, worker.Steps, worker.Events, worker.DroppedTotal(), size(worker.Bytes), worker.Error)
	}
	return t.Flush()
}

// report says on standard error how a session stands, and is an error if a worker failed.
func (a *profileAnswer) report(stderr io.Writer) error {
	if err := printWorkers(stderr, &a.ProfileReport); err != nil {
		return err
	}
	if a.Error != nil {
		return errors.New(a.Error.Message)
	}
	return nil
}

// stagesFlag chooses stages.
func stagesFlag() cli.Flag {
	return &cli.StringFlag{Name: "stages", Usage: "`LIST` of stages, such as 0,2; default: all"}
}

// parseStages reads a list such as 0,2.
func parseStages(text string) ([]int, error) {
	var ids []int
	for part := range strings.SplitSeq(text, ",") {
		id, err := strconv.Atoi(strings.TrimSpace(part))
		if err != nil || id < 0 {
			return nil, fmt.Errorf("%q is no stage id, want a list such as 0,2", part)
		}
		ids = append(ids, id)
	}
	return ids, nil
}
