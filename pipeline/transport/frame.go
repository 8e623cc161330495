package transport

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// Limits of a frame. A frame that announces more is malformed.
const (
	// Inline is the size in bytes above which a body travels as a memfd.
	Inline = 64 << 10
	// MaxHeader is the largest header in bytes.
	MaxHeader = 16 << 20
	// MaxBody is the largest body in bytes.
	MaxBody = 2 << 30
)

const (
	magic      = "OMN1"
	prefixSize = 20
	flagFD     = 1
)

// frame is a message on the wire. At most one of inline and file holds the body.
type frame struct {
	header []byte
	inline [][]byte // pieces
	file   *os.File // a memfd of size bytes, owned by the frame
	size   int64    // of the body
}

// prefix returns the fixed part of the frame.
func (f *frame) prefix() []byte {
	p := make([]byte, prefixSize)
	copy(p, magic)
	if f.file != nil {
		binary.LittleEndian.PutUint32(p[4:], flagFD)
	}
	binary.LittleEndian.PutUint32(p[8:], uint32(len(f.header)))
	binary.LittleEndian.PutUint64(p[12:], uint64(f.size))
	return p
}

// close frees the frame's memfd.
func (f *frame) close() {
	if f.file != nil {
		_ = f.file.Close() // nothing was written through this descriptor that could be lost
	}
}

// bodies hands out the descriptors that came with the bytes read so far, in their order; nil if there is none.
type bodies interface{ next() *os.File }

// readFrame reads one frame and returns its header and body. It returns io.EOF only between two frames.
func readFrame(r io.Reader, fds bodies) (header, body []byte, err error) {
	var prefix [prefixSize]byte
	if _, err := io.ReadFull(r, prefix[:]); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = ErrCut
		}
		return nil, nil, err
	}
	if string(prefix[:4]) != magic {
		return nil, nil, fmt.Errorf("malformed frame: expected %q, found %q", magic, prefix[:])
	}
	flags := binary.LittleEndian.Uint32(prefix[4:])
	headerSize := binary.LittleEndian.Uint32(prefix[8:])
	size := binary.LittleEndian.Uint64(prefix[12:])
	switch {
	case flags&^flagFD != 0:
		return nil, nil, fmt.Errorf("malformed frame: unknown flags %#x", flags)
	case headerSize == 0 || headerSize > MaxHeader:
		return nil, nil, fmt.Errorf("malformed frame: header of %d bytes, expected 1..%d", headerSize, MaxHeader)
	case flags == 0 && size > Inline:
		return nil, nil, fmt.Errorf("malformed frame: inline body of %d bytes, at most %d are allowed", size, Inline)
	case size > MaxBody:
		return nil, nil, fmt.Errorf("malformed frame: body of %d bytes, at most %d are allowed", size, MaxBody)
	}
	if header, err = readN(r, int64(headerSize)); err != nil {
		return nil, nil, fmt.Errorf("header of %d bytes: %w", headerSize, err)
	}
	if flags == 0 {
		if body, err = readN(r, int64(size)); err != nil {
			return nil, nil, fmt.Errorf("body of %d bytes: %w", size, err)
		}
		return header, body, nil
	}
	file := fds.next()
	if file == nil {
		return nil, nil, errors.New("malformed frame: it announces a descriptor and has none")
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if body, err = readBody(file, int64(size)); err != nil {
		return nil, nil, err
	}
	return header, body, nil
}

// readN reads exactly n bytes, growing with what has arrived.
func readN(r io.Reader, n int64) ([]byte, error) {
	const step = 1 << 20
	buf := make([]byte, 0, min(n, step))
	for int64(len(buf)) < n {
		have := len(buf)
		want := int(min(n-int64(have), step))
		if cap(buf)-have < want {
			buf = append(buf[:cap(buf)], make([]byte, want)...)
		}
		buf = buf[:have+want]
		if _, err := io.ReadFull(r, buf[have:]); err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				err = ErrCut
			}
			return nil, err
		}
	}
	return buf, nil
}
