package pipelinetest

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// Stepper holds every step of the engines whose [Script] names it, before it computes, until the test lets it go. So a test
// counts steps, and decides which of them the workers are in the middle of.
type Stepper struct {
	// Path is for [Script.Stepper].
	Path string

	steps    chan *HeldStep
	listener net.Listener
	freed    chan struct{} // closed when it holds nothing any more
	free     func()
}

// HeldStep is a step that has begun.
type HeldStep struct {
	Model     string   `json:"model"` // the engine's name
	Sequences []uint64 `json:"sequences"`

	conn net.Conn
}

// NewStepper makes a stepper that holds nothing once the test has ended.
func NewStepper(tb testing.TB) *Stepper {
	tb.Helper()
	dir, err := os.MkdirTemp("", "steps") //nolint:usetesting // the name of a test may be too long for a socket's
	if err != nil {
		tb.Fatal(err)
	}
	s := &Stepper{Path: filepath.Join(dir, "s"), steps: make(chan *HeldStep), freed: make(chan struct{})}
	s.free = sync.OnceFunc(func() { close(s.freed) })
	if s.listener, err = net.Listen("unix", s.Path); err != nil {
		tb.Fatal(err)
	}
	accepted := make(chan struct{})
	go func() {
		defer close(accepted)
		for {
			conn, err := s.listener.Accept()
			if err != nil {
				return
			}
			go s.hold(conn)
		}
	}()
	tb.Cleanup(func() {
		s.Free()
		if err := errors.Join(s.listener.Close(), os.RemoveAll(dir)); err != nil {
			tb.Error(err)
		}
		<-accepted
	})
	return s
}

// Steps gives the steps as they begin. One that is not taken is held as well.
func (s *Stepper) Steps() <-chan *HeldStep { return s.steps }

// Free lets every step go, from now on.
func (s *Stepper) Free() { s.free() }

// Go lets the step go.
func (h *HeldStep) Go() {
	_, _ = h.conn.Write([]byte{'\n'}) // a worker that has died steps no more
}

// hold reads the steps of one worker, which waits for an answer to each. The end of the connection lets it go, too.
func (s *Stepper) hold(conn net.Conn) {
	defer func() { _ = conn.Close() }() // it holds nothing
	go func() {
		<-s.freed
		_ = conn.Close()
	}()
	lines := bufio.NewScanner(conn)
	for lines.Scan() {
		step := &HeldStep{conn: conn}
		if json.Unmarshal(lines.Bytes(), step) != nil {
			return
		}
		select {
		case s.steps <- step:
		case <-s.freed:
			return
		}
	}
}

// stepped is an engine's side of a Stepper.
type stepped struct {
	conn    net.Conn
	answers *bufio.Reader
}

// underStepper connects to a Stepper; an empty path is none.
func underStepper(path string) (*stepped, error) {
	if path == "" {
		return nil, nil
	}
	conn, err := net.Dial("unix", path)
	if err != nil {
		return nil, fmt.Errorf("stepper: %w", err)
	}
	return &stepped{conn: conn, answers: bufio.NewReader(conn)}, nil
}

// begin waits until a step may go. A Stepper that is gone holds nobody.
func (s *stepped) begin(model string, sequences []uint64) error {
	if s == nil {
		return nil
	}
	line, err := json.Marshal(HeldStep{Model: model, Sequences: sequences})
	if err != nil {
		return err
	}
	if _, err := s.conn.Write(append(line, '\n')); err == nil {
		_, _ = s.answers.ReadByte()
	}
	return nil
}

func (s *stepped) close() error {
	if s == nil {
		return nil
	}
	return s.conn.Close()
}
