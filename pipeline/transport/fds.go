package transport

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// maxFDs is how many descriptors may come with one read; a frame has at most one.
const maxFDs = 8

// fdReader reads a unix socket's bytes and keeps the descriptors that come with them. A descriptor arrives with the
// first byte of its frame at the latest, so it is here before the frame's prefix has been read.
type fdReader struct {
	conn    *net.UnixConn
	oob     []byte
	waiting []*os.File
}

// Read implements io.Reader.
func (r *fdReader) Read(p []byte) (int, error) {
	n, oobn, flags, _, err := r.conn.ReadMsgUnix(p, r.oob)
	if oobn > 0 {
		if keepErr := r.keep(r.oob[:oobn]); keepErr != nil {
			return 0, keepErr
		}
	}
	if errors.Is(err, io.EOF) { // net wraps it, readers compare it
		return 0, io.EOF
	}
	if err != nil {
		return 0, err // n is -1
	}
	if flags&unix.MSG_CTRUNC != 0 {
		return 0, fmt.Errorf("malformed frame: more than %d descriptors at once", maxFDs)
	}
	return n, nil
}

// keep takes over the descriptors of control data.
func (r *fdReader) keep(oob []byte) error {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return fmt.Errorf("control data of a frame: %w", err)
	}
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			return fmt.Errorf("control data of a frame: %w", err)
		}
		for _, fd := range fds {
			r.waiting = append(r.waiting, os.NewFile(uintptr(fd), "omni-body"))
		}
	}
	// The kernel ends a read after a message with descriptors, and the next read follows when its frame is being read.
	if len(r.waiting) > maxFDs {
		r.discard()
		return errors.New("malformed frames: descriptors without a frame")
	}
	return nil
}

// next implements bodies.
func (r *fdReader) next() *os.File {
	if len(r.waiting) == 0 {
		return nil
	}
	file := r.waiting[0]
	r.waiting = r.waiting[1:]
	return file
}

// discard closes the descriptors that no frame has asked for.
func (r *fdReader) discard() {
	for _, file := range r.waiting {
		_ = file.Close() // nothing to be lost
	}
	r.waiting = nil
}
