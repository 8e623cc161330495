package api_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/omni-run/omni/pipeline"
)

func TestStagesSayWhatTheyHaveToDo(t *testing.T) {
	answer := newServer(t, nil).do("GET", "/stages", "")
	require.Equal(t, 200, answer.Code)
	var got struct {
		Model    string
		Version  string
		TimeNS   int64   `json:"time_ns"`
		UptimeS  float64 `json:"uptime_s"`
		Profiler bool
		Draining bool
		Stages   []pipeline.StageLoad
	}
	require.NoError(t, json.Unmarshal(answer.Body.Bytes(), &got))
	require.Equal(t, "tiny v1.2.3", got.Model+" "+got.Version)
	require.False(t, got.Profiler)
	require.Positive(t, got.TimeNS)
	require.Len(t, got.Stages, 3)
	require.Equal(t, "talker", got.Stages[1].Name)
	require.Equal(t, 3, got.Stages[1].Sequences)
	require.EqualValues(t, 25, got.Stages[1].Stepped)
}

func TestPageIsAtTheRoot(t *testing.T) {
	s := newServer(t, nil)
	require.Contains(t, s.do("GET", "/", "").Body.String(), "<title>omni</title>")
	require.Equal(t, 200, s.do("GET", "/page/main.js", "").Code)
	require.Equal(t, 404, s.do("GET", "/page/../server.go", "").Code)
}
