package torch

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
)

// FuzzCheckpoint feeds arbitrary bytes as a checkpoint's config and weights: the library opens them or says what is
// wrong, and keeps nothing.
func FuzzCheckpoint(f *testing.F) {
	header := `{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}`
	f.Add([]byte(`{}`), []byte("\x02\x00\x00\x00\x00\x00\x00\x00{}"))
	f.Add([]byte(`{"a":[1,null]}`), []byte(string(rune(len(header)))+"\x00\x00\x00\x00\x00\x00\x00"+header+"12345678"))
	f.Add([]byte(`{}`), []byte("\x3a\x00\x00\x00\x00\x00\x00\x00"+`{"w":{"dtype":"BF16","shape":[2,0,3],"data_offsets":[0,0]}}`))
	f.Add([]byte(`[`), []byte("\xff\xff\xff\xff\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, config, weights []byte) {
		checkNoLeaks(t)
		folder := t.TempDir()
		writeFile(t, folder, "config.json", string(config))
		writeFile(t, folder, "model.safetensors", string(weights))
		openOrRefuse(t, folder)
	})
}

// FuzzIndex feeds arbitrary bytes as the index of a checkpoint in two files.
func FuzzIndex(f *testing.F) {
	f.Add([]byte(`{"metadata":{"total_size":16},"weight_map":{"a":"model-00001-of-00002.safetensors","b":"model-00002-of-00002.safetensors"}}`))
	f.Add([]byte(`{"weight_map":{"a":"model-00002-of-00002.safetensors","b":"model-00001-of-00002.safetensors"}}`))
	f.Add([]byte(`{"weight_map":{"a":"../config.json","b":"/etc/passwd","c":"","d":"."}}`))
	f.Add([]byte(`{"weight_map":{"a":7,"b":null}}`))
	f.Add([]byte(`{"weight_map":{}}`))
	f.Add([]byte(`{"weight_map":[]}`))
	f.Add([]byte(`{"metadata":{"total_size":-1},"weight_map":{"a":"missing.safetensors"}}`))
	f.Add([]byte(`{`))
	f.Fuzz(func(t *testing.T, index []byte) {
		checkNoLeaks(t)
		folder := t.TempDir()
		writeFile(t, folder, "config.json", "{}")
		writeFile(t, folder, "model.safetensors.index.json", string(index))
		for i, name := range []string{"a", "b"} {
			header := fmt.Sprintf(`{%q:{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}`, name)
			length := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
			writeFile(t, folder, fmt.Sprintf("model-0000%d-of-00002.safetensors", i+1), string(length)+header+"12345678")
		}
		openOrRefuse(t, folder)
	})
}

// openOrRefuse opens a checkpoint, or gets an error that says what is wrong with it.
func openOrRefuse(t *testing.T, folder string) {
	t.Helper()
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
		coded := (*Error)(nil)
		if !errors.As(err, &coded) || coded.Code != InvalidArgument && coded.Code != NotFound || !strings.Contains(err.Error(), folder) {
			t.Errorf("got %v, want an INVALID_ARGUMENT or NOT_FOUND that names a file", err)
		}
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
