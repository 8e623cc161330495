package pipelinetest

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"time"

	"github.com/omni-run/omni/pipeline/config"
	"github.com/omni-run/omni/pipeline/message"
	"github.com/omni-run/omni/pipeline/worker"
)

// The engines' names, those of the family whose parameters they take.
const (
	Thinker  = "qwen2_5_omni.thinker"
	Talker   = "qwen2_5_omni.talker"
	Code2Wav = "qwen2_5_omni.token2wav"
)

// ChunkCodes is the size of code2wav's chunks in mode stream.
const ChunkCodes = 3

const (
	rowSize        = 4  // values of a row
	samplesPerCode = 4  // samples of a code
	soundSteps     = 3  // steps of code2wav before its audio
	sampleRate     = 40 // Hz: a code is a tenth of a second
	speaker        = "Tester"
)

// engine is a worker.Engine that computes with letters.
type engine struct {
	model     string
	script    Script
	faults    *faults
	stepper   *stepped
	sequences map[uint64]*sequence
}

// sequence is a sequence of any of the three engines.
type sequence struct {
	// thinker
	prompt  []int64
	limit   int
	rows    bool // give rows
	written int  // tokens, codes or steps given
	// talker
	prompted bool      // its prompt rows have come
	replies  []float32 // first value of each reply row not yet used
	// code2wav
	codes  []int64
	stream bool // give audio of every chunk of codes

	last bool
}

// Load implements worker.Engine.
func (e *engine) Load(progress func(done, total int64) error) error {
	parts := int64(max(e.script.Parts, 1))
	for i := range parts {
		if err := e.faults.at(AtLoad); err != nil {
			return err
		}
		time.Sleep(e.script.Part) // stands for reading
		if err := progress((i+1)*100, parts*100); err != nil {
			return err
		}
	}
	return nil
}

// Info implements worker.Engine.
func (e *engine) Info() (json.RawMessage, error) {
	return json.Marshal(map[string]any{
		"model": e.model, "dtype": "float32", "device": "cpu", "parameters": 100, "weight_bytes": 400, "unused_tensors": 0,
		"vocab_size": 1 << 20, "hidden_size": rowSize, "max_positions": 1 << 20, "speakers": []string{speaker},
		"default_speaker": speaker, "sample_rate": sampleRate, "samples_per_code": samplesPerCode,
	})
}

// Admit implements worker.Engine.
func (e *engine) Admit(id uint64, params json.RawMessage) error {
	if err := e.faults.at(AtAdmit); err != nil {
		return err
	}
	var p struct {
		Prompt   []int64 `json:"prompt_token_ids"`
		Rows     bool    `json:"emit_rows"`
		Mode     string  `json:"mode"`
		Sampling struct {
			MaxTokens int `json:"max_tokens"`
		} `json:"sampling"`
	}
	if err := json.Unmarshal(params, &p); err != nil {
		return err
	}
	if e.sequences[id] != nil {
		return message.Errorf(message.InvalidArgument, "sequence %d runs already", id)
	}
	e.sequences[id] = &sequence{prompt: p.Prompt, limit: p.Sampling.MaxTokens, rows: p.Rows, stream: p.Mode == config.ModeStream}
	return nil
}

// Feed implements worker.Engine.
func (e *engine) Feed(id uint64, in worker.Input) error {
	if err := e.faults.at(AtFeed); err != nil {
		return err
	}
	s := e.sequences[id]
	if s == nil {
		return message.Errorf(message.NotFound, "sequence %d does not run", id)
	}
	s.codes = append(s.codes, in.Tokens...)
	s.last = s.last || in.Last
	for _, t := range in.Tensors {
		switch t.Name {
		case "prompt_rows":
			s.prompted = true
		case "reply_rows":
			for i := 0; i < len(t.Data); i += 4 * rowSize {
				s.replies = append(s.replies, math.Float32frombits(binary.LittleEndian.Uint32(t.Data[i:])))
			}
		}
	}
	return nil
}

// Step implements worker.Engine.
func (e *engine) Step(ids []uint64) ([]worker.Result, error) {
	for _, id := range ids {
		if e.sequences[id] == nil {
			return nil, message.Errorf(message.NotFound, "sequence %d does not run", id)
		}
	}
	if err := e.stepper.begin(e.model, ids); err != nil {
		return nil, err
	}
	time.Sleep(e.script.Step) // stands for computing
	results := make([]worker.Result, len(ids))
	for i, id := range ids {
		s := e.sequences[id]
		point := AtDecode
		if s.written == 0 {
			point = AtPrefill
		}
		if err := e.faults.at(point); err != nil {
			if coded, ok := err.(*message.Error); !ok || coded.Code == message.DeviceLost { //nolint:errorlint // made above
				return nil, err
			}
			results[i] = worker.Result{Sequence: id, State: message.StateFailed, Err: err}
			continue
		}
		switch e.model {
		case Thinker:
			results[i] = s.think()
		case Talker:
			results[i] = s.talk()
		default:
			results[i] = s.sound()
		}
		results[i].Sequence = id
	}
	return results, nil
}

// think gives the next letter; the first step gives the prompt's rows, a later one the row of the letter before.
func (s *sequence) think() worker.Result {
	r := worker.Result{State: message.StateReady, Tokens: []int64{letter(s.prompt, s.written)}}
	if s.rows {
		if s.written == 0 {
			r.Tensors = append(r.Tensors, rows("prompt_rows", s.prompt))
		} else {
			r.Tensors = append(r.Tensors, rows("reply_rows", []int64{letter(s.prompt, s.written-1)}))
		}
	}
	if s.written++; s.written == s.limit {
		r.State, r.Finish = message.StateDone, message.FinishLength
	}
	return r
}

// talk makes a code of the next reply row.
func (s *sequence) talk() worker.Result {
	if !s.last && (!s.prompted || len(s.replies) == 0) {
		return worker.Result{State: message.StateWaiting}
	}
	r := worker.Result{State: message.StateReady}
	if len(s.replies) > 0 {
		r.Tokens = []int64{code(int64(s.replies[0]), s.written)}
		s.replies = s.replies[1:]
		s.written++
	}
	if s.last && len(s.replies) == 0 {
		r.State, r.Finish = message.StateDone, message.FinishStop
	}
	return r
}

// sound takes some steps, then gives the audio in two pieces; or it gives the audio of chunks as they come.
func (s *sequence) sound() worker.Result {
	if s.stream {
		return s.soundOfChunk()
	}
	if !s.last {
		return worker.Result{State: message.StateWaiting}
	}
	s.written++
	half := len(s.codes) / 2
	switch {
	case len(s.codes) == 0:
		return worker.Result{State: message.StateDone}
	case s.written < soundSteps:
		return worker.Result{State: message.StateReady}
	case s.written == soundSteps && half > 0:
		return worker.Result{State: message.StateReady, Tensors: []message.Tensor{audio(s.codes[:half])}}
	case s.written == soundSteps:
		half = 0
	}
	return worker.Result{State: message.StateDone, Tensors: []message.Tensor{audio(s.codes[half:])}}
}

// soundOfChunk gives the audio of the next ChunkCodes codes, or of the rest.
func (s *sequence) soundOfChunk() worker.Result {
	s.written++
	n := min(len(s.codes), ChunkCodes)
	switch {
	case n < ChunkCodes && !s.last:
		return worker.Result{State: message.StateWaiting, Wanted: int64(ChunkCodes - n)}
	case n == 0:
		return worker.Result{State: message.StateDone}
	}
	r := worker.Result{State: message.StateReady, Tensors: []message.Tensor{audio(s.codes[:n])}}
	s.codes = s.codes[n:]
	switch {
	case s.last && len(s.codes) == 0:
		r.State = message.StateDone
	case len(s.codes) < ChunkCodes && !s.last:
		r.State, r.Wanted = message.StateWaiting, int64(ChunkCodes-len(s.codes))
	}
	return r
}

// Release implements worker.Engine.
func (e *engine) Release(id uint64) error {
	if e.sequences[id] == nil {
		return message.Errorf(message.NotFound, "sequence %d does not run", id)
	}
	delete(e.sequences, id)
	return nil
}

// Close implements worker.Engine.
func (e *engine) Close() error {
	if err := e.faults.at(AtClose); err != nil {
		return err
	}
	if len(e.sequences) > 0 {
		return fmt.Errorf("%d sequences were not released", len(e.sequences))
	}
	return e.stepper.close()
}

// letter is the thinker's token number i for a prompt.
func letter(prompt []int64, i int) int64 {
	sum := int64(0)
	for j, id := range prompt {
		sum += id * int64(j+1)
	}
	return 'a' + (sum+int64(i)*7)%26
}

// code is the talker's code for its reply row number i.
func code(row int64, i int) int64 { return (row*3 + int64(i)) % 100 }

func rows(name string, values []int64) message.Tensor {
	data := make([]byte, 4*rowSize*len(values))
	for i, v := range values {
		binary.LittleEndian.PutUint32(data[4*rowSize*i:], math.Float32bits(float32(v)))
	}
	return message.Tensor{Name: name, DType: "float32", Shape: []int64{int64(len(values)), rowSize}, Data: data}
}

func audio(codes []int64) message.Tensor {
	pcm := samples(codes)
	data := make([]byte, 4*len(pcm))
	for i, v := range pcm {
		binary.LittleEndian.PutUint32(data[4*i:], math.Float32bits(v))
	}
	return message.Tensor{Name: "audio", DType: "float32", Shape: []int64{int64(len(pcm))}, Data: data}
}

// samples is the audio of codes.
func samples(codes []int64) []float32 {
	pcm := make([]float32, 0, samplesPerCode*len(codes))
	for _, c := range codes {
		for j := range samplesPerCode {
			pcm = append(pcm, float32(c)/128+float32(j)/1024)
		}
	}
	return pcm
}
