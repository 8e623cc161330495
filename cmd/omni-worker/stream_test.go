package main

import (
	"math"
	"reflect"
	"slices"
	"sync"
	"testing"

	"github.com/omni-run/omni/pipeline"
	"github.com/omni-run/omni/pipeline/config"
)

// exact is how far samples of both modes may lie apart where a chunk sees all that it depends on.
const exact = 2e-5

var streamed = config.Speech{Mode: config.ModeStream}

// bothModes are the requests of a golden in mode stream, and in mode full with the same noise: the request's seed starts
// a generator of code2wav's own.
func bothModes(g *golden) (stream, full pipeline.Request) {
	stream = g.request()
	stream.Speech = streamed
	full = g.request()
	full.Sampling = append(full.Sampling, config.SamplingParams{Seed: &g.Seed})
	return stream, full
}

// decibels is the ratio of a signal to its difference from another.
func decibels(signal, other []float32) float64 {
	var power, difference float64
	for i := range signal {
		power += float64(signal[i]) * float64(signal[i])
		d := float64(signal[i]) - float64(other[i])
		difference += d * d
	}
	return 10 * math.Log10(power/max(difference, 1e-30))
}

func farthest(a, b []float32) float64 {
	var most float64
	for i := range a {
		most = max(most, math.Abs(float64(a[i]-b[i])))
	}
	return most
}

// In mode stream thinker and talker give what the reference gives, and code2wav as many samples: those of mode full where
// its transformer does not look ahead (tiny-c), and near them otherwise. All at once give what each gives alone.
func TestStreamedSpeechOfEveryGolden(t *testing.T) {
	looksAhead := map[string]bool{"tiny-a": true, "tiny-b": true, "tiny-c": false}
	for preset, ahead := range looksAhead {
		t.Run(preset, func(t *testing.T) {
			cases := readGoldens(t, preset)
			o := open(t, preset, cases[0].Checkpoint.Seed, nil)
			alone := map[string]*pipeline.Response{}
			for _, g := range cases {
				stream, full := bothModes(g)
				want, err := o.Generate(t.Context(), full)
				if err != nil {
					t.Fatal(err)
				}
				got, err := o.Generate(t.Context(), stream)
				if err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(got.TokenIDs, g.TokenIDs) || !slices.Equal(got.Audio.Codes, g.Codes) {
					t.Errorf("%s: tokens or codes are not the reference's", g.Case)
				}
				if len(got.Audio.PCM) != len(want.Audio.PCM) {
					t.Fatalf("%s: got %d samples, want %d", g.Case, len(got.Audio.PCM), len(want.Audio.PCM))
				}
				if d := farthest(want.Audio.PCM, got.Audio.PCM); !ahead && d > exact {
					t.Errorf("%s: samples differ by %v", g.Case, d)
				}
				if len(g.Codes) > 0 {
					t.Logf("%s: %d codes, %.1f dB", g.Case, len(g.Codes), decibels(want.Audio.PCM, got.Audio.PCM))
				}
				alone[g.Case] = got
			}
			var requests sync.WaitGroup
			for _, g := range cases {
				requests.Go(func() {
					stream, _ := bothModes(g)
					r, err := o.Generate(t.Context(), stream)
					if err != nil {
						t.Error(err)
					} else if !reflect.DeepEqual(r.Audio, alone[g.Case].Audio) {
						t.Errorf("%s: among others the request gave something else than alone", g.Case)
					}
				})
			}
			requests.Wait()
		})
	}
}

// endless is a request whose talker writes until its limit: greedy and without a penalty it repeats itself.
func endless(codes int64) pipeline.Request {
	return pipeline.Request{
		Prompt: "Count for ever.", MaxTokens: 8, Seed: config.Ptr(int64(3)), Speech: streamed,
		Sampling: []config.SamplingParams{{}, {
			Temperature: config.Ptr(0.0), RepetitionPenalty: config.Ptr(1.0), MaxTokens: &codes,
		}},
	}
}

// Sound comes in many pieces, the first of them long before the talker has written its last code.
func TestFirstAudioComesBeforeTheLastCode(t *testing.T) {
	o := open(t, "tiny-c", 1, nil)
	const codes = 400
	pieces, samples := 0, 0
	for e, err := range o.Stream(t.Context(), endless(codes)) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Kind == pipeline.EventAudio {
			pieces++
			samples += len(e.Samples)
		}
		if e.Kind != pipeline.EventDone {
			continue
		}
		r := e.Response
		if len(r.Audio.Codes) != codes || samples != r.Audio.Samples {
			t.Errorf("got %d codes, and %d samples of %d", len(r.Audio.Codes), samples, r.Audio.Samples)
		}
		if pieces < 20 || *r.FirstAudioMS > r.E2EMS/2 {
			t.Errorf("first audio after %.0f of %.0f ms, in %d pieces", *r.FirstAudioMS, r.E2EMS, pieces)
		}
	}
}

// A listener that leaves at the first sound leaves nothing behind in any worker.
func TestCancelInTheMiddleOfSpeech(t *testing.T) {
	o := open(t, "tiny-c", 1, nil)
	for e, err := range o.Stream(t.Context(), endless(400)) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Kind == pipeline.EventAudio {
			break
		}
	}
	first, err := o.Generate(t.Context(), endless(40))
	if err != nil {
		t.Fatal(err)
	}
	again, err := o.Generate(t.Context(), endless(40))
	if err != nil || !reflect.DeepEqual(first.Audio, again.Audio) {
		t.Errorf("the same request gave something else, %v", err)
	}
}
