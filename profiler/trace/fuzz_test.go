package trace

import (
	"errors"
	"io"
	"strings"
	"testing"
)

// FuzzReader reads any bytes as a trace: nothing may panic, every fault names the file, and reading ends.
func FuzzReader(f *testing.F) {
	f.Add("{\"schemaVersion\":1,\"baseTimeNanoseconds\":5,\"traceEvents\":[{\"ph\":\"X\",\"name\":\"a\",\"pid\":1,\"tid\":\"x\",\"ts\":1.5,\"dur\":2}]}")
	f.Add("[{\"ph\":\"X\",\"name\":\"\\ud83d\",\"ts\":\"2.5\",\"args\":{\"a\":[{}]}}]")
	f.Add("{\"traceEvents\":[{\"ts\":1e400}]}")
	f.Add("{\"traceEvents\":[{\"ph\":\"X\"")
	f.Add("\x1f\x8b\x08\x00")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := NewReader(strings.NewReader(text), "fuzz.json")
		for err == nil {
			var e Event
			if err = r.Next(&e); errors.Is(err, io.EOF) {
				_, _ = r.Header().Base() // a fault of the header is an error
				return
			}
		}
		if !strings.Contains(err.Error(), "fuzz.json") {
			t.Errorf("got %v, want the name of the file", err)
		}
	})
}
