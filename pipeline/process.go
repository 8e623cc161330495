package pipeline

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/omni-run/omni/pipeline/transport"
)

// process is a worker process and this side of its connection.
type process struct {
	conn   *transport.Socket
	cmd    *exec.Cmd
	tail   *tail
	exited chan struct{} // closed when the process has ended and its output has been read
	err    error         // of Wait; read it after exited
}

// startProcess starts a worker of so many threads with one end of a socketpair as its descriptor 3.
func startProcess(s *spawner, threads int) (*process, error) {
	conn, theirs, err := transport.Pair()
	if err != nil {
		return nil, err
	}
	p := &process{conn: conn, tail: &tail{}, exited: make(chan struct{})}
	p.cmd = &exec.Cmd{
		Path:       s.path,
		Args:       []string{s.path},
		Env:        workerEnv(threads, s.env),
		Stdout:     p.tail, // results travel on the connection; whatever a library prints is kept for error texts
		Stderr:     p.tail,
		ExtraFiles: []*os.File{theirs},
		WaitDelay:  time.Second, // for a grandchild that keeps the output open
	}
	err = s.start(p.cmd)
	// The child has its own copy. With ours open, its death would not end the connection.
	if closeErr := theirs.Close(); err == nil && closeErr != nil {
		err = errors.Join(closeErr, p.cmd.Process.Kill(), p.cmd.Wait())
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", s.path, err), conn.Close())
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.exited)
	}()
	return p, nil
}

// signal sends a signal to the process; one that has ended is left alone.
func (p *process) signal(sig syscall.Signal) {
	_ = p.cmd.Process.Signal(sig) // the only error is that it has ended
}

// ended says how the process ended, after exited.
func (p *process) ended() string { return endOf(p.err) }

// endOf says how a process ended for which [exec.Cmd.Wait] has returned err.
func endOf(err error) string {
	var exit *exec.ExitError
	switch {
	case err == nil || errors.Is(err, exec.ErrWaitDelay):
		return "the process ended by itself with status 0"
	case !errors.As(err, &exit):
		return fmt.Sprintf("waiting for the process: %v", err)
	}
	status, ok := exit.Sys().(syscall.WaitStatus)
	if ok && status.Signaled() {
		return fmt.Sprintf("the process was killed by signal %d (%v)", status.Signal(), status.Signal())
	}
	return fmt.Sprintf("the process ended with status %d", exit.ExitCode())
}

// workerName is the executable of a worker.
const workerName = "omni-worker"

// findWorker returns the worker's executable: the one given, the one beside this program, or the one on the PATH.
func findWorker(given string) (string, error) {
	if given != "" {
		path, err := exec.LookPath(given)
		if err != nil {
			return "", fmt.Errorf("worker executable: %w", err)
		}
		return filepath.Abs(path)
	}
	self, err := os.Executable()
	if err == nil {
		beside := filepath.Join(filepath.Dir(self), workerName)
		if path, err := exec.LookPath(beside); err == nil {
			return path, nil
		}
	}
	path, err := exec.LookPath(workerName)
	if err != nil {
		return "", fmt.Errorf("%s is neither beside %s nor on the PATH: build it (make build) or set Config.WorkerPath", workerName, self)
	}
	return filepath.Abs(path)
}
