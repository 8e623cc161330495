package client_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/omni-run/omni/api/client"
)

// saying answers every request with the same text, without a network.
type saying string

// RoundTrip implements http.RoundTripper.
func (s saying) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader(string(s))), Request: r}, nil
}

// FuzzStream reads any text as a stream of events: nothing may panic, the stream ends, and one without its mark is an error.
func FuzzStream(f *testing.F) {
	const hi = `data: {"choices":[{"delta":{"content":"Hi "}}]}` + "\n\n"
	f.Add(": a comment\n\n" + hi + `data: {"choices":[{"delta":{"audio":{"data":"eW91"}},"finish_reason":"stop"}]}` + "\n\ndata: [DONE]\n\n")
	f.Add(hi + `data: {"choices":[],"usage":{"prompt_tokens":1},"metrics":{"stages":[{}]}}` + "\r\n\r\ndata: [DONE]\r\n\r\n")
	f.Add(hi + `data: {"error":{"message":"it broke","code":"internal_error"}}` + "\n\n")
	f.Add(hi)
	f.Add("data: {nonsense\n\n")
	f.Add("event: x\nid: 7\nretry: 5\n\ndata:[DONE]\n")
	f.Add("data: null\ndata: []\ndata: {\"choices\":null,\"error\":{}}\n")
	f.Add("\x00\xff\n")
	f.Fuzz(func(t *testing.T, text string) {
		c := &client.Client{URL: "http://server.invalid", HTTP: &http.Client{Transport: saying(text)}}
		pieces, ended := 0, error(nil)
		for _, err := range c.Stream(t.Context(), client.Chat{Messages: []client.Message{{Role: "user", Content: "x"}}}) {
			if ended != nil {
				t.Fatalf("something came after %v", ended)
			}
			if ended = err; err == nil {
				pieces++
			}
		}
		if ended == nil && !strings.Contains(text, "[DONE]") {
			t.Errorf("got %d pieces and no error of a stream without a mark", pieces)
		}
		if errors.Is(ended, client.ErrTruncated) && strings.HasSuffix(text, "\ndata: [DONE]\n") {
			t.Errorf("got %v of a stream with its mark", ended)
		}
	})
}
