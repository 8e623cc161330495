package api

import (
	"errors"
	"io/fs"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/labstack/echo/v4"

	"github.com/omni-run/omni/pipeline"
	"github.com/omni-run/omni/profiler"
	"github.com/omni-run/omni/profiler/archive"
)

// profileList is the answer of /profiles.
type profileList struct {
	Profiles []profileEntry `json:"profiles"` // the newest first
}

// profileEntry is a session in a profileList.
type profileEntry struct {
	// ID names the session uniquely in the folder, Name in the run of the server that made it.
	ID   string `json:"id"`
	Name string `json:"name"`
	// StartedNS is when it was started, in Unix nanoseconds.
	StartedNS int64 `json:"started_ns"`
	// State is the least advanced of the workers': recording, writing, done; failed if one failed.
	State profiler.State `json:"state"`
	Bytes int64          `json:"bytes"`
	// Workers are those with a trace.
	Workers []string `json:"workers"`
}

// profileDetail is the answer of /profiles/{session}.
type profileDetail struct {
	profileEntry
	Files []archive.File `json:"files"`
	// Reports are what the workers say, while the server knows the session.
	Reports []profiler.Report `json:"reports,omitempty"`
}

// listProfiles lists the sessions in the folder.
func (s *Server) listProfiles(c echo.Context) error {
	sessions, err := archive.Sessions(s.cfg.Profiler.ProfileDir())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	report, err := s.cfg.Profiler.ProfileStatus()
	if err != nil {
		return err
	}
	if session := unfiled(report, sessions); session != nil {
		sessions = append(sessions, *session)
	}
	list := profileList{Profiles: []profileEntry{}}
	for _, session := range slices.Backward(sessions) {
		detail, err := describeProfile(&session, report)
		if err != nil {
			return err
		}
		list.Profiles = append(list.Profiles, detail.profileEntry)
	}
	return c.JSON(http.StatusOK, list)
}

// showProfile describes a session.
func (s *Server) showProfile(c echo.Context) error {
	_, detail, err := s.profile(c)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, detail)
}

// deleteProfile deletes the files of a session that nobody writes any more.
func (s *Server) deleteProfile(c echo.Context) error {
	session, detail, err := s.profile(c)
	if err != nil {
		return err
	}
	if !detail.State.Ended() {
		return fail(codeBusy, "session %s is %s: stop it and let it end before deleting it", session.Name, detail.State)
	}
	if err := session.Remove(); err != nil {
		return err
	}
	return c.NoContent(http.StatusNoContent)
}

// unfiled is the session of a report if that has not ended and has no file yet, so that none is in the list.
func unfiled(report *pipeline.ProfileReport, sessions []archive.Session) *archive.Session {
	if report.Session == "" || report.Complete || slices.ContainsFunc(sessions, func(s archive.Session) bool { return s.ID() == report.ID }) {
		return nil
	}
	session := &archive.Session{Name: report.Session}
	stamp := strings.TrimPrefix(report.ID, report.Session+".")
	if n, err := strconv.ParseInt(stamp, 10, 64); err == nil { // it is made of one
		session.StampNS = n
	}
	return session
}

// session finds the session that the path names.
func (s *Server) session(c echo.Context) (*archive.Session, error) {
	session, err := archive.Lookup(s.cfg.Profiler.ProfileDir(), c.Param("session"))
	if errors.Is(err, archive.ErrNoSession) {
		return nil, &failure{code: codeNotFound, err: err}
	}
	return session, err
}

// profile finds the session that the path names, and what is to be said of it.
func (s *Server) profile(c echo.Context) (*archive.Session, *profileDetail, error) {
	report, err := s.cfg.Profiler.ProfileStatus()
	if err != nil {
		return nil, nil, err
	}
	which := c.Param("session")
	if session := unfiled(report, nil); session != nil && (which == session.Name || which == session.ID()) {
		// Its name is that of no older one, whether there are files by now or not.
		found, err := archive.Lookup(s.cfg.Profiler.ProfileDir(), session.ID())
		if err == nil {
			session = found
		} else if !errors.Is(err, archive.ErrNoSession) {
			return nil, nil, err
		}
		detail, err := describeProfile(session, report)
		return session, detail, err
	}
	session, err := s.session(c)
	if err != nil {
		return nil, nil, err
	}
	detail, err := describeProfile(session, report)
	return session, detail, err
}

// describeProfile puts together what the files of a session say, and the report if that is of the same session.
func describeProfile(session *archive.Session, report *pipeline.ProfileReport) (*profileDetail, error) {
	detail := &profileDetail{profileEntry: profileEntry{
		ID: session.ID(), Name: session.Name, StartedNS: session.StampNS, State: profiler.StateDone, Workers: []string{},
	}}
	if session.Dir == "" { // nothing has been written yet
		detail.Files, detail.Reports, detail.State = []archive.File{}, report.Workers, leastAdvanced(report)
		return detail, nil
	}
	var err error
	if detail.Files, err = session.Files(); err != nil {
		return nil, err
	}
	for _, f := range detail.Files {
		detail.Bytes += f.Bytes
		if f.Kind == archive.KindTrace {
			detail.Workers = append(detail.Workers, f.Worker)
		}
	}
	if len(session.Unfinished) > 0 {
		detail.State = profiler.StateFailed // its writer is gone, unless the report knows better
	}
	if report.ID == session.ID() {
		detail.Reports = report.Workers
		detail.State = leastAdvanced(report)
	}
	return detail, nil
}

// leastAdvanced is the state of a whole session.
func leastAdvanced(report *pipeline.ProfileReport) profiler.State {
	order := []profiler.State{profiler.StateArmed, profiler.StateRecording, profiler.StateWriting, profiler.StateFailed, profiler.StateDone}
	least := len(order) - 1
	for _, w := range report.Workers {
		least = min(least, slices.Index(order, w.State))
	}
	if state := order[max(0, least)]; state != profiler.StateDone || report.Complete {
		return state
	}
	return profiler.StateWriting // what is made of the workers' files
}
