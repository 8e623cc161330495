package media

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
)

// program is a running filter: bytes go in, bytes come out.
type program struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stderr bytes.Buffer
	ended  chan struct{} // closed when the program has ended and all its output is in out
	err    error         // how it ended; read it after ended
	closed sync.Once

	mu  sync.Mutex // guards out
	out []byte
}

func startProgram(ctx context.Context, name string, arguments ...string) (*program, error) {
	p := &program{cmd: exec.CommandContext(ctx, name, arguments...), ended: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = writerFunc(p.keep), &p.stderr
	var err error
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(p.ended)
		if err := p.cmd.Wait(); err != nil {
			p.err = fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(p.stderr.String()))
		}
	}()
	return p, nil
}

// writerFunc is a function as an io.Writer.
type writerFunc func([]byte) (int, error)

// Write implements io.Writer.
func (f writerFunc) Write(data []byte) (int, error) { return f(data) }

func (p *program) keep(data []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.out = append(p.out, data...)
	return len(data), nil
}

// take returns what has come out and not been taken.
func (p *program) take() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := p.out
	p.out = nil
	return out
}

// write puts data in and returns what has come out.
func (p *program) write(data []byte) ([]byte, error) {
	if _, err := p.stdin.Write(data); err != nil {
		if _, ended := p.close(); ended != nil {
			err = ended // says why nobody reads
		}
		return nil, err
	}
	return p.take(), nil
}

// close ends the input, waits for the program and returns the rest.
func (p *program) close() ([]byte, error) {
	p.closed.Do(func() { _ = p.stdin.Close() }) // a program that has ended says why in err
	<-p.ended
	return p.take(), p.err
}
