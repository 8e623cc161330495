package torch

import (
	"encoding/json"
	"errors"
	"reflect"
	"runtime"
	"strings"
	"testing"
)

// writeCheckpoint makes a folder that passes as a checkpoint without tensors.
func writeCheckpoint(t *testing.T) string {
	t.Helper()
	folder := t.TempDir()
	writeFile(t, folder, "config.json", "{}")
	writeFile(t, folder, "model.safetensors", "\x02\x00\x00\x00\x00\x00\x00\x00{}")
	return folder
}

// fakeConfig is the config of the engine without weights.
func fakeConfig(t *testing.T) json.RawMessage {
	t.Helper()
	config, err := json.Marshal(map[string]any{"model": "fake", "checkpoint": writeCheckpoint(t), "max_batch": 4})
	if err != nil {
		t.Fatal(err)
	}
	return config
}

// withEngine runs f on the torch thread with a loaded engine, which it closes.
func withEngine(t *testing.T, f func(e *Engine)) {
	t.Helper()
	checkNoLeaks(t)
	withUnloaded(t, func(e *Engine) {
		if err := e.Load(nil); err != nil {
			t.Error(err)
			return
		}
		f(e)
	})
}

// withUnloaded does so with an engine that has loaded no weights yet.
func withUnloaded(t *testing.T, f func(e *Engine)) {
	t.Helper()
	config := fakeConfig(t)
	onThread(t, func() {
		e, err := OpenEngine(config)
		if err != nil {
			t.Error(err)
			return
		}
		defer e.Close()
		f(e)
	})
}

// wantCode checks that err is an *Error of the code whose text contains every part.
func wantCode(t *testing.T, err error, code Code, parts ...string) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Errorf("got %v, want an *Error of %s", err, code)
		return
	}
	if e.Code != code {
		t.Errorf("got code %s (%v), want %s", e.Code, err, code)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("got %q, want it to contain %q", err, part)
		}
	}
}

func TestEngineLoadsInParts(t *testing.T) {
	checkNoLeaks(t)
	withUnloaded(t, func(e *Engine) {
		wantCode(t, e.Admit(1, json.RawMessage(`{}`)), FailedPrecondition, "not loaded")

		stop := errors.New("given up")
		if err := e.Load(func(int64, int64) error { return stop }); !errors.Is(err, stop) {
			t.Errorf("got %v, want progress's own error", err)
		}
		var seen [][2]int64
		err := e.Load(func(done, total int64) error {
			seen = append(seen, [2]int64{done, total})
			return nil
		})
		if want := [][2]int64{{20, 30}, {30, 30}}; err != nil || !reflect.DeepEqual(seen, want) {
			t.Errorf("got %v, %v, want %v", seen, err, want)
		}
		info, err := e.Info()
		if want := `{"device":"cpu","dtype":"auto","limits":{"max_batch":4},"model":"fake"}`; err != nil ||
			string(info) != want {
			t.Errorf("got info %s, %v, want %s", info, err, want)
		}
	})
}

func TestEngineAdvancesABatch(t *testing.T) {
	withEngine(t, func(e *Engine) {
		for sequence, params := range map[uint64]string{7: `{"max_tokens":2}`, 9: `{"max_tokens":5}`, 11: `{"wait":true,"wanted":6}`} {
			if err := e.Admit(sequence, json.RawMessage(params)); err != nil {
				t.Error(err)
			}
		}
		if n := Live("sequence"); n != 3 {
			t.Errorf("%d sequences are alive, want 3", n)
		}
		want := [][]Result{
			{
				{Sequence: 9, Tokens: []int64{0}},
				{Sequence: 7, Tokens: []int64{0}},
				{Sequence: 11, State: Waiting, Tokens: []int64{}, Wanted: 6},
			},
			{
				{Sequence: 9, Tokens: []int64{1}},
				{Sequence: 7, State: Done, Finish: FinishLength, Tokens: []int64{1}},
				{Sequence: 11, State: Waiting, Tokens: []int64{}, Wanted: 6},
			},
		}
		for i := range want {
			got, err := e.Step([]uint64{9, 7, 11})
			for j := range got {
				if len(got[j].Tokens) == 0 {
					got[j].Tokens = []int64{}
				}
			}
			if err != nil || !reflect.DeepEqual(got, want[i]) {
				t.Errorf("step %d: got %+v, %v, want %+v", i, got, err, want[i])
			}
		}
		if err := e.Feed(11, Input{Tokens: []int64{1 << 40}, Last: true}); err != nil {
			t.Error(err)
		}
		got, err := e.Step([]uint64{11})
		if want := []Result{{Sequence: 11, State: Done, Finish: FinishStop, Tokens: []int64{1 << 40, 0}}}; err != nil ||
			!reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
		if err := e.Release(7); err != nil {
			t.Error(err)
		}
		wantCode(t, e.Release(7), NotFound, "sequence 7")
	})
}

func TestTensorsCrossUnchanged(t *testing.T) {
	tensors := []Tensor{
		{Name: "f32", DType: "float32", Shape: []int64{1, 2}, Data: []byte{0, 0, 128, 63, 1, 2, 3, 4}},
		{Name: "f16", DType: "float16", Shape: []int64{3}, Data: []byte{1, 2, 3, 4, 5, 6}},
		{Name: "bf16", DType: "bfloat16", Shape: []int64{2, 1, 1}, Data: []byte{1, 2, 3, 4}},
		{Name: "i64", DType: "int64", Shape: []int64{1}, Data: []byte{1, 2, 3, 4, 5, 6, 7, 8}},
		{Name: "i32", DType: "int32", Shape: []int64{1}, Data: []byte{255, 255, 255, 255}},
		{Name: "Zustand ä", DType: "uint8", Shape: []int64{5}, Data: []byte("hello")},
		{Name: "scalar", DType: "uint8", Shape: []int64{}, Data: []byte{9}},
		{Name: "empty", DType: "float32", Shape: []int64{0, 8}, Data: []byte{}},
	}
	withEngine(t, func(e *Engine) {
		if err := e.Admit(1, json.RawMessage(`{}`)); err != nil {
			t.Error(err)
		}
		if err := e.Feed(1, Input{Tensors: tensors}); err != nil {
			t.Error(err)
		}
		got, err := e.Step([]uint64{1})
		if err != nil {
			t.Error(err)
			return
		}
		runtime.GC() // the results are copies: neither the step nor the inputs are needed any more
		for i, want := range tensors {
			g := got[0].Tensors[i]
			if g.Name != want.Name || g.DType != want.DType || !reflect.DeepEqual(g.Shape, want.Shape) ||
				string(g.Data) != string(want.Data) {
				t.Errorf("got %+v, want %+v", g, want)
			}
		}
	})
}

func TestStridedOutputsArriveDense(t *testing.T) {
	withEngine(t, func(e *Engine) {
		if err := e.Admit(1, json.RawMessage(`{"fault":"transposed"}`)); err != nil {
			t.Error(err)
		}
		got, err := e.Step([]uint64{1})
		if err != nil {
			t.Error(err)
			return
		}
		want := Tensor{
			Name: "transposed", DType: "int32", Shape: []int64{3, 2},
			Data: []byte{0, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0, 4, 0, 0, 0, 2, 0, 0, 0, 5, 0, 0, 0},
		}
		if !reflect.DeepEqual(got[0].Tensors, []Tensor{want}) {
			t.Errorf("got %+v, want %+v", got[0].Tensors, want)
		}
	})
}

func TestStepErrorsKeepTheirCode(t *testing.T) {
	tests := map[string]struct {
		code Code
		text string
	}{
		"error":   {Cancelled, "cancelled by request"},
		"torch":   {Internal, "mat1 and mat2 shapes cannot be multiplied"},
		"std":     {Internal, "beyond the end"},
		"unknown": {Internal, "unknown type"},
		"dtype":   {Internal, `tensor "complex" has a dtype`},
	}
	for fault, test := range tests {
		t.Run(fault, func(t *testing.T) {
			withEngine(t, func(e *Engine) {
				if err := e.Admit(1, json.RawMessage(`{"fault":"`+fault+`"}`)); err != nil {
					t.Error(err)
				}
				_, err := e.Step([]uint64{1})
				wantCode(t, err, test.code, "step engine", test.text)
			})
		})
	}
}

func TestErrorOfOneSequenceIsInItsResult(t *testing.T) {
	withEngine(t, func(e *Engine) {
		for sequence, params := range map[uint64]string{1: `{"fault":"sequence"}`, 2: `{}`} {
			if err := e.Admit(sequence, json.RawMessage(params)); err != nil {
				t.Error(err)
			}
		}
		got, err := e.Step([]uint64{1, 2})
		if err != nil || len(got) != 2 {
			t.Errorf("got %d results, %v, want 2", len(got), err)
			return
		}
		wantCode(t, got[0].Err, ResourceExhausted, "advance sequence", "too long")
		if got[0].State != Failed || got[1].State != Ready || got[1].Err != nil {
			t.Errorf("got states %s and %s (%v), want failed and ready", got[0].State, got[1].State, got[1].Err)
		}
	})
}

func TestEngineRefusesBadArguments(t *testing.T) {
	withEngine(t, func(e *Engine) {
		if err := e.Admit(1, json.RawMessage(`{}`)); err != nil {
			t.Error(err)
		}
		step := func(sequences ...uint64) error {
			_, err := e.Step(sequences)
			return err
		}
		feed := func(tensors ...Tensor) error { return e.Feed(1, Input{Tensors: tensors}) }
		wantCode(t, e.Admit(1, json.RawMessage(`{}`)), InvalidArgument, "sequence 1 is in use")
		wantCode(t, e.Admit(2, nil), InvalidArgument, "NULL")
		wantCode(t, e.Admit(2, json.RawMessage(`{"max_tokens":`)), InvalidArgument, "not JSON")
		wantCode(t, e.Admit(2, json.RawMessage(`{"colour":1}`)), InvalidArgument, `unknown key "colour"`, "max_tokens")
		wantCode(t, e.Admit(2, json.RawMessage(`[]`)), InvalidArgument, "expected a JSON object")
		wantCode(t, e.Admit(2, json.RawMessage(`{"fault":"admit"}`)), ResourceExhausted, "no room")
		wantCode(t, e.Admit(2, json.RawMessage(strings.Repeat("[", 1<<20))), InvalidArgument, "nested")
		wantCode(t, step(2), NotFound, "no sequence 2")
		wantCode(t, step(1, 1), InvalidArgument, "sequence 1 is listed twice")
		wantCode(t, e.Feed(2, Input{}), NotFound, "no sequence 2")
		wantCode(t, feed(Tensor{DType: "uint8", Shape: []int64{0}}), InvalidArgument, "no name")
		wantCode(t, feed(Tensor{Name: "x", DType: "int4"}), InvalidArgument, `unknown dtype "int4"`)
		wantCode(t, feed(Tensor{Name: "x", DType: "int32", Shape: []int64{2}, Data: make([]byte, 7)}),
			InvalidArgument, "takes 8 bytes, found 7")
		wantCode(t, feed(Tensor{Name: "x", DType: "int32", Shape: []int64{-1}}), InvalidArgument, "bad shape [-1]")
		wantCode(t, feed(Tensor{Name: "x", DType: "int32", Shape: []int64{1 << 62, 2}}), InvalidArgument, "bad shape")
		wantCode(t, feed(Tensor{Name: "x", DType: "int32", Shape: make([]int64, 9)}), InvalidArgument, "9 dimensions")
		if err := step(); err != nil {
			t.Errorf("a step of no sequences: %v", err)
		}
		if n := Live("sequence"); n != 1 {
			t.Errorf("%d sequences are alive, want 1", n)
		}
	})
}

func TestOpenEngineRefusesBadConfigs(t *testing.T) {
	checkNoLeaks(t)
	folder := writeCheckpoint(t)
	tests := map[string]struct {
		config string
		code   Code
		parts  []string
	}{
		"not JSON":            {`{`, InvalidArgument, []string{"engine config: not JSON"}},
		"no model":            {`{}`, InvalidArgument, []string{`"model" is missing`}},
		"unknown key":         {`{"modle":1}`, InvalidArgument, []string{`unknown key "modle"`, "model, checkpoint"}},
		"unknown model":       {`{"model":"bert"}`, InvalidArgument, []string{`unknown model "bert"`, "fake"}},
		"unknown dtype":       {`{"model":"fake","dtype":"int8"}`, InvalidArgument, []string{`"int8"`, "bfloat16"}},
		"no checkpoint":       {`{"model":"fake"}`, InvalidArgument, []string{`"checkpoint" is missing`}},
		"checkpoint is gone":  {`{"model":"fake","checkpoint":"/nowhere"}`, NotFound, []string{"/nowhere", "no such folder"}},
		"batch of none":       {`{"model":"fake","max_batch":0}`, InvalidArgument, []string{`"max_batch"`, "> 0", "found 0"}},
		"device of no kind":   {`{"model":"fake","checkpoint":"` + folder + `","device":"tpu"}`, InvalidArgument, []string{`"tpu"`}},
		"device index is bad": {`{"model":"fake","checkpoint":"` + folder + `","device":"cuda:x"}`, InvalidArgument, []string{`"cuda:x"`}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			onThread(t, func() {
				e, err := OpenEngine(json.RawMessage(test.config))
				if e != nil {
					e.Close()
				}
				wantCode(t, err, test.code, append(test.parts, "open engine")...)
			})
		})
	}
}

func TestCallsOffTheTorchThreadFail(t *testing.T) {
	checkNoLeaks(t)
	var engine *Engine
	config := fakeConfig(t)
	onThread(t, func() {
		var err error
		if engine, err = OpenEngine(config); err != nil {
			t.Error(err)
		}
	})
	defer engine.Close()
	_, err := OpenEngine(config)
	wantCode(t, err, WrongThread)
	_, err = engine.Step(nil)
	wantCode(t, err, WrongThread)
	wantCode(t, engine.Load(nil), WrongThread)
	wantCode(t, engine.Admit(1, json.RawMessage(`{}`)), WrongThread)
	wantCode(t, engine.Feed(1, Input{}), WrongThread)
	wantCode(t, engine.Release(1), WrongThread)
	_, err = StartRecorder(json.RawMessage(`{}`))
	wantCode(t, err, WrongThread)
	wantCode(t, Init(1), WrongThread)
	if _, err := engine.Info(); err != nil {
		t.Errorf("info works on any thread: %v", err)
	}
}

func TestClosedEngineRefuses(t *testing.T) {
	withEngine(t, func(e *Engine) {
		if err := e.Admit(1, json.RawMessage(`{}`)); err != nil {
			t.Error(err)
		}
		for range 2 {
			if err := e.Close(); err != nil {
				t.Error(err)
			}
		}
		_, err := e.Step([]uint64{1})
		wantCode(t, err, FailedPrecondition, "already closed")
		_, err = e.Info()
		wantCode(t, err, FailedPrecondition, "already closed")
		wantCode(t, e.Load(nil), FailedPrecondition, "already closed")
		wantCode(t, e.Admit(2, nil), FailedPrecondition, "already closed")
		wantCode(t, e.Feed(1, Input{}), FailedPrecondition, "already closed")
		wantCode(t, e.Release(1), FailedPrecondition, "already closed")
	})
}

func TestForgottenEngineIsFreed(t *testing.T) {
	checkNoLeaks(t)
	config := fakeConfig(t)
	onThread(t, func() {
		if _, err := OpenEngine(config); err != nil {
			t.Error(err)
		}
		if n := Live("engine"); n != 1 {
			t.Errorf("%d engines are alive, want 1", n)
		}
	})
	// Cleanups run some time after a collection has found the engine unreachable.
	for range 1000 {
		runtime.GC()
		if Live("engine") == 0 {
			break
		}
		runtime.Gosched()
	}
}
