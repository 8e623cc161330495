package client_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/omni-run/omni/api/client"
)

// answering is a client of a server that answers every request alike.
func answering(t *testing.T, status int, text string) *client.Client {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.URL.Path != "/v1/chat/completions" || r.Header.Get("Authorization") != "Bearer secret" || len(body) == 0 {
			w.WriteHeader(http.StatusTeapot)
			return
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, text)
	}))
	t.Cleanup(server.Close)
	return &client.Client{URL: server.URL + "/", Key: "secret"}
}

// read returns the text of an answer, and the error that ends it.
func read(t *testing.T, c *client.Client) (text string, err error) {
	t.Helper()
	for piece, failed := range c.Stream(t.Context(), client.Chat{Messages: []client.Message{{Role: "user", Content: "x"}}}) {
		if failed != nil {
			return text, failed
		}
		text += piece.Text + string(piece.Audio)
	}
	return text, nil
}

func TestStream(t *testing.T) {
	const hi = `data: {"choices":[{"delta":{"content":"Hi "}}]}` + "\n\n"
	text, err := read(t, answering(t, 200, ": a comment\n\n"+hi+`data: {"choices":[{"delta":{"audio":{"data":"eW91"}}}]}`+"\n\ndata: [DONE]\n\n"))
	require.NoError(t, err)
	require.Equal(t, "Hi you", text)

	text, err = read(t, answering(t, 200, hi))
	require.ErrorIs(t, err, client.ErrTruncated)
	require.Equal(t, "Hi ", text)

	_, err = read(t, answering(t, 200, hi+`data: {"error":{"message":"it broke","code":"internal_error"}}`+"\n\n"))
	var failed *client.Error
	require.ErrorAs(t, err, &failed)
	require.Equal(t, "it broke internal_error", failed.Message+" "+failed.Code)

	_, err = read(t, answering(t, 429, `{"error":{"message":"later","type":"rate_limit_error"}}`))
	require.ErrorAs(t, err, &failed)
	require.Equal(t, 429, failed.Status)
	require.ErrorContains(t, err, "the server answers 429: later")

	_, err = read(t, answering(t, 502, "<html>bad gateway</html>"))
	require.ErrorContains(t, err, "502: <html>bad gateway</html>")
	_, err = read(t, answering(t, 200, "data: {nonsense\n\n"))
	require.ErrorContains(t, err, "read an event")
	_, err = read(t, answering(t, 200, `data: {"choices":[{"delta":{"audio":{"data":"*"}}}]}`+"\n\n"))
	require.ErrorContains(t, err, "read the audio")
}
