package main

import (
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/omni-run/omni/pipeline"
	"github.com/omni-run/omni/pipeline/config"
	"github.com/omni-run/omni/pipeline/family/familytest"
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
	full.Sampling = slices.Clone(g.sampling)
	full.Sampling[len(full.Sampling)-1].Seed = &g.Seed
	return stream, full
}

// looksAhead reports whether a stage sees more than a chunk for it, so that chunks are not exactly the whole.
func looksAhead(o *pipeline.Omni) bool {
	return slices.ContainsFunc(o.Stages(), func(s pipeline.StageStatus) bool { return s.Info.Stream["codec_right_context_frames"] > 0 })
}

// In mode stream the stages before the last give what the reference gives, and the one that makes sound as many samples:
// those of mode full where it does not look ahead, and near them otherwise. All at once give what each gives alone.
func TestStreamedSpeechOfEveryGolden(t *testing.T) {
	familytest.EachCheckpoint(t, goldens, func(t *testing.T, cases []*familytest.Case) {
		o := openFolder(t, cases[0].WriteCheckpoint(t, t.TempDir()), nil)
		alone := map[string]*pipeline.Response{}
		all := slices.DeleteFunc(askable(t, cases), func(g *golden) bool { return g.sound == nil })
		for _, g := range all {
			stream, full := bothModes(g)
			want, err := o.Generate(t.Context(), full)
			if err != nil {
				t.Fatal(err)
			}
			got, err := o.Generate(t.Context(), stream)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got.TokenIDs, g.text.TokenIDs) || !slices.Equal(got.Audio.Codes, g.codes.TokenIDs) {
				t.Errorf("%s: tokens or codes are not the reference's", g.Name)
			}
			if len(got.Audio.PCM) != len(want.Audio.PCM) {
				t.Fatalf("%s: got %d samples, want %d", g.Name, len(got.Audio.PCM), len(want.Audio.PCM))
			}
			if d := familytest.Distance(want.Audio.PCM, got.Audio.PCM); !looksAhead(o) && d > exact {
				t.Errorf("%s: samples differ by %v", g.Name, d)
			}
			if len(g.codes.TokenIDs) > 0 {
				t.Logf("%s: %d codes, %.1f dB", g.Name, len(g.codes.TokenIDs), familytest.Decibels(want.Audio.PCM, got.Audio.PCM))
			}
			alone[g.Name] = got
		}
		var requests sync.WaitGroup
		for _, g := range all {
			requests.Go(func() {
				stream, _ := bothModes(g)
				r, err := o.Generate(t.Context(), stream)
				if err != nil {
					t.Error(err)
				} else if !reflect.DeepEqual(r.Audio, alone[g.Name].Audio) {
					t.Errorf("%s: among others the request gave something else than alone", g.Name)
				}
			})
		}
		requests.Wait()
	})
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

// Speech ends at the limit of a request, although the talker would go on.
func TestSpeechEndsAtItsLimit(t *testing.T) {
	o := open(t, "tiny-c", 1, nil)
	for _, mode := range []config.Speech{streamed, {Mode: config.ModeFull}} {
		request := endless(400)
		request.Speech, request.MaxAudio = mode, 100*time.Millisecond
		r, err := o.Generate(t.Context(), request)
		if err != nil {
			t.Fatal(err)
		}
		longest := int(request.MaxAudio.Seconds() * float64(r.Audio.SampleRate))
		code := r.Audio.Samples / len(r.Audio.Codes)
		if r.Audio.Samples > longest || r.Audio.Samples+code <= longest {
			t.Errorf("%s: got %d samples of %d codes, want the last code before %d", mode.Mode, r.Audio.Samples, len(r.Audio.Codes), longest)
		}
	}
}
