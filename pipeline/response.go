package pipeline

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"github.com/omni-run/omni/pipeline/family"
	"github.com/omni-run/omni/pipeline/message"
)

// audioTensor is the name of the tensor that an audio stage gives its samples in.
const audioTensor = "audio"

// audioOf returns the samples of an output.
func audioOf(out *message.Output) ([]float32, error) {
	var samples []float32
	for _, t := range out.Tensors {
		if t.Name != audioTensor {
			continue
		}
		if t.DType != "float32" {
			return nil, fmt.Errorf("its audio is of %s, expected float32", t.DType)
		}
		for i := 0; i+4 <= len(t.Data); i += 4 {
			samples = append(samples, math.Float32frombits(binary.LittleEndian.Uint32(t.Data[i:])))
		}
	}
	return samples, nil
}

// response puts the parts together after all pumps have ended.
func (a *attempt) response(done time.Time) *Response {
	r := a.request
	resp := &Response{
		RequestID: r.ID, Prompt: r.Prompt, RenderedPrompt: r.prepared.RenderedPrompt,
		PromptTokenIDs: r.prepared.PromptTokenIDs, TokenIDs: []int64{},
		FirstTextMS: optional(a.firstText), FirstAudioMS: optional(a.firstAudio), E2EMS: milliseconds(done.Sub(r.arrived)),
	}
	for i, p := range a.parts {
		resp.Stages = append(resp.Stages, p.report(r, i == 0))
		switch p.kind.Final {
		case family.Text:
			resp.TokenIDs = append(resp.TokenIDs, p.tokens...)
			resp.Text += string(p.text)
			resp.FinishReason = string(p.finish)
		case family.Audio:
			resp.Audio = &Audio{
				SampleRate: p.stage.status().Info.SampleRate, Samples: len(p.samples), PCM: p.samples, Codes: a.codes(p),
			}
			if rate := resp.Audio.SampleRate; rate > 0 && len(p.samples) > 0 {
				rtf := resp.E2EMS / 1000 / (float64(len(p.samples)) / float64(rate))
				resp.RTF = &rtf
			}
		}
	}
	return resp
}

// codes are the tokens that a part was fed.
func (a *attempt) codes(p *part) []int64 {
	codes := []int64{}
	for _, from := range a.parts {
		for _, o := range from.outlets {
			if o.to == p && o.edge.Tokens {
				codes = append(codes, from.tokens...)
			}
		}
	}
	return codes
}

// report is the part's line in the response. The first stage has waited for the request's turn as well.
func (p *part) report(r *request, first bool) StageReport {
	l := &p.moments.ledger // the pumps have ended
	report := StageReport{
		ID: p.stage.id, Name: p.stage.name,
		QueueMS:    float64(l.QueueNS) / 1e6,
		ComputeMS:  float64(l.ComputeNS) / 1e6,
		TransferMS: float64(l.TransferNS) / 1e6,
		Tokens:     l.Tokens,
		BytesOut:   l.BytesOut,
	}
	if p.kind.Final == family.Audio {
		report.Tokens = int64(len(p.samples))
	}
	if first {
		report.QueueMS += milliseconds(r.entered.Sub(r.arrived))
	}
	return report
}

// optional is nil for an event that never was.
func optional(d time.Duration) *float64 {
	if d == 0 {
		return nil
	}
	ms := milliseconds(d)
	return &ms
}
