package message

import (
	"encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/omni-run/omni/profiler"
)

// every has one filled message of each kind.
func every() []Message {
	return []Message{
		&Hello{Protocol: Protocol, ABI: 1, Build: "omni-worker dev", PID: 7},
		&Open{Stage: 1, Name: "talker", Worker: "stage-1", Rank: 1, World: 3, Threads: 2, MaxBatch: 4, Prefill: 512, Engine: json.RawMessage(`{"model":"x"}`)},
		&Progress{Done: 1, Total: 2},
		&Ready{Info: json.RawMessage(`{"dtype":"float32"}`), RSS: 5},
		&Fault{Error: Error{Code: NotFound, Message: "no such file"}},
		&Admit{Sequence: 1, Request: "r", Params: json.RawMessage(`{}`), Cost: 3, Window: 8, Last: true, Full: true, SentNS: 9},
		&Feed{Sequence: 1, Tokens: []int64{1, -2}, Last: true, SentNS: 3, Tensors: []Tensor{
			{Name: "rows", DType: "bfloat16", Shape: []int64{2, 1}, Data: []byte{1, 2, 3, 4}},
			{Name: "none", DType: "float32", Shape: []int64{0, 8}, Data: []byte{}},
			{Name: "scalar", DType: "uint8", Shape: []int64{}, Data: []byte{5}},
		}},
		&Cancel{Sequence: 1},
		&Credit{Sequence: 1, Outputs: 4},
		&Output{
			Sequence: 2, State: StateDone, Finish: FinishStop, Tokens: []int64{math.MaxInt64}, SentNS: 1,
			Ledger:  Ledger{QueueNS: 1, WaitNS: 2, ComputeNS: 3, TransferNS: 4, Steps: 5, Tokens: 6, BytesIn: 7, BytesOut: 8},
			Tensors: []Tensor{{Name: "audio", DType: "float32", Shape: []int64{1}, Data: []byte{0, 0, 0, 0}}},
		},
		&Output{Sequence: 2, State: StateFailed, Error: &Error{Code: Cancelled, Message: "cancelled"}},
		&Ping{ID: 1},
		&Pong{ID: 1, StepNS: 2, Steps: 3, Sequences: 4, Queued: 5, Stepped: 6, Tokens: 7, Samples: 8, BusyNS: 9, RSS: 10, NowNS: 11},
		&ProfileStart{ID: 1, Start: profiler.Start{Session: "s1", Config: profiler.FromDir("/p"), StampNS: 4, TableBase: 3}},
		&ProfileStop{ID: 1, Discard: "stage 1 has no profiler"},
		&ProfileWait{ID: 1, Session: "s1"},
		&ProfileDump{ID: 1, Start: profiler.Start{Session: "s1", Config: profiler.FromDir("/d")}},
		&ProfileStatus{ID: 1},
		&ProfileReply{ID: 1, Report: profiler.Report{
			Identity: profiler.Identity{Worker: "stage-1", Stage: 1, Rank: 1, WorldSize: 3}, Session: "s1", State: profiler.StateDone,
			Dropped: map[string]int64{"buffer": 2}, Files: []profiler.File{{Path: "/p/a", Kind: "trace", Bytes: 9}},
		}},
		&ProfileReply{ID: 1, Error: &Error{Code: FailedPrecondition, Message: "busy"}},
		&Drain{},
		&Bye{Steps: 3},
	}
}

func TestEveryMessageSurvivesEncodingAndDecoding(t *testing.T) {
	for _, m := range every() {
		t.Run(string(m.Kind()), func(t *testing.T) {
			header, pieces, err := Encode(m)
			if err != nil {
				t.Fatal(err)
			}
			body := []byte{}
			for _, p := range pieces {
				body = append(body, p...)
			}
			got, err := Decode(header, body)
			if err != nil {
				t.Fatalf("decode %s: %v", header, err)
			}
			if !reflect.DeepEqual(got, m) {
				t.Errorf("got %+v, want %+v (header %s)", got, m, header)
			}
		})
	}
}

func TestHeaderIsTheDocumentedOne(t *testing.T) {
	header, _, err := Encode(&Feed{Sequence: 7, Tensors: []Tensor{
		{Name: "reply_rows", DType: "bfloat16", Shape: []int64{1, 2}, Data: make([]byte, 4)},
	}})
	if err != nil {
		t.Fatal(err)
	}
	want := `{"type":"feed","tensors":[{"name":"reply_rows","dtype":"bfloat16","shape":[1,2]}],"payload":{"sequence":7,"sent_ns":0}}`
	if string(header) != want {
		t.Errorf("got %s, want %s", header, want)
	}
}

func TestDecodeRefusesWhatEncodeCannotMake(t *testing.T) {
	feed := func(tensors string) string {
		return `{"type":"feed","tensors":` + tensors + `,"payload":{"sequence":1,"sent_ns":0}}`
	}
	tests := map[string]struct{ header, body, want string }{
		"nothing":                   {"", "", "nothing to decode"},
		"no JSON":                   {"garbage", "", "invalid character"},
		"two values":                {`{"type":"drain","payload":{}}{}`, "", "more than one JSON value"},
		"unknown type":              {`{"type":"reboot","payload":{}}`, "", `unknown message type "reboot"`},
		"no payload":                {`{"type":"drain"}`, "", "nothing to decode"},
		"unknown header field":      {`{"type":"drain","payload":{},"x":1}`, "", `unknown field "x"`},
		"unknown payload field":     {`{"type":"ping","payload":{"id":1,"x":1}}`, "", `unknown field "x"`},
		"wrong type of field":       {`{"type":"ping","payload":{"id":"1"}}`, "", "cannot unmarshal string"},
		"negative sequence":         {`{"type":"cancel","payload":{"sequence":-1}}`, "", "cannot unmarshal number -1"},
		"no sequence":               {`{"type":"cancel","payload":{}}`, "", "sequence must not be 0"},
		"unknown state":             {`{"type":"output","payload":{"sequence":1,"state":"odd","ledger":{},"sent_ns":0}}`, "", `unknown state "odd"`},
		"unknown finish":            {`{"type":"output","payload":{"sequence":1,"state":"done","finish":"odd"}}`, "", `unknown finish reason "odd"`},
		"failed without an error":   {`{"type":"output","payload":{"sequence":1,"state":"failed"}}`, "", "do not go together"},
		"unknown code":              {`{"type":"fault","payload":{"error":{"code":"ODD","message":"m"}}}`, "", `unknown error code "ODD"`},
		"fault without a message":   {`{"type":"fault","payload":{"error":{"code":"INTERNAL","message":""}}}`, "", "needs a code and a message"},
		"progress beyond the total": {`{"type":"progress","payload":{"done":3,"total":2}}`, "", "0 <= done <= total"},
		"body without tensors":      {`{"type":"drain","payload":{}}`, "x", "has 1 more than its tensors"},
		"tensors on a control":      {`{"type":"drain","tensors":[{"name":"a","dtype":"uint8","shape":[1]}],"payload":{}}`, "x", "cannot carry tensors"},
		"body too short":            {feed(`[{"name":"a","dtype":"float32","shape":[2]}]`), "1234", "needs 8 bytes, the body has 4 left"},
		"body too long":             {feed(`[{"name":"a","dtype":"float32","shape":[1]}]`), "12345", "has 1 more than its tensors"},
		"unknown dtype":             {feed(`[{"name":"a","dtype":"complex64","shape":[1]}]`), "", `unknown dtype "complex64"`},
		"no tensor name":            {feed(`[{"name":"","dtype":"uint8","shape":[1]}]`), "x", "expected 1..256"},
		"negative dimension":        {feed(`[{"name":"a","dtype":"uint8","shape":[-1]}]`), "", "negative dimension"},
		"dimensions that overflow":  {feed(`[{"name":"a","dtype":"int64","shape":[4294967296,4294967296]}]`), "", "too large"},
		"nine dimensions":           {feed(`[{"name":"a","dtype":"uint8","shape":[1,1,1,1,1,1,1,1,1]}]`), "x", "at most 8"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			m, err := Decode([]byte(tt.header), []byte(tt.body))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v and error %v, want an error with %q", m, err, tt.want)
			}
		})
	}
}

func TestEncodeRefusesTensorsThatDoNotFit(t *testing.T) {
	_, _, err := Encode(&Feed{Sequence: 1, Tensors: []Tensor{{Name: "a", DType: "int64", Shape: []int64{2}, Data: make([]byte, 8)}}})
	if err == nil || !strings.Contains(err.Error(), `tensor "a" of int64[2] needs 16 bytes, found 8`) {
		t.Errorf("got %v", err)
	}
}

func TestCodesHaveTheNumbersOfTheCHeader(t *testing.T) {
	want := map[Code]string{
		0: "OK", 1: "INVALID_ARGUMENT", 2: "NOT_FOUND", 3: "FAILED_PRECONDITION", 4: "UNIMPLEMENTED",
		5: "RESOURCE_EXHAUSTED", 6: "CANCELLED", 7: "DEVICE_LOST", 8: "WRONG_THREAD", 9: "INTERNAL",
	}
	for code, name := range want {
		if code.String() != name {
			t.Errorf("code %d is %s, want %s", int(code), code, name)
		}
	}
	if _, err := Code(10).MarshalText(); err == nil {
		t.Error("code 10 was encoded, want an error")
	}
}

func TestOnlyDataWaitsItsTurn(t *testing.T) {
	data := map[Kind]bool{KindAdmit: true, KindFeed: true, KindOutput: true}
	for _, m := range every() {
		if got := IsControl(m); got == data[m.Kind()] {
			t.Errorf("IsControl(%s) = %v", m.Kind(), got)
		}
	}
}
