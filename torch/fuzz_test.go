package torch

import (
	"encoding/json"
	"errors"
	"testing"
)

// FuzzCheckpoint feeds arbitrary bytes as a checkpoint's config and weights: the library opens them or says what is
// wrong, and keeps nothing.
func FuzzCheckpoint(f *testing.F) {
	header := `{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}`
	f.Add([]byte(`{}`), []byte("\x02\x00\x00\x00\x00\x00\x00\x00{}"))
	f.Add([]byte(`{"a":[1,null]}`), []byte(string(rune(len(header)))+"\x00\x00\x00\x00\x00\x00\x00"+header+"12345678"))
	f.Add([]byte(`[`), []byte("\xff\xff\xff\xff\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, config, weights []byte) {
		checkNoLeaks(t)
		folder := t.TempDir()
		writeFile(t, folder, "config.json", string(config))
		writeFile(t, folder, "model.safetensors", string(weights))
		request, err := json.Marshal(map[string]string{"model": "fake", "checkpoint": folder})
		if err != nil {
			t.Fatal(err)
		}
		onThread(t, func() {
			e, err := OpenEngine(request)
			if err == nil {
				e.Close()
				return
			}
			if coded := (*Error)(nil); !errors.As(err, &coded) || coded.Code != InvalidArgument {
				t.Errorf("got %v, want an INVALID_ARGUMENT", err)
			}
		})
	})
}

// FuzzParams feeds arbitrary bytes as the parameters of a sequence.
func FuzzParams(f *testing.F) {
	f.Add([]byte(`{}`))
	f.Add([]byte(`{"max_tokens":1e400,"fault":"\ud800"}`))
	f.Add([]byte("{\"fault\":\"\xff\"}"))
	f.Fuzz(func(t *testing.T, params []byte) {
		withEngine(t, func(e *Engine) {
			if err := e.Admit(1, params); err != nil {
				if coded := (*Error)(nil); !errors.As(err, &coded) || coded.Message == "" {
					t.Errorf("got %v, want an *Error with a message", err)
				}
			}
		})
	})
}
