package pipeline

import (
	"os/exec"
	"runtime"
	"syscall"
)

// spawner starts the worker's executable on one operating system thread. A child with Pdeathsig is killed when the thread that
// started it ends, so that thread has to live as long as any child: the spawner's goroutine is locked to it and ends only
// after all children have.
type spawner struct {
	path string   // the executable
	env  []string // what is added to its environment
	jobs chan func()
	done chan struct{}
}

func newSpawner(path string, env []string) *spawner {
	s := &spawner{path: path, env: env, jobs: make(chan func()), done: make(chan struct{})}
	go func() {
		defer close(s.done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		for job := range s.jobs {
			job()
		}
	}()
	return s
}

// start is cmd.Start on the spawner's thread. The process is in a group of its own, so that a Ctrl-C in the terminal reaches
// the parent alone, and is killed when the parent dies.
func (s *spawner) start(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	result := make(chan error, 1)
	s.jobs <- func() { result <- cmd.Start() }
	return <-result
}

// stop ends the thread. No child may be alive, and start must not be called again.
func (s *spawner) stop() {
	close(s.jobs)
	<-s.done
}
