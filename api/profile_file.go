package api

import (
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"path"

	"github.com/labstack/echo/v4"

	"github.com/omni-run/omni/profiler/archive"
)

// profileTypes are the content types of a session's files.
var profileTypes = map[string]string{
	".gz":    "application/gzip",
	".json":  "application/json",
	".jsonl": "application/x-ndjson",
	".txt":   "text/plain; charset=utf-8",
	".html":  "text/html; charset=utf-8",
}

// profilePolicy is for the pages that a session leaves: they are made of what models and requests are called, so they may
// run their own script and nothing else.
const profilePolicy = "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:"

// profileFile sends one file of a session, or a range of it.
func (s *Server) profileFile(c echo.Context) error {
	session, err := s.session(c)
	if err != nil {
		return err
	}
	name, err := url.PathUnescape(c.Param("file"))
	if err != nil {
		return fail(codeNotFound, "%q is no name of a file", c.Param("file"))
	}
	return s.sendFile(c, session, name)
}

// sendFile sends a file. Those that every session has are saved under a name that says which it is.
func (s *Server) sendFile(c echo.Context, session *archive.Session, name string) error {
	file, about, err := session.Open(name)
	if errors.Is(err, archive.ErrNoFile) {
		return &failure{code: codeNotFound, err: err}
	}
	if err != nil {
		return err
	}
	defer file.Close() //nolint:errcheck // it was only read
	info, err := file.Stat()
	if err != nil {
		return err
	}
	header := c.Response().Header()
	kind, disposition, as := profileTypes[path.Ext(name)], "attachment", name
	if about.Kind == archive.KindMade {
		as = session.ID() + "." + name
	}
	switch {
	case kind == "":
		kind = "application/octet-stream"
	case path.Ext(name) == ".html":
		header.Set(echo.HeaderContentSecurityPolicy, profilePolicy)
		disposition = "inline"
	}
	header.Set(echo.HeaderContentType, kind)
	header.Set(echo.HeaderContentDisposition, mime.FormatMediaType(disposition, map[string]string{"filename": as}))
	header.Set("Cache-Control", "private, no-cache")
	header.Set("ETag", fmt.Sprintf(`"%x-%x"`, info.ModTime().UnixNano(), info.Size()))
	return fromLibrary(c, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, name, info.ModTime(), file)
	}))
}
