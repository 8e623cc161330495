// Package page holds the web page of the server: what its stages do, control and views of profile sessions, and a prompt to
// try. It is plain HTML, CSS and JavaScript modules below assets, served as they are, and the library that draws charts,
// which package uplot has.
//
// The page asks the server's own routes for everything that it shows, and nobody else: [Policy] lets it.
package page

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/omni-run/omni/profiler/render/uplot"
)

//go:embed assets
var files embed.FS

// Policy is the Content-Security-Policy of the page: everything comes from the server itself. Audio that was received is
// played from memory.
const Policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; media-src 'self' blob:; " +
	"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// types are the content types of assets.
var types = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
}

// asset is a file as it is sent.
type asset struct {
	text []byte
	kind string
	etag string
}

func newAsset(name string, text []byte) asset {
	sum := sha256.Sum256(text)
	return asset{text: text, kind: types[path.Ext(name)], etag: `"` + hex.EncodeToString(sum[:8]) + `"`}
}

// Handler serves the page at / and what it is made of below /page/.
func Handler() http.Handler {
	assets := map[string]asset{}
	err := fs.WalkDir(files, "assets", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || types[path.Ext(name)] == "" {
			return err
		}
		text, err := files.ReadFile(name)
		if err != nil {
			return err
		}
		url := "/page/" + strings.TrimPrefix(name, "assets/")
		if name == "assets/index.html" {
			url = "/"
		}
		assets[url] = newAsset(name, text)
		return nil
	})
	if err != nil {
		panic(err) // the files are in the program
	}
	assets["/page/vendor/uPlot.iife.min.js"] = newAsset(".js", []byte(uplot.Script))
	assets["/page/vendor/uPlot.min.css"] = newAsset(".css", []byte(uplot.Style))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a, ok := assets[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		header := w.Header()
		header.Set("Content-Type", a.kind)
		header.Set("Content-Security-Policy", Policy)
		header.Set("X-Content-Type-Options", "nosniff")
		header.Set("Referrer-Policy", "no-referrer")
		header.Set("Cache-Control", "no-cache") // a server of another version has other files: ask, and get 304
		header.Set("ETag", a.etag)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(a.text))
	})
}
