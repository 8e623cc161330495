package transport

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"runtime"
	"testing"

	"github.com/omni-run/omni/pipeline/message"
)

// bytesOf returns a message as it travels inline.
func bytesOf(t testing.TB, m message.Message) []byte {
	t.Helper()
	header, pieces, err := message.Encode(m)
	if err != nil {
		t.Fatal(err)
	}
	body := bytes.Join(pieces, nil)
	f := frame{header: header, size: int64(len(body))}
	return bytes.Join([][]byte{f.prefix(), header, body}, nil)
}

// FuzzFrames reads any bytes as a stream of frames. Nothing may panic, and what is accepted must survive another round.
func FuzzFrames(f *testing.F) {
	seeds := []message.Message{
		&message.Hello{Protocol: 1, ABI: 1, Build: "b", PID: 1},
		&message.Open{Worker: "stage-0", World: 1, MaxBatch: 1, Engine: json.RawMessage(`{"model":"m"}`)},
		&message.Feed{Sequence: 1, Tokens: []int64{1}, Tensors: []message.Tensor{{Name: "x", DType: "float32", Shape: []int64{2}, Data: make([]byte, 8)}}},
		&message.Output{Sequence: 1, State: message.StateFailed, Error: message.Errorf(message.Internal, "x")},
		&message.Drain{},
	}
	var all []byte
	for _, m := range seeds {
		b := bytesOf(f, m)
		f.Add(b)
		all = append(all, b...)
	}
	f.Add(all)
	f.Add(all[:len(all)-3])
	f.Add([]byte("OMN1\x01\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00{}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bytes.NewReader(data)
		for {
			header, body, err := readFrame(r, &fdReader{})
			if err != nil {
				if errors.Is(err, io.EOF) && r.Len() != 0 {
					t.Fatalf("EOF with %d bytes left", r.Len())
				}
				return
			}
			m, err := message.Decode(header, body)
			if err != nil {
				continue
			}
			again := bytesOf(t, m)
			header, body, err = readFrame(bytes.NewReader(again), &fdReader{})
			if err != nil {
				t.Fatalf("accepted %s, then refused its encoding: %v", m.Kind(), err)
			}
			if _, err := message.Decode(header, body); err != nil {
				t.Fatalf("accepted %s, then refused its encoding: %v", m.Kind(), err)
			}
		}
	})
}

func TestMemoryIsTakenForWhatArrives(t *testing.T) {
	announced := bytesOf(t, &message.Drain{})
	announced[8], announced[9], announced[10] = 0, 0, 0xff // a header of 16 MB that never comes
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, _, err := readFrame(bytes.NewReader(announced), &fdReader{}); err == nil {
		t.Error("a cut frame was accepted")
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 4<<20 {
		t.Errorf("%d bytes allocated for a frame of %d", n, len(announced))
	}
}

func BenchmarkRoundTrip(b *testing.B) {
	for name, size := range map[string]int{"1KB": 1 << 10, "64KB": 64 << 10, "8MB": 8 << 20} {
		b.Run(name, func(b *testing.B) {
			near, file, err := Pair()
			if err != nil {
				b.Fatal(err)
			}
			defer near.Close()
			far, err := FromFile(file)
			if err != nil {
				b.Fatal(err)
			}
			defer far.Close()
			go func() {
				for {
					m, err := far.Recv()
					if err != nil {
						return
					}
					f := m.(*message.Feed)
					_ = far.Send(b.Context(), &message.Pong{ID: f.Sequence}) // the benchmark would stop
				}
			}()
			m := &message.Feed{Sequence: 1, Tensors: []message.Tensor{{Name: "x", DType: "uint8", Shape: []int64{int64(size)}, Data: make([]byte, size)}}}
			b.SetBytes(int64(size))
			for b.Loop() {
				if err := near.Send(b.Context(), m); err != nil {
					b.Fatal(err)
				}
				if _, err := near.Recv(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
