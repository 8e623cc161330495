package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/omni-run/omni/api/client"
	"github.com/omni-run/omni/pipeline"
	"github.com/omni-run/omni/pipeline/pipelinetest"
)

// server is a running omni-run serve whose talker stands at the gate at some point.
type server struct {
	*process
	client   *client.Client
	gate     *pipelinetest.Gate
	profiles string
	answers  chan answered
}

// inARequest is the point at which a request has given text and no sound.
func inARequest(gate *pipelinetest.Gate) pipelinetest.Fault {
	return gate.Fault(pipelinetest.AtDecode, 2)
}

// answered is what became of a request.
type answered struct {
	text string
	err  error
}

func startServer(t *testing.T, at func(*pipelinetest.Gate) pipelinetest.Fault, limits *pipeline.Limits, args ...string) *server {
	t.Helper()
	s := &server{gate: pipelinetest.NewGate(t), profiles: t.TempDir(), answers: make(chan answered, 1)}
	scripts := map[string]pipelinetest.Script{pipelinetest.Talker: {Faults: []pipelinetest.Fault{at(s.gate)}}}
	args = append([]string{"serve", "--model", "none", "--port", "0", "--profile-dir", s.profiles}, args...)
	s.process = newCommand(t, behaviour{Scripts: scripts, Limits: limits}, args...)
	s.start()
	s.client = &client.Client{URL: s.address()}
	return s
}

// ask sends a request and returns when it stands at the gate.
func (s *server) ask() {
	s.t.Helper()
	go func() {
		var a answered
		for piece, err := range s.client.Stream(context.Background(), client.Chat{
			Messages: []client.Message{{Role: "user", Content: "Hello"}}, Modalities: []string{"text", "audio"}, MaxTokens: 12,
		}) {
			a.text, a.err = a.text+piece.Text, err
		}
		s.answers <- a
	}()
	s.gate.Reached()
}

// record starts a profile session.
func (s *server) record() {
	s.t.Helper()
	_, err := s.client.Post(s.t.Context(), "/start_profile", struct{}{})
	require.NoError(s.t, err)
}

// pid is the process of a stage.
func (s *server) pid(stage int) int {
	s.t.Helper()
	answer, err := http.Get(s.client.URL + "/stages")
	require.NoError(s.t, err)
	defer answer.Body.Close()
	var state struct{ Stages []pipeline.StageLoad }
	require.NoError(s.t, json.NewDecoder(answer.Body).Decode(&state))
	require.NotZero(s.t, state.Stages[stage].PID)
	return state.Stages[stage].PID
}

// A server that is told to end takes no more requests, ends those that run, completes the files of profiles, and leaves
// nothing running.
func TestServerStopsCleanlyAtASignal(t *testing.T) {
	for _, test := range []struct {
		name           string
		asked, profile bool
	}{
		{"idle", false, false},
		{"with a request", true, false},
		{"with a profile", false, true},
		{"with a request that is profiled", true, true},
	} {
		for _, signal := range stopSignals {
			t.Run(fmt.Sprintf("%s, %v", test.name, signal), func(t *testing.T) {
				s := startServer(t, inARequest, nil)
				require.Len(t, s.workers(), 3)
				if test.profile {
					s.record()
				}
				if test.asked {
					s.ask()
				}
				s.interrupt(signal)
				s.await(`"msg":"server ends"`)
				s.gate.Open()
				if test.asked {
					require.Equal(t, answered{text: pipelinetest.Expect("Hello", 12).Text}, <-s.answers)
				}
				got := s.end()
				require.Zero(t, got.code, got.stderr)
				require.Contains(t, got.stderr, `"msg":"served"`)
				wholeProfile(t, s.profiles, test.profile)
			})
		}
	}
}

// A request that outlives --drain-timeout is cut off, which its caller and the log are told.
func TestServerCutsOffWhatDoesNotEnd(t *testing.T) {
	for _, signal := range stopSignals {
		t.Run(signal.String(), func(t *testing.T) {
			s := startServer(t, inARequest, nil, "--drain-timeout", "1ms")
			s.record()
			s.ask()
			s.interrupt(signal)
			require.Error(t, (<-s.answers).err)
			s.gate.Open()
			got := s.end()
			require.Equal(t, exitInterrupted, got.code, got.stderr)
			require.Contains(t, got.stderr, "omni-run: interrupted: serve: requests still ran 1ms after the server was told to end")
			wholeProfile(t, s.profiles, true)
		})
	}
}

func TestTheSecondSignalStopsAServerAtOnce(t *testing.T) {
	patient := &pipeline.Limits{Drain: time.Hour, Terminate: time.Hour, ProfileDrain: time.Hour}
	for _, signal := range stopSignals {
		t.Run(signal.String(), func(t *testing.T) {
			s := startServer(t, inARequest, patient, "--drain-timeout", "1h")
			s.record()
			s.ask()
			s.interrupt(signal)
			s.await(`"msg":"server ends"`)
			s.interrupt(signal)
			require.Error(t, (<-s.answers).err)
			got := s.end()
			require.Equal(t, exitInterrupted, got.code, got.stderr)
			require.Contains(t, got.stderr, "stopped at once")
			require.Empty(t, traces(t, s.profiles))
		})
	}
}

// The signal comes while the server loads, or waits before it starts a worker again.
func TestSignalToAServerWithoutAllItsWorkers(t *testing.T) {
	for _, signal := range stopSignals {
		t.Run("loading, "+signal.String(), func(t *testing.T) {
			gate := pipelinetest.NewGate(t)
			p := startCommand(t, map[string]pipelinetest.Script{pipelinetest.Talker: gate.Script(pipelinetest.AtLoad, 1)}, "serve", "--model", "none", "--port", "0")
			gate.Reached()
			p.interrupt(signal)
			got := p.end()
			require.Equal(t, exitInterrupted, got.code, got.stderr)
			require.Contains(t, got.stderr, "omni-run: interrupted")
			require.Empty(t, got.stdout, "it never had an address to use")
		})
		t.Run("before a restart, "+signal.String(), func(t *testing.T) {
			s := startServer(t, inARequest, &pipeline.Limits{Backoff: time.Hour, BackoffMax: time.Hour})
			require.NoError(t, syscall.Kill(s.pid(1), syscall.SIGKILL))
			s.await(`"msg":"worker is down"`)
			s.interrupt(signal)
			got := s.end()
			require.Zero(t, got.code, got.stderr)
		})
	}
}
