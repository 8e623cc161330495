package golden_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/omni-run/omni/pipeline/family/familytest"
	"github.com/omni-run/omni/torch"
)

// speechCheckpoint names a checkpoint to measure on.
const speechCheckpoint = "OMNI_SPEECH_CHECKPOINT"

// TestMeasureStreamedSpeech says how near the speech of mode stream is to that of mode full, by how far a chunk sees
// ahead, and what both cost. The costs are of one thread and count its own time, which a busy machine disturbs least.
func TestMeasureStreamedSpeech(t *testing.T) {
	folder := os.Getenv(speechCheckpoint)
	if folder == "" {
		t.Skipf("%s is not set: want the folder of a checkpoint", speechCheckpoint)
	}
	m := openSpeech(t, folder)
	full := m.speak(t, map[string]any{})
	t.Logf("full: %.2f s of speech, %.2f s of computing for each", m.seconds(full), full.cost.Seconds()/m.seconds(full))
	for _, blocks := range []int{0, 1, 2, 3, 4, 6} {
		params := map[string]any{"mode": "stream", "codec_right_context_frames": blocks * m.blockCodes}
		stream := m.speak(t, params)
		require.Len(t, stream.samples, len(full.samples))
		t.Logf("stream, %d blocks ahead: %.1f dB; first sound after %d codes; %.2f s of computing for each", blocks,
			familytest.Decibels(full.samples, stream.samples), stream.firstAt, stream.cost.Seconds()/m.seconds(stream))
	}
}

// speechEngine is a token2wav engine with codes to say.
type speechEngine struct {
	engine     *torch.Engine
	codes      []int64
	blockCodes int
	rate       int
	sequence   uint64
}

// spoken is what came of a sequence.
type spoken struct {
	samples []float32
	firstAt int // codes that it had been fed when the first sound came
	cost    time.Duration
}

func openSpeech(t *testing.T, folder string) *speechEngine {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(folder, "config.json"))
	require.NoError(t, err)
	var config struct {
		Token2Wav struct {
			Dit struct {
				Embeds  int64 `json:"num_embeds"`
				Repeats int   `json:"repeats"`
				Block   int   `json:"block_size"`
			} `json:"dit_config"`
		} `json:"token2wav_config"`
	}
	require.NoError(t, json.Unmarshal(text, &config))
	dit := config.Token2Wav.Dit
	m := &speechEngine{blockCodes: (dit.Block + dit.Repeats - 1) / dit.Repeats}
	random := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		m.codes = append(m.codes, random.Int64N(dit.Embeds))
	}
	onThread(t, func() error {
		if err := torch.Init(1); err != nil {
			return err
		}
		open, err := json.Marshal(map[string]any{"model": "qwen2_5_omni.token2wav", "checkpoint": folder, "dtype": "auto", "device": "cpu", "max_batch": 1})
		if err != nil {
			return err
		}
		if m.engine, err = torch.OpenEngine(open); err != nil {
			return err
		}
		return m.engine.Load(nil)
	})
	t.Cleanup(func() { onThread(t, m.engine.Close) })
	var info struct {
		SampleRate int `json:"sample_rate"`
	}
	answer, err := m.engine.Info()
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(answer, &info))
	m.rate = info.SampleRate
	return m
}

func (m *speechEngine) seconds(s *spoken) float64 { return float64(len(s.samples)) / float64(m.rate) }

// speak feeds the codes one by one, as a talker does.
func (m *speechEngine) speak(t *testing.T, params map[string]any) *spoken {
	t.Helper()
	m.sequence++
	params = maps.Clone(params)
	params["seed"] = 7
	text, err := json.Marshal(params)
	require.NoError(t, err)
	s := &spoken{}
	onThread(t, func() error {
		if err := m.engine.Admit(m.sequence, text); err != nil {
			return err
		}
		began := threadTime()
		for i := range m.codes {
			last := i == len(m.codes)-1
			if err := m.engine.Feed(m.sequence, torch.Input{Tokens: m.codes[i : i+1], Last: last}); err != nil {
				return err
			}
			if err := m.listen(s, i+1); err != nil {
				return err
			}
		}
		s.cost = threadTime() - began
		return m.engine.Release(m.sequence)
	})
	return s
}

// listen steps the sequence until it waits or is done.
func (m *speechEngine) listen(s *spoken, fed int) error {
	for {
		results, err := m.engine.Step([]uint64{m.sequence})
		if err != nil {
			return err
		}
		if len(results) != 1 || results[0].State == torch.Failed {
			return fmt.Errorf("step: %+v", results)
		}
		for _, tensor := range results[0].Tensors {
			if s.firstAt == 0 {
				s.firstAt = fed
			}
			s.samples = append(s.samples, familytest.Floats(tensor.Data)...)
		}
		if results[0].State != torch.Ready {
			return nil
		}
	}
}

// threadTime is what the calling thread has computed so far.
func threadTime() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(1 /* RUSAGE_THREAD */, &usage); err != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
