package config

import (
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// stageReader reads one stage. A setting may be written at the stage, under runtime or under engine_args, by its
// older or newer word; setting it twice to different values is a fault.
type stageReader struct {
	r     *reader
	at    node
	stage Stage
	seen  map[string]seenValue // by our name of the setting
}

type seenValue struct {
	path  string
	value any
}

// stageKeys are the settings of a stage: our word, then the words that mean the same. The function reads the value.
var stageKeys = []struct {
	words []string
	read  func(s *stageReader, n node, setting string)
}{
	{[]string{"devices", "device"}, (*stageReader).readDevice},
	{[]string{"threads"}, (*stageReader).readThreads},
	{[]string{"dtype"}, (*stageReader).readDType},
	{[]string{"max_batch_size", "max_num_seqs"}, (*stageReader).readBatch},
	{[]string{"engine_input_source", "input_sources"}, (*stageReader).readInputs},
	{[]string{"model_stage"}, (*stageReader).readName},
	{[]string{"final_output"}, (*stageReader).readFinal},
	{[]string{"final_output_type"}, (*stageReader).readFinalType},
	{[]string{"stage_type"}, (*stageReader).readType},
	{[]string{"default_sampling_params"}, (*stageReader).readSampling},
	{[]string{"profiler_config"}, (*stageReader).readProfiler},
	{[]string{"input_connectors"}, (*stageReader).readInputConnectors},
	{[]string{"output_connectors"}, (*stageReader).readOutputConnectors},
	{[]string{"num_replicas"}, (*stageReader).readReplicas},
	{[]string{"process"}, (*stageReader).readProcess},
	{[]string{"async_chunk"}, (*stageReader).readAsyncChunk},
	{[]string{"mode"}, (*stageReader).readSpeech},
	{[]string{"initial_codec_chunk_frames"}, (*stageReader).readSpeech},
	{[]string{"codec_chunk_frames"}, (*stageReader).readSpeech},
	{[]string{"codec_right_context_frames"}, (*stageReader).readSpeech},
	{[]string{"codec_left_context_frames"}, (*stageReader).readLeftContext},
}

func (r *reader) readStages(n node) {
	taken := map[int]bool{}
	for _, element := range n.elements() {
		s := &stageReader{r: r, at: element, seen: map[string]seenValue{}}
		if !s.begin() {
			continue
		}
		if taken[s.stage.ID] {
			element.fault("stage_id %d is used twice", s.stage.ID)
			continue
		}
		taken[s.stage.ID] = true
		if r.dtype != "" {
			s.stage.DType = r.dtype
		}
		if s.stage.Chunks && r.mode != "" {
			s.stage.Speech.Mode = r.mode
		}
		s.readKeys(element, "stage_id", "runtime", "engine_args")
		r.out.Stages = append(r.out.Stages, s.stage)
	}
	sort.Slice(r.out.Stages, func(i, j int) bool { return r.out.Stages[i].ID < r.out.Stages[j].ID })
}

// begin finds the built-in stage that the element is about.
func (s *stageReader) begin() bool {
	for _, e := range s.at.entries() {
		if e.key != "stage_id" {
			continue
		}
		id, ok := e.value.small()
		if !ok {
			return false
		}
		base, known := s.r.base.Stage(id)
		if !known {
			var have []string
			for _, b := range s.r.base.Stages {
				have = append(have, fmt.Sprintf("%d (%s)", b.ID, b.Name))
			}
			e.value.fault("the model has no stage %d, its stages are %s", id, strings.Join(have, ", "))
			return false
		}
		s.stage = (&Config{Stages: []Stage{base}}).Clone().Stages[0]
		return true
	}
	if _, isMap := s.at.resolve().(*ast.MappingNode); isMap || s.at.resolve().Type() == ast.MappingValueType {
		s.at.fault("stage_id is missing")
	}
	return false
}

// readKeys reads the keys of the stage, or of its runtime or engine_args section; sections are read in place.
func (s *stageReader) readKeys(n node, structural ...string) {
	for _, e := range n.entries() {
		switch {
		case e.key == "stage_id" && contains(structural, e.key):
		case contains(structural, e.key):
			if !e.value.isNull() {
				s.readKeys(e.value)
			}
		case s.readSetting(e):
		case readForeign(e):
		default:
			e.value.fault("%w", unknownKey(e.key, stageWords()))
		}
	}
}

func (s *stageReader) readSetting(e entry) bool {
	for _, k := range stageKeys {
		if contains(k.words, e.key) {
			k.read(s, e.value, k.words[0])
			return true
		}
	}
	return false
}

func stageWords() []string {
	words := []string{"stage_id", "runtime", "engine_args"}
	for _, k := range stageKeys {
		words = append(words, k.words...)
	}
	return words
}

// once records that a setting was given and reports whether it may be applied: again with the same value is fine.
func (s *stageReader) once(n node, setting string, value any) bool {
	if before, twice := s.seen[setting]; twice && before.value != value {
		n.fault("%v contradicts %s, which says %v", value, before.path, before.value)
		return false
	}
	s.seen[setting] = seenValue{path: n.path, value: value}
	return true
}

func (s *stageReader) readDevice(n node, setting string) {
	text, ok := n.text()
	if !ok {
		return
	}
	device, err := normaliseDevice(text)
	if err != nil {
		n.fault("%w", err)
	} else if s.once(n, setting, device) {
		s.stage.Device = device
	}
}

func (s *stageReader) readThreads(n node, setting string) {
	if v, ok := n.small(); ok && s.once(n, setting, v) {
		s.stage.Threads = v
	}
}

func (s *stageReader) readBatch(n node, setting string) {
	if v, ok := n.small(); ok && s.once(n, setting, v) {
		s.stage.MaxBatchSize = v
	}
}

func (s *stageReader) readDType(n node, setting string) {
	if v := readDType(n); v != "" && s.once(n, setting, v) {
		s.stage.DType = v
	}
}

func readDType(n node) string {
	text, ok := n.text()
	if !ok {
		return ""
	}
	dtype, err := normaliseDType(text)
	if err != nil {
		n.fault("%w", err)
		return ""
	}
	return dtype
}

func (s *stageReader) readInputs(n node, _ string) {
	var inputs []int
	for _, e := range n.elements() {
		if id, ok := e.small(); ok {
			inputs = append(inputs, id)
		}
	}
	if !slices.Equal(inputs, s.stage.Inputs) {
		n.fault("%v is not how the model is wired: stage %d takes its input from %v", inputs, s.stage.ID, s.stage.Inputs)
	}
}

func (s *stageReader) readName(n node, _ string) {
	if name, ok := n.text(); ok && name != s.stage.Name {
		n.fault("stage %d of this model is %q, not %q", s.stage.ID, s.stage.Name, name)
	}
}

func (s *stageReader) readFinal(n node, _ string) {
	final, ok := n.boolean()
	if ok && final != (s.stage.FinalOutput != "") {
		n.fault("%t is not supported: whether stage %d (%s) has an output of its own is the model's", final, s.stage.ID, s.stage.Name)
	}
}

func (s *stageReader) readFinalType(n node, _ string) {
	if kind, ok := n.text(); ok && kind != s.stage.FinalOutput {
		n.fault("stage %d (%s) gives %q, not %q", s.stage.ID, s.stage.Name, s.stage.FinalOutput, kind)
	}
}

func (s *stageReader) readType(n node, _ string) {
	if kind, ok := n.text(); ok && kind != "llm" {
		n.fault("%q is not supported for this model, want llm", kind)
	}
}

func (s *stageReader) readSampling(n node, _ string) {
	if n.isNull() {
		return
	}
	var over SamplingParams
	for _, e := range n.entries() {
		if e.key == "detokenize" {
			if _, ok := e.value.boolean(); ok {
				e.value.note("the text stage's ids become text, no other stage's do")
			}
			continue
		}
		if err := over.set(e.key, e.value.plain()); err != nil {
			e.value.fault("%w", err)
		}
	}
	if err := over.Validate(); err != nil {
		for _, fault := range unjoin(err) {
			n.fault("%w", fault)
		}
		return
	}
	s.stage.Sampling = s.stage.Sampling.Merge(over)
}

func (s *stageReader) readProfiler(n node, _ string) {
	if n.isNull() {
		return
	}
	if m, ok := n.plain().(map[string]any); ok {
		s.stage.Profiler = m
		return
	}
	n.fault("want a mapping, got %s", n.describe())
}

func (s *stageReader) readReplicas(n node, _ string) {
	if v, ok := n.small(); ok && v != 1 {
		n.fault("%d is not supported: a stage is one process", v)
	}
}

func (s *stageReader) readProcess(n node, _ string) {
	if on, ok := n.boolean(); ok && !on {
		n.fault("false is not supported: every stage is a process of its own")
	}
}

func (s *stageReader) readInputConnectors(n node, _ string) {
	s.readStageConnectors(n, "from_stage_", s.stage.Inputs)
}

func (s *stageReader) readOutputConnectors(n node, _ string) {
	var outputs []int
	for _, b := range s.r.base.Stages {
		if contains(b.Inputs, s.stage.ID) {
			outputs = append(outputs, b.ID)
		}
	}
	s.readStageConnectors(n, "to_stage_", outputs)
}

// readStageConnectors checks {from_stage_N: name or {name, extra}} against the model's edges.
func (s *stageReader) readStageConnectors(n node, prefix string, peers []int) {
	if n.isNull() {
		return
	}
	for _, e := range n.entries() {
		known := slices.ContainsFunc(peers, func(id int) bool { return e.key == fmt.Sprintf("%s%d", prefix, id) })
		if !known {
			e.value.fault("stage %d (%s) has no such neighbour", s.stage.ID, s.stage.Name)
			continue
		}
		if _, isText := e.value.resolve().(*ast.StringNode); !isText {
			readConnector(e.value)
			continue
		}
		if name, _ := e.value.text(); !s.r.connectors[name] {
			e.value.fault("connector %q is not declared under connectors", name)
		}
	}
}
