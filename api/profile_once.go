package api

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/omni-run/omni/pipeline"
	"github.com/omni-run/omni/profiler"
	"github.com/omni-run/omni/profiler/archive"
	"github.com/omni-run/omni/profiler/background"
	"github.com/omni-run/omni/profiler/picture"
)

// defaultProfileSeconds is how long GET /profile records if that is not said and not too long for the server.
const defaultProfileSeconds = 5

// profileOnce records for a while and answers with the merged trace. A client that goes away ends the recording.
func (s *Server) profileOnce(c echo.Context) error {
	options, duration, err := readProfileQuery(c.QueryParams(), s.cfg.Limits.ProfileSeconds)
	if err != nil {
		return err
	}
	ctx := c.Request().Context()
	started, err := s.begin(ctx, options)
	if err != nil {
		return err
	}
	timer := time.NewTimer(duration)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	stop := pipeline.ProfileStopOptions{Session: started.Session, Wait: ctx.Err() == nil}
	report, err := s.cfg.Profiler.StopProfileWith(context.WithoutCancel(ctx), stop)
	if err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var faults []error
	for _, w := range report.Workers {
		if w.State == profiler.StateFailed {
			faults = append(faults, fmt.Errorf("%s: %s", w.Worker, w.Error))
		}
	}
	if len(faults) == len(report.Workers) {
		return fail(codeInternal, "no worker has left a trace: %w", errors.Join(faults...))
	}
	if len(faults) > 0 { // as GET has no other place for it
		c.Response().Header().Set("X-Profile-Missing", strings.ReplaceAll(errors.Join(faults...).Error(), "\n", "; "))
	}
	if _, err := s.cfg.Profiler.WaitProfile(ctx, report.Session); err != nil { // for the merged trace
		return err
	}
	return s.sendMerged(c, report.ID)
}

// sendMerged sends the merged trace of a session, which is made if the session did not make it.
func (s *Server) sendMerged(c echo.Context, id string) error {
	dir := s.cfg.Profiler.ProfileDir()
	session, err := archive.Lookup(dir, id)
	if errors.Is(err, archive.ErrNoSession) {
		return fail(codeBusy, "session %s recorded nothing: it ended before the step in which recording was to begin", id)
	}
	if err != nil {
		return err
	}
	if err := s.sendFile(c, session, archive.MergedName); !errors.As(err, new(*failure)) {
		return err
	}
	background.Run(func() { _, err = picture.Make(c.Request().Context(), dir, session.ID()) })
	if err != nil {
		return err
	}
	return s.sendFile(c, session, archive.MergedName)
}

// readProfileQuery reads seconds, at most so many, stages and settings from a query.
func readProfileQuery(query url.Values, most float64) (pipeline.ProfileOptions, time.Duration, error) {
	options, seconds := pipeline.ProfileOptions{}, min(defaultProfileSeconds, most)
	config := profiler.Default()
	for _, given := range slices.Sorted(maps.Keys(query)) {
		if len(query[given]) != 1 {
			return options, 0, invalid(given, "%s comes twice", given)
		}
		text := query.Get(given)
		switch given {
		case "seconds":
			n, err := strconv.ParseFloat(text, 64)
			if err != nil || !(n > 0 && n <= most) {
				return options, 0, invalid(given, "seconds: got %q, want more than 0 and at most %v", text, most)
			}
			seconds = n
		case "stages":
			for part := range strings.SplitSeq(text, ",") {
				id, err := strconv.Atoi(part)
				if err != nil {
					return options, 0, invalid(given, "stages: got %q, want numbers with commas between", text)
				}
				options.Stages = append(options.Stages, id)
			}
		case "request_ids":
			ids := requestIDs(strings.Split(text, ","))
			if err := ids.check(); err != nil {
				return options, 0, err
			}
			options.RequestIDs = ids
		default:
			name, err := profileSetting(given)
			if err != nil {
				return options, 0, err
			}
			if err := config.Set(name, text); err != nil {
				return options, 0, &failure{code: codeInvalid, param: given, err: err}
			}
			if options.Settings == nil {
				options.Settings = map[string]any{}
			}
			options.Settings[name] = config.ToMap()[name]
			if name == "activities" {
				options.Settings[name] = activities(options.Settings[name])
			}
		}
	}
	return options, time.Duration(math.Ceil(seconds * float64(time.Second))), checkStages(options.Stages)
}
