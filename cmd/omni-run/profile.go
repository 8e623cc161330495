package main

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/omni-run/omni/pipeline"
)

// reportProfile lists what a profile session wrote and says how to open it, once. report may be nil.
func (r *run) reportProfile(report *pipeline.ProfileReport, err error) *profileOutput {
	out := &profileOutput{Files: []pipeline.ProfileFile{}}
	if err != nil {
		out.Error = err.Error()
	}
	if report == nil {
		return out
	}
	out.Session, out.Trigger, out.Pictures = report.Session, report.Trigger, report.Pictures
	if len(report.Files) > 0 {
		out.Files = report.Files
	}
	if r.told != report.Session {
		r.tellProfile(report)
	}
	r.told = report.Session
	return out
}

// tellProfile lists what a session has left for people.
func (r *run) tellProfile(report *pipeline.ProfileReport) {
	if report.Trigger != "" {
		r.progress.say("flight recorder: %s", report.Trigger)
	}
	if len(report.Files) > 0 {
		r.progress.say("profile %s, in %s:", report.Session, filepath.Dir(report.Files[0].Path))
	}
	traces, tables := false, false
	for _, file := range report.Files {
		traces, tables = traces || file.Kind == "trace", tables || file.Kind == "table"
		lost := ""
		if file.Dropped > 0 {
			lost = ", some events were dropped"
		}
		r.progress.say("  stage %d  %-6s %8s  %s%s", file.Stage, file.Kind, size(file.Bytes), filepath.Base(file.Path), lost)
	}
	if traces {
		r.progress.say("  open the traces in https://ui.perfetto.dev (one, or all at once)")
	}
	if tables {
		r.progress.say("  the tables are text: less -S FILE")
	}
	for _, worker := range report.Workers {
		if worker.Error != "" {
			r.progress.say("  stage %d has no complete profile: %s", worker.Stage, worker.Error)
		}
		for _, path := range worker.Missing {
			r.progress.say("  stage %d has not written %s", worker.Stage, path)
		}
	}
	r.reportPictures(report.Pictures)
}

// incomplete is the error of a session whose files are not all there, nil for a complete one and for none: whoever asked
// for a profile must be able to rely on the exit code. What flight recorders lack is reported and no more.
func incomplete(report *pipeline.ProfileReport) error {
	if report == nil {
		return nil
	}
	var stages []string
	for _, worker := range report.Workers {
		if worker.Error != "" || len(worker.Missing) > 0 {
			stages = append(stages, strconv.Itoa(worker.Stage))
		}
	}
	if len(stages) == 0 {
		return nil
	}
	return fmt.Errorf("the profile is not complete: what stage %s had to write is missing or cut short", strings.Join(stages, ", "))
}

// reportPictures lists what was made of a session's files.
func (r *run) reportPictures(pictures *pipeline.ProfilePictures) {
	if pictures == nil {
		return
	}
	for _, file := range pictures.Files {
		r.progress.say("  %-14s %8s  %s", file.Kind, size(file.Bytes), file.Path)
	}
	if pictures.Error != "" {
		r.progress.say("  the pictures could not be made: %s", pictures.Error)
	}
}
