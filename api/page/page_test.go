package page_test

import (
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/omni-run/omni/api/page"
)

func get(path string, headers ...string) *httptest.ResponseRecorder {
	request := httptest.NewRequest(http.MethodGet, path, nil)
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	answer := httptest.NewRecorder()
	page.Handler().ServeHTTP(answer, request)
	return answer
}

func TestPageComesWithItsPolicyAndIsCached(t *testing.T) {
	answer := get("/")
	require.Equal(t, http.StatusOK, answer.Code)
	require.Equal(t, "text/html; charset=utf-8", answer.Header().Get("Content-Type"))
	require.Equal(t, page.Policy, answer.Header().Get("Content-Security-Policy"))
	require.Contains(t, answer.Body.String(), "<title>omni</title>")
	again := get("/", "If-None-Match", answer.Header().Get("ETag"))
	require.Equal(t, http.StatusNotModified, again.Code)
	require.Empty(t, again.Body.String())
	require.Equal(t, "text/javascript; charset=utf-8", get("/page/main.js").Header().Get("Content-Type"))
}

func TestOnlyAssetsAreServed(t *testing.T) {
	for _, path := range []string{"/page/", "/page/page.go", "/page/../page.go", "/page/vendor/", "/page/vendor/uPlot.LICENSE", "/page/index.html", "/other"} {
		require.Equal(t, http.StatusNotFound, get(path).Code, path)
	}
}

var (
	imported   = regexp.MustCompile(`from '\./([^']+)'`)
	referenced = regexp.MustCompile(`(?:src|href)="([^"#]+)"`)
	address    = regexp.MustCompile(`https?://[^\s'"<>)]+`)
)

// Everything that the page asks for is in the program, and it asks nobody else: without internet it is whole.
func TestPageNeedsNothingElse(t *testing.T) {
	for _, match := range referenced.FindAllStringSubmatch(get("/").Body.String(), -1) {
		if match[1] != "openapi.json" {
			require.Equal(t, http.StatusOK, get("/"+match[1]).Code, match[1])
		}
	}
	known := map[string]bool{
		"https://ui.perfetto.dev":    true, // a window that is opened on a click
		"http://www.w3.org/2000/svg": true, // a name
	}
	require.NoError(t, filepath.WalkDir("assets", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		for _, found := range address.FindAllString(string(text), -1) {
			require.True(t, known[found], "%s names %s", path, found)
		}
		for _, match := range imported.FindAllStringSubmatch(string(text), -1) {
			require.Equal(t, http.StatusOK, get("/page/"+match[1]).Code, "%s imports %s", path, match[1])
		}
		if filepath.Ext(path) == ".html" {
			require.NotRegexp(t, `(?i)<script>|<style|\son[a-z]+=|\sstyle=`, string(text), "the policy refuses what stands in the page itself")
		}
		return nil
	}))
}
