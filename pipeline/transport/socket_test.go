package transport_test

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/omni-run/omni/pipeline/message"
	"github.com/omni-run/omni/pipeline/transport"
	"github.com/omni-run/omni/pipeline/transport/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func pair(t *testing.T) (a, b *transport.Socket) {
	t.Helper()
	a, file, err := transport.Pair()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	b, err = transport.FromFile(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return a, b
}

func TestSocketIsAConn(t *testing.T) {
	transporttest.Run(t, func(t *testing.T) (transport.Conn, transport.Conn) {
		a, b := pair(t)
		return a, b
	})
}

// raw returns a Socket and the bare other end of it.
func raw(t *testing.T) (*transport.Socket, *net.UnixConn) {
	t.Helper()
	s, file, err := transport.Pair()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	conn, err := net.FileConn(file)
	if err != nil {
		t.Fatal(err)
	}
	file.Close()
	t.Cleanup(func() { conn.Close() })
	return s, conn.(*net.UnixConn)
}

func prefix(magic string, flags, header uint32, body uint64) []byte {
	p := make([]byte, 20)
	copy(p, magic)
	binary.LittleEndian.PutUint32(p[4:], flags)
	binary.LittleEndian.PutUint32(p[8:], header)
	binary.LittleEndian.PutUint64(p[12:], body)
	return p
}

func TestMalformedFramesAreErrors(t *testing.T) {
	feed := `{"type":"feed","tensors":[{"name":"x","dtype":"uint8","shape":[5]}],"payload":{"sequence":1,"sent_ns":0}}`
	framed := func(flags uint32, header string, body uint64) []byte {
		return append(prefix("OMN1", flags, uint32(len(header)), body), header...)
	}
	memfd := func(t *testing.T, size int64) int {
		fd, err := unix.MemfdCreate("test", unix.MFD_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		if err := unix.Ftruncate(fd, size); err != nil {
			t.Fatal(err)
		}
		return fd
	}
	tests := map[string]struct {
		bytes []byte
		fds   func(t *testing.T) []int
		want  string
	}{
		"text":                      {bytes: []byte("Hello, this is not a frame."), want: `expected "OMN1", found "Hello, this is not a"`},
		"a cut prefix":              {bytes: []byte("OMN1"), want: "inside a frame"},
		"unknown flags":             {bytes: prefix("OMN1", 6, 1, 0), want: "unknown flags 0x6"},
		"no header":                 {bytes: prefix("OMN1", 0, 0, 0), want: "header of 0 bytes"},
		"a huge header":             {bytes: prefix("OMN1", 0, 1<<31, 0), want: "header of 2147483648 bytes"},
		"a huge inline body":        {bytes: prefix("OMN1", 0, 2, 1<<20), want: "inline body of 1048576 bytes"},
		"a huge body":               {bytes: prefix("OMN1", 1, 2, 1<<62), want: "body of 4611686018427387904 bytes"},
		"a cut header":              {bytes: append(prefix("OMN1", 0, 100, 0), '{'), want: "header of 100 bytes: the connection ended inside a frame"},
		"a cut body":                {bytes: framed(0, feed, 5), want: "body of 5 bytes: the connection ended inside a frame"},
		"a header that is no JSON":  {bytes: framed(0, "nonsense", 0), want: "decode header"},
		"no descriptor":             {bytes: framed(1, feed, 5), want: "announces a descriptor and has none"},
		"a descriptor of less":      {bytes: framed(1, feed, 5), fds: func(t *testing.T) []int { return []int{memfd(t, 4)} }, want: "of 4 bytes, expected a regular file of 5"},
		"a descriptor of no file":   {bytes: framed(1, feed, 5), fds: func(*testing.T) []int { return []int{0} }, want: "expected a regular file"},
		"descriptors without frame": {bytes: []byte("OMN1"), fds: func(t *testing.T) []int { f := memfd(t, 1); return []int{f, f, f, f, f, f, f, f, f} }, want: "descriptors"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s, conn := raw(t)
			var oob []byte
			if tt.fds != nil {
				oob = unix.UnixRights(tt.fds(t)...)
			}
			if _, _, err := conn.WriteMsgUnix(tt.bytes, oob, nil); err != nil {
				t.Fatal(err)
			}
			if err := conn.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			m, err := s.Recv()
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v and error %v, want an error with %q", m, err, tt.want)
			}
			if errors.Is(err, io.EOF) {
				t.Errorf("error %v passes for an orderly end", err)
			}
		})
	}
}

func TestDescriptorsDoNotLeak(t *testing.T) {
	count := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	before := count()
	for range 5 {
		a, file, err := transport.Pair()
		if err != nil {
			t.Fatal(err)
		}
		b, err := transport.FromFile(file)
		if err != nil {
			t.Fatal(err)
		}
		big := &message.Feed{Sequence: 1, Tensors: []message.Tensor{{Name: "x", DType: "uint8", Shape: []int64{100_000}, Data: make([]byte, 100_000)}}}
		for range 20 { // some are received, the others are in the socket or in the queue when both sides close
			if err := a.Send(t.Context(), big); err != nil {
				t.Fatal(err)
			}
		}
		for range 3 {
			if _, err := b.Recv(); err != nil {
				t.Fatal(err)
			}
		}
		a.Close()
		b.Close()
	}
	if after := count(); after > before {
		t.Errorf("%d descriptors are open, %d were before", after, before)
	}
}

func TestFromFileRefusesWhatIsNoSocket(t *testing.T) {
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	if s, err := transport.FromFile(file); err == nil {
		s.Close()
		t.Error("a plain file became a socket")
	}
}
