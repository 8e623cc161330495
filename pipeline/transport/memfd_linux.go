package transport

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// writeBody copies the pieces into a new memfd of size bytes.
func writeBody(pieces [][]byte, size int64) (*os.File, error) {
	fd, err := unix.MemfdCreate("omni-body", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd for a body of %d bytes: %w", size, err)
	}
	file := os.NewFile(uintptr(fd), "omni-body")
	for _, p := range pieces {
		if _, err := file.Write(p); err != nil {
			_ = file.Close() // the write error is the one to report
			return nil, fmt.Errorf("memfd for a body of %d bytes: %w", size, err)
		}
	}
	return file, nil
}

// readBody copies a body out of a descriptor that the other side sent. The copy makes this side independent of whatever
// the other does with its own descriptor afterwards. Anything but a file of exactly size bytes is refused before memory
// is taken.
func readBody(file *os.File, size int64) ([]byte, error) {
	info, err := file.Stat()
	if err != nil {
		return nil, fmt.Errorf("body's descriptor: %w", err)
	}
	if !info.Mode().IsRegular() || info.Size() != size {
		return nil, fmt.Errorf("malformed frame: the body's descriptor is a %s of %d bytes, expected a regular file of %d",
			info.Mode().Type(), info.Size(), size)
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(io.NewSectionReader(file, 0, size), body); err != nil {
		return nil, fmt.Errorf("body's descriptor: %w", err)
	}
	return body, nil
}
