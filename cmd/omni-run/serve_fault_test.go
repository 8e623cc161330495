package main

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/omni-run/omni/pipeline/pipelinetest"
)

// health asks whether the server is ready.
func (s *server) health() (status int, body string) {
	s.t.Helper()
	answer, err := http.Get(s.client.URL + "/health")
	require.NoError(s.t, err)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	require.NoError(s.t, err)
	return answer.StatusCode, string(text)
}

// The server says that it is ready when every worker is: not when one has died, nor while the next one loads.
func TestHealthOfAServerWhoseWorkerDies(t *testing.T) {
	killed := filepath.Join(t.TempDir(), "killed")
	loading := func(gate *pipelinetest.Gate) pipelinetest.Fault {
		fault := gate.Fault(pipelinetest.AtLoad, 1)
		fault.After = killed
		return fault
	}
	s := startServer(t, loading, nil)
	status, body := s.health()
	require.Equal(t, http.StatusOK, status, body)
	require.NoError(t, os.WriteFile(killed, nil, 0o600))
	require.NoError(t, syscall.Kill(s.pid(1), syscall.SIGKILL))
	s.await(`"msg":"worker is down"`)
	status, body = s.health()
	require.Equal(t, http.StatusServiceUnavailable, status, body)
	s.gate.Reached()
	status, body = s.health()
	require.Equal(t, http.StatusServiceUnavailable, status, body)
	require.Contains(t, body, `"name":"talker","state":"loading"`)
	s.gate.Open()
	s.await(`"msg":"worker is ready"`)
	await(t, "the server is ready again", func() bool { status, _ := s.health(); return status == http.StatusOK })
	s.interrupt(syscall.SIGTERM)
	require.Zero(t, s.end().code)
}
