// Package family describes the model families that a pipeline can run: which stages there are, which engine each
// runs, what each hands to the next, and how a request becomes the parameters of every stage.
//
// The stage graph is data. An edge lists what travels: the token ids, and tensors by name; the orchestrator hands
// on exactly those and knows nothing else of a family. What needs code is Prepare, which renders the prompt, makes
// token ids of it, and writes the JSON that each stage's engine is admitted with.
//
// A family is added by one file with its Family literal, and one line in the table below.
package family

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/omni-run/omni/pipeline/checkpoint"
	"github.com/omni-run/omni/pipeline/config"
	"github.com/omni-run/omni/pipeline/prompt"
)

// Kind says how a stage's engine advances.
type Kind string

// The kinds of stages.
const (
	// Autoregressive engines produce a token per sequence and step.
	Autoregressive Kind = "autoregressive"
	// Generation engines take a fixed number of steps (or chunks) for the whole input.
	Generation Kind = "generation"
)

// What a final stage gives to the caller.
const (
	Text  = "text"
	Audio = "audio"
)

// Stage is one node of the graph.
type Stage struct {
	ID     int
	Name   string // as in vLLM-Omni's model_stage: thinker, talker, code2wav
	Model  string // the engine's name in the C++ registry
	Kind   Kind
	Inputs []int  // stages that feed it
	Final  string // Text, Audio, or "" for a stage whose output nobody but the next stage sees
	Chunks bool   // its engine has the modes full and stream
}

// Edge says what stage From hands to stage To.
type Edge struct {
	From, To int
	Tokens   bool     // the token ids of its results
	Tensors  []string // the tensors of its results with these names
}

// Family is one row of the table.
type Family struct {
	Name          string
	Architectures []string // config.json "architectures"
	ModelTypes    []string // config.json "model_type"
	Stages        []Stage  // by ascending ID; a stage comes after its inputs
	Edges         []Edge
	Sampling      []config.SamplingParams // default of each stage

	// adapt changes a copy of the row to what this checkpoint has; nil for families that are always whole.
	adapt func(f *Family, folder *checkpoint.Folder) error
	open  func(f *Family, folder *checkpoint.Folder, cfg *config.Config) (Model, error)
}

// Model is a family opened on one checkpoint: its tokenizer, template and token ids. It is safe for concurrent use.
type Model interface {
	// Prepare turns a request into the parameters of each stage that it needs. infos holds what the engine of
	// every running stage reported, by stage ID.
	Prepare(req Request, infos map[int]StageInfo) (*Prepared, error)
	// NewTextDecoder returns a decoder of the text stage's token ids, for one request.
	NewTextDecoder() *prompt.StreamDecoder
}

// Request is what a caller asks for.
type Request struct {
	Prompt   string           // one user message; not together with Messages
	System   string           // the system message; empty for the family's default with Prompt, for none with Messages
	Messages []prompt.Message // a whole conversation
	// UsualSystem gives Messages without a system message the family's default.
	UsualSystem bool
	// Modalities are the wanted outputs, Text and Audio; empty for all that the pipeline makes.
	Modalities []string
	Speaker    string // empty for the default
	// Seed makes the whole request repeatable with the reference's own draws: one generator, handed from stage to
	// stage.
	Seed      *int64
	MaxTokens int // limit of the text stage; 0 for the default
	// MaxAudio limits the duration of the speech; 0 for the default.
	MaxAudio time.Duration
	// Stops says that the text stage may be ended before its last output. Then no generator is handed on: a Seed
	// starts one in every stage.
	Stops bool
	// Sampling overlays each stage's defaults, by position; shorter lists leave the later stages as they are.
	Sampling []config.SamplingParams
	// Speech overlays how the stages that can work on chunks do so.
	Speech config.Speech
}

// StageInfo is what an engine says about itself once it is open. Numbers that do not apply are zero.
type StageInfo struct {
	Model          string   `json:"model"`
	DType          string   `json:"dtype"`
	Device         string   `json:"device"`
	Parameters     int64    `json:"parameters"`
	WeightBytes    int64    `json:"weight_bytes"`
	UnusedTensors  int64    `json:"unused_tensors"`
	VocabSize      int64    `json:"vocab_size"`
	HiddenSize     int64    `json:"hidden_size"`
	MaxPositions   int64    `json:"max_positions"`
	Speakers       []string `json:"speakers"`
	DefaultSpeaker string   `json:"default_speaker"`
	SampleRate     int      `json:"sample_rate"`
	SamplesPerCode int      `json:"samples_per_code"`
	// Stream holds the engine's own sizes of chunks, by their names in stage configs; nil if it has no mode stream.
	Stream map[string]int64 `json:"stream,omitempty"`
}

// Prepared is a request ready to be routed.
type Prepared struct {
	RenderedPrompt string
	PromptTokenIDs []int64
	Stages         []int                   // the stages it needs, ascending
	Params         map[int]json.RawMessage // what each needed stage's engine is admitted with
	Full           map[int]bool            // the needed stages that begin when their input is complete
	Finals         map[int]string          // of the needed stages, those whose output the caller asked for: Text or Audio
	Speaker        string                  // the speaker that will be heard, empty without audio
}

// families is the table. One row per family.
var families = []*Family{
	&qwen25Omni,
}

// Lookup finds the family of a checkpoint by its config.json. What it returns describes this checkpoint: stages that
// its config.json switches off are left out.
func Lookup(folder *checkpoint.Folder) (*Family, error) {
	row, err := find(folder)
	if err != nil {
		return nil, err
	}
	f := *row
	if f.adapt != nil {
		if err := f.adapt(&f, folder); err != nil {
			return nil, err
		}
	}
	return &f, nil
}

func find(folder *checkpoint.Folder) (*Family, error) {
	info := folder.Info
	var known []string
	for _, f := range families {
		named := slices.ContainsFunc(info.Architectures, func(a string) bool { return slices.Contains(f.Architectures, a) })
		if named || (len(info.Architectures) == 0 && slices.Contains(f.ModelTypes, info.ModelType)) {
			return f, nil
		}
		known = append(known, f.Architectures...)
	}
	return nil, fmt.Errorf("%s: unknown architecture %s (model_type %q); known are %s",
		folder.File("config.json"), quoteAll(info.Architectures), info.ModelType, strings.Join(known, ", "))
}

// DefaultConfig is the built-in deployment of the family.
func (f *Family) DefaultConfig() *config.Config {
	c := &config.Config{Source: "built-in"}
	for i, s := range f.Stages {
		c.Stages = append(c.Stages, config.Stage{
			ID: s.ID, Name: s.Name, Inputs: slices.Clone(s.Inputs), FinalOutput: s.Final,
			Device: config.Auto, DType: "auto", MaxBatchSize: 16,
			Sampling: f.Sampling[i].Merge(config.SamplingParams{}), Chunks: s.Chunks,
		})
	}
	return c
}

// Open reads what Prepare needs from the checkpoint: tokenizer, chat template, token ids. cfg names the stages that
// run and their sampling defaults; it is not modified.
func (f *Family) Open(folder *checkpoint.Folder, cfg *config.Config) (Model, error) {
	m, err := f.open(f, folder, cfg)
	if err != nil {
		return nil, fmt.Errorf("open %s on %s: %w", f.Name, folder.Path, err)
	}
	return m, nil
}

// Stage returns the stage with that ID.
func (f *Family) Stage(id int) (Stage, bool) {
	for _, s := range f.Stages {
		if s.ID == id {
			return s, true
		}
	}
	return Stage{}, false
}

func quoteAll(names []string) string {
	quoted := make([]string, len(names))
	for i, n := range names {
		quoted[i] = fmt.Sprintf("%q", n)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}
