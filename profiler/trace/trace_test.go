package trace

import (
	"bufio"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"
)

func read(t *testing.T, text string) (Header, []Event, error) {
	t.Helper()
	r, err := NewReader(strings.NewReader(text), "test.json")
	if err != nil {
		return nil, nil, err
	}
	var all []Event
	for {
		var e Event
		if err := r.Next(&e); errors.Is(err, io.EOF) {
			return r.Header(), all, nil
		} else if err != nil {
			return nil, nil, err
		}
		e.Args, e.Other = e.Args.Clone(), append([]byte(nil), e.Other...)
		all = append(all, e)
	}
}

func TestReader(t *testing.T) {
	header, events, err := read(t, `{"schemaVersion": 1, "distributedInfo": {"rank": 2, "world_size": 3},
		"omni": {"session": "s1", "worker": "stage-1", "stage": 1}, "baseTimeNanoseconds": 1790857026000000000,
		"traceEvents": [
		{ "ph" : "X", "cat":"cpu_op", "name":"aten::\"mm\" \ud83d\ude00", "pid": 7, "tid": "main", "ts":4454350071378.643,"dur":13.2, "args": {"External id": 5, "Input Dims": [[2, 3], []], "s": "a\"}b"}},
		{"ph":"s","id":18,"pid":7,"tid":8,"ts":5,"cat":"ac2g","name":"ac2g"},
		{"ph":"f","id":"0x12","pid":7,"tid":8,"ts":"6.5","cat":"ac2g","name":"ac2g","bp":"e","cname":"good"},
		{"ph":"i","s":"g","name":"end","pid":"","tid":"","ts":1.5e3}
		], "omniTotals": {"events": 4}, "traceName": "x"}`)
	require.NoError(t, err)
	base, err := header.Base()
	require.NoError(t, err)
	require.EqualValues(t, 1790857026000000000, base)
	require.Equal(t, Source{Session: "s1", Worker: "stage-1", Stage: 1, Rank: 2}, header.Source())
	require.JSONEq(t, `{"events": 4}`, string(header["omniTotals"]))
	require.Len(t, events, 4)
	require.Equal(t, Event{
		Phase: "X", Category: "cpu_op", Name: `aten::"mm" 😀`, Process: Number(7), Thread: ID{Text: "main", IsText: true},
		Time: 4454350071378643, Duration: 13200, Args: events[0].Args,
	}, events[0])
	require.JSONEq(t, `{"External id": 5, "Input Dims": [[2, 3], []], "s": "a\"}b"}`, string(events[0].Args))
	require.Equal(t, Number(18), events[1].Flow)
	require.Equal(t, `"cname":"good"`, string(events[2].Other))
	require.Equal(t, ID{Text: "0x12", IsText: true}, events[2].Flow)
	require.EqualValues(t, 6500, events[2].Time)
	require.Equal(t, ID{IsText: true}, events[3].Process)
	require.EqualValues(t, 1_500_000, events[3].Time)
}

func TestHeadersSayWhetherThereWereGPUs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "trace.json")
	for text, without := range map[string]bool{
		`{"deviceProperties": [], "traceEvents": [], "deviceProperties": [{"id": 0}]}`: true, // what stands after the events is not read
		`{"deviceProperties": [{"id": 0}], "traceEvents": []}`:                         false,
		`{"deviceProperties": "odd", "traceEvents": []}`:                               false,
		`{"traceEvents": []}`: false,
		`[]`:                  false,
	} {
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		header, err := ReadHeader(path)
		require.NoError(t, err)
		require.Equal(t, without, header.WithoutGPUs(), text)
	}
	_, err := ReadHeader(filepath.Join(t.TempDir(), "none.json"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestReaderTakesBareListsAndRefusesTheRest(t *testing.T) {
	_, events, err := read(t, `[{"ph":"X","name":"a","ts":1,"dur":2}]`)
	require.NoError(t, err)
	require.Len(t, events, 1)
	tests := map[string]string{
		`{"traceEvents": [{"ph":"X","name":"a","ts":1`:           "the file ends after 0 events",
		`{"traceEvents": [{"ph":"X","name":"a","ts":1,"dur":2}`:  "the file ends after 1 events",
		`{"traceEvents": [{"ph":"X","name":"a","ts":1,"dur":2}]`: "the file ends after 1 events",
		`[{"ph":"X","name":"a","ts":1,"dur":2},`:                 "the file ends after 1 events",
		`{"a": 1}`:                                               ErrNoTrace.Error(),
		`17`:                                                     ErrNoTrace.Error(),
		``:                                                       "the file ends after 0 events",
		`{"traceEvents": [1]}`:                                   "event 1 is 1, expected an object",
		`{"traceEvents": [{"ts":"x"}]}`:                          "ts:",
		"\x1f\x8bnonsense":                                       "test.json",
	}
	for text, want := range tests {
		_, _, err := read(t, text)
		require.ErrorContains(t, err, want, text)
		require.ErrorContains(t, err, "trace test.json", text)
	}
}

func TestMicroseconds(t *testing.T) {
	tests := map[string]int64{
		"0": 0, "1": 1000, "1.5": 1500, "0.001": 1, "-1.25": -1250, "-0.5": -500, "4454350071378.643": 4454350071378643,
		"1.23456": 1234, "1e3": 1_000_000, `"2.5"`: 2500,
	}
	for text, want := range tests {
		got, err := parseMicroseconds([]byte(text))
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
	}
	require.Equal(t, "1.005", string(appendMicroseconds(nil, 1005)))
	require.Equal(t, "-0.090", string(appendMicroseconds(nil, -90)))
}

func TestWriterRoundTrip(t *testing.T) {
	for _, name := range []string{"a.json", "sub/a.json.gz"} {
		path := filepath.Join(t.TempDir(), name)
		w, err := Create(path)
		require.NoError(t, err)
		require.NoError(t, w.Member("schemaVersion", jsontext.Value("1")))
		events := []Event{
			{Phase: "X", Category: "cpu_op", Name: "quote\" back\\ 😀 \x01\xff", Process: Number(1), Thread: Number(2), Time: 1001, Duration: 0, Args: jsontext.Value(`{"t":"\ud83d\ude00"}`)},
			{Phase: "f", Category: "r", Name: "r", Process: Number(1), Thread: ID{Text: "x", IsText: true}, Flow: Number(3), HasFlow: true, Binding: "e", Scope: "t", Other: []byte(`"k":1`)},
		}
		for i := range events {
			require.NoError(t, w.Write(&events[i]))
		}
		require.NoError(t, w.Member("omniTotals", jsontext.Value(`{}`)))
		require.NoFileExists(t, path)
		require.NoError(t, w.Commit())
		w.Discard()
		r, err := Open(path)
		require.NoError(t, err)
		var e Event
		require.NoError(t, r.Start())
		require.Equal(t, "1", string(r.Header()["schemaVersion"]))
		require.NoError(t, r.Next(&e))
		require.Equal(t, "quote\" back\\ 😀 \x01\uFFFD", e.Name)
		require.Equal(t, `{"t":"😀"}`, string(e.Args))
		require.EqualValues(t, 1001, e.Time)
		require.NoError(t, r.Next(&e))
		require.Equal(t, events[1], Event{
			Phase: e.Phase, Category: e.Category, Name: e.Name, Process: e.Process, Thread: e.Thread, Flow: e.Flow,
			HasFlow: e.HasFlow, Binding: e.Binding, Scope: e.Scope, Other: e.Other,
		})
		require.ErrorIs(t, r.Next(&e), io.EOF)
		require.Contains(t, r.Header(), "omniTotals")
		require.NoError(t, r.Close())
	}
}

func TestWriterLeavesOneGzipMemberOrNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.json.gz")
	w, err := Create(path)
	require.NoError(t, err)
	require.NoError(t, w.Write(&Event{Phase: "X", Name: "a"}))
	require.NoError(t, w.Commit())
	file, err := os.Open(path)
	require.NoError(t, err)
	defer file.Close()
	content := bufio.NewReader(file) // what gzip reads from a ByteReader it does not read ahead of
	zip, err := gzip.NewReader(content)
	require.NoError(t, err)
	zip.Multistream(false)
	_, err = io.Copy(io.Discard, zip)
	require.NoError(t, err)
	require.ErrorIs(t, zip.Reset(content), io.EOF, "another member follows")
	w, err = Create(path + ".gz")
	require.NoError(t, err)
	w.Discard()
	entries, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Len(t, entries, 1)
}
