package golden_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/omni-run/omni/pipeline/family"
	"github.com/omni-run/omni/pipeline/family/familytest"
	"github.com/omni-run/omni/torch"
)

// A specimen is one network, opened, with sequences that are known to end.
type specimen struct {
	engine    *torch.Engine
	stage     family.Stage
	sequences []passage
}

// TestEveryModelKeepsTheContract runs what csrc/omni.h promises of every engine over every network of the library, on the
// first checkpoint of every family.
func TestEveryModelKeepsTheContract(t *testing.T) {
	families, tried := map[string]bool{}, map[string]bool{}
	familytest.EachCheckpoint(t, goldens, func(t *testing.T, cases []*familytest.Case) {
		name := cases[0].Checkpoint.Family
		if families[name] {
			return
		}
		families[name] = true
		for _, s := range specimens(t, cases) {
			if tried[s.stage.Model] {
				continue // an earlier family has this network as well
			}
			tried[s.stage.Model] = true
			t.Run(s.stage.Model, s.test)
		}
	})
	models, err := torch.Models()
	require.NoError(t, err)
	for _, model := range models {
		assert.True(t, tried[model], "no stage of a family in random.Families runs %s: CONTRIBUTING.md, A model family", model)
	}
}

// specimens opens the stages of a checkpoint and lets some cases pass through them, so that their parameters, inputs and
// outputs are at hand.
func specimens(t *testing.T, cases []*familytest.Case) []*specimen {
	t.Helper()
	p := openPipeline(t, cases[0].WriteCheckpoint(t, scratchFolder))
	all := make([]*specimen, len(p.engines))
	for i, engine := range p.engines {
		all[i] = &specimen{engine: engine, stage: p.family.Stages[i]}
	}
	whole := slices.DeleteFunc(slices.Clone(cases), func(c *familytest.Case) bool { return c.ReferenceError != "" })
	require.GreaterOrEqual(t, len(whole), 3)
	for i, c := range whole[:3] {
		f := &flow{golden: c, sequence: uint64(i)}
		p.answer(t, f)
		require.NoError(t, f.failure)
		for stage, s := range all {
			s.sequences = append(s.sequences, f.passages[stage])
		}
	}
	return all
}

func (s *specimen) test(t *testing.T) {
	t.Run("describes itself", s.testInfo)
	t.Run("answers as in its pipeline, together as alone", s.testTogether)
	t.Run("forgets a sequence that is cancelled after any step", s.testCancel)
	t.Run("ends once", s.testEnd)
	t.Run("refuses unknown numbers", s.testNumbers)
	t.Run("refuses unknown and wrong parameters", s.testParams)
	t.Run("refuses unknown tensors", s.testTensors)
}

// play answers some of the sequences under the numbers from first on, each a step after the one before, and gives one
// its next input only when it waits for it. Torch thread.
func (s *specimen) play(first uint64, passages []passage) ([]outcome, error) {
	outcomes := make([]outcome, len(passages))
	fed := make([]int, len(passages))
	ended := make([]bool, len(passages))
	for round := 0; slices.Contains(ended, false); round++ {
		if round < len(passages) {
			if err := s.engine.Admit(first+uint64(round), passages[round].params); err != nil {
				return nil, err
			}
		}
		var numbers []uint64
		for i := range min(round+1, len(passages)) {
			if !ended[i] {
				numbers = append(numbers, first+uint64(i))
			}
		}
		results, err := s.engine.Step(numbers)
		if err != nil {
			return nil, err
		}
		for _, result := range results {
			i := result.Sequence - first
			if err := outcomes[i].add(result); err != nil {
				return nil, err
			}
			switch {
			case result.State == torch.Failed:
				return nil, result.Err
			case result.State == torch.Done:
				ended[i] = true
			case result.State == torch.Waiting && fed[i] == len(passages[i].fed):
				return nil, fmt.Errorf("sequence %d waits, but has all its input", i)
			case result.State == torch.Waiting:
				if err := s.engine.Feed(result.Sequence, passages[i].fed[fed[i]]); err != nil {
					return nil, err
				}
				fed[i]++
			}
		}
	}
	var faults []error
	for i := range passages {
		faults = append(faults, s.engine.Release(first+uint64(i)))
	}
	return outcomes, errors.Join(faults...)
}

// want plays the sequences and compares with what came out in the pipeline.
func (s *specimen) want(t *testing.T, first uint64, passages ...passage) {
	t.Helper()
	var outcomes []outcome
	onThread(t, func() (err error) {
		outcomes, err = s.play(first, passages)
		return err
	})
	for i := range passages {
		assert.Equal(t, passages[i].outcome, outcomes[i], "sequence %d", i)
	}
}

// refused checks the code of an error, and that its text names what it is about.
func refused(t *testing.T, err error, code torch.Code, name string) {
	t.Helper()
	coded := (*torch.Error)(nil)
	if !errors.As(err, &coded) || coded.Code != code {
		t.Errorf("%s: got %v, want %v", name, err, code)
		return
	}
	assert.ErrorContains(t, err, name)
}

func (s *specimen) testInfo(t *testing.T) {
	text, err := s.engine.Info()
	require.NoError(t, err)
	var info family.StageInfo
	require.NoError(t, json.Unmarshal(text, &info))
	assert.Equal(t, s.stage.Model, info.Model)
	assert.Equal(t, "float32", info.DType)
	assert.Equal(t, "cpu", info.Device)
	assert.Positive(t, info.Parameters)
	assert.GreaterOrEqual(t, info.WeightBytes, info.Parameters)
	assert.Equal(t, s.stage.Chunks, info.Stream != nil, "mode stream")
}

func (s *specimen) testTogether(t *testing.T) {
	for _, one := range s.sequences {
		s.want(t, 1, one)
	}
	s.want(t, 1, s.sequences...)
}

// A sequence is released after every number of steps that its answer takes; then its number and the engine are as new, and
// a sequence that runs beside has noticed nothing.
func (s *specimen) testCancel(t *testing.T) {
	const number, beside = 7, 8
	cancelled, witness := s.sequences[0], s.sequences[1]
	for steps, running := 0, true; running && steps < 5; steps++ {
		onThread(t, func() error {
			if err := errors.Join(s.engine.Admit(number, cancelled.params), s.engine.Admit(beside, witness.params)); err != nil {
				return err
			}
			for _, input := range cancelled.fed {
				if err := s.engine.Feed(number, input); err != nil {
					return err
				}
			}
			for range steps {
				results, err := s.engine.Step([]uint64{number, beside})
				if err != nil {
					return err
				}
				running = results[0].State == torch.Ready
			}
			return errors.Join(s.engine.Release(number), s.engine.Release(beside))
		})
		s.want(t, number, cancelled, witness)
	}
}

// A sequence that is done stays so, says so again without new output, and takes no notice of more input.
func (s *specimen) testEnd(t *testing.T) {
	onThread(t, func() error {
		if err := s.engine.Admit(3, s.sequences[0].params); err != nil {
			return err
		}
		for _, input := range s.sequences[0].fed {
			if err := s.engine.Feed(3, input); err != nil {
				return err
			}
		}
		last := torch.Result{}
		for last.State != torch.Done {
			results, err := s.engine.Step([]uint64{3})
			if err != nil {
				return err
			}
			if last = results[0]; last.State != torch.Ready && last.State != torch.Done {
				return fmt.Errorf("the sequence is %s with all its input: %w", last.State, last.Err)
			}
		}
		if err := s.engine.Feed(3, torch.Input{Tokens: []int64{1}}); err != nil {
			return err
		}
		again, err := s.engine.Step([]uint64{3})
		if err != nil {
			return err
		}
		assert.Equal(t, torch.Result{Sequence: 3, State: torch.Done, Finish: last.Finish}, again[0])
		return s.engine.Release(3)
	})
}

func (s *specimen) testNumbers(t *testing.T) {
	onThread(t, func() error {
		_, err := s.engine.Step([]uint64{41})
		refused(t, err, torch.NotFound, "41")
		refused(t, s.engine.Feed(41, torch.Input{Last: true}), torch.NotFound, "41")
		refused(t, s.engine.Release(41), torch.NotFound, "41")
		if results, err := s.engine.Step(nil); err != nil || len(results) != 0 {
			t.Errorf("a step of nothing: got %v, %v", results, err)
		}
		if err := s.engine.Admit(41, s.sequences[0].params); err != nil {
			return err
		}
		refused(t, s.engine.Admit(41, s.sequences[0].params), torch.InvalidArgument, "41")
		_, err = s.engine.Step([]uint64{41, 41})
		refused(t, err, torch.InvalidArgument, "41")
		_, err = s.engine.Step([]uint64{41, 42})
		refused(t, err, torch.NotFound, "42")
		return s.engine.Release(41)
	})
	s.want(t, 41, s.sequences[0])
}

// Every key is checked, at every depth: an unknown one is named, and one of another kind.
func (s *specimen) testParams(t *testing.T) {
	wrong := map[string]string{ // parameters by what the error has to name
		"[]": "", `"text"`: "", "{": "",
	}
	var params map[string]any
	require.NoError(t, json.Unmarshal(s.sequences[0].params, &params))
	spoil(params, func(key string) {
		text, err := json.Marshal(params)
		require.NoError(t, err)
		wrong[string(text)] = key
	})
	require.Greater(t, len(wrong), 3+2)
	onThread(t, func() error {
		for text, key := range wrong {
			refused(t, s.engine.Admit(5, json.RawMessage(text)), torch.InvalidArgument, key)
		}
		return nil
	})
	s.want(t, 5, s.sequences[0])
}

// spoil calls try with every change of one key, and takes the change back.
func spoil(object map[string]any, try func(key string)) {
	for _, key := range slices.Sorted(maps.Keys(object)) {
		value := object[key]
		if inner, ok := value.(map[string]any); ok {
			spoil(inner, try)
		}
		object[key] = "of another kind"
		if _, ok := value.(string); ok {
			object[key] = 7
		}
		try(key)
		object[key] = value
	}
	object["no_such_key"] = 1
	try("no_such_key")
	delete(object, "no_such_key")
}

func (s *specimen) testTensors(t *testing.T) {
	onThread(t, func() error {
		if err := s.engine.Admit(6, s.sequences[0].params); err != nil {
			return err
		}
		input := torch.Input{Tensors: []torch.Tensor{{Name: "no_such_tensor", DType: "float32", Shape: []int64{1}, Data: make([]byte, 4)}}}
		refused(t, s.engine.Feed(6, input), torch.InvalidArgument, "no_such_tensor")
		return s.engine.Release(6)
	})
}
