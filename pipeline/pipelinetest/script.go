package pipelinetest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/omni-run/omni/pipeline/message"
)

// Point is a place in a worker at which a fault can happen.
type Point string

// The points.
const (
	AtStart   Point = "start"   // before hello, of every worker: in the script of AnyStage
	AtOpen    Point = "open"    // while the engine is opened
	AtLoad    Point = "load"    // while weights are loaded
	AtAdmit   Point = "admit"   // of a sequence
	AtFeed    Point = "feed"    // of a sequence: what another stage hands on arrives
	AtPrefill Point = "prefill" // a step in which a sequence is new
	AtDecode  Point = "decode"  // any other step
	AtControl Point = "control" // the start or stop of a profile session has come, on the goroutine that receives
	AtProfile Point = "profile" // the start of a recording
	AtWrite   Point = "write"   // the files of a recording are about to be written, on a goroutine of its own
	AtClose   Point = "close"   // of the engine, before the worker ends properly
)

// AnyStage is the name of the script whose faults at AtStart happen in every worker.
const AnyStage = ""

// Action is what a fault does.
type Action string

// The actions.
const (
	Kill    Action = "kill"    // SIGKILL to itself
	Cut     Action = "cut"     // writes the beginning of a frame to the connection, then SIGKILL to itself
	Exit0   Action = "exit0"   // ends with status 0
	Exit3   Action = "exit3"   // ends with status 3
	Hang    Action = "hang"    // the torch goroutine waits for ever, the others go on
	Freeze  Action = "freeze"  // SIGSTOP to itself: nothing goes on
	Pause   Action = "pause"   // creates the file Once and waits until it is gone: see Gate
	Garbage Action = "garbage" // writes what is no frame to the connection
	Flood   Action = "flood"   // writes 4 MiB to standard error and goes on
	Error   Action = "error"   // the call returns an error
	Lose    Action = "lose"    // the call returns DEVICE_LOST
	Panic   Action = "panic"
	Exhaust Action = "exhaust" // takes memory until a limit, just above what the process has, is hit
)

// Fault is one thing that goes wrong.
type Fault struct {
	At  Point  `json:"at"`
	Nth int    `json:"nth"` // the call of this kind at which it happens, from 1; 0 is 1
	Do  Action `json:"do"`
	// Once is a file that is created when the fault happens; while it exists the fault does not happen again, so that
	// a worker that is started again works.
	Once string `json:"once"`
	// After is a file without which the fault does not happen, such as the Once of another: then it is for the worker that
	// follows.
	After string `json:"after"`
}

// Script says how the engine of a stage behaves.
type Script struct {
	Step   time.Duration `json:"step"`  // time that a step takes
	Parts  int           `json:"parts"` // parts in which weights are loaded; 0 is 1
	Part   time.Duration `json:"part"`  // time that a part takes
	Ahead  time.Duration `json:"ahead"` // by which the worker's clock is ahead of the pipeline's
	Faults []Fault       `json:"faults"`
	// Stepper is the Path of a Stepper; empty for none.
	Stepper string `json:"stepper"`
}

// scriptVariable holds the scripts of all stages in the environment of the workers.
const scriptVariable = "OMNI_PIPELINETEST_SCRIPTS"

// faults carries out a script's faults.
type faults struct {
	list   []Fault
	socket int // a copy of the connection's descriptor

	mu   sync.Mutex // guards seen: files are written on another goroutine than everything else
	seen map[Point]int
}

// at counts a call and does what is scripted for it.
func (f *faults) at(p Point) error {
	f.mu.Lock()
	f.seen[p]++
	call := f.seen[p]
	f.mu.Unlock()
	for _, fault := range f.list {
		if fault.At != p || max(fault.Nth, 1) != call || !fault.due() {
			continue
		}
		if fault.Once != "" {
			file, err := os.OpenFile(fault.Once, os.O_CREATE|os.O_EXCL, 0o600)
			if err != nil {
				continue // it has happened
			}
			if err := file.Close(); err != nil {
				return err
			}
		}
		if err := f.do(p, fault); err != nil {
			return err
		}
	}
	return nil
}

// due reports whether what the fault comes after has happened.
func (f *Fault) due() bool {
	if f.After == "" {
		return true
	}
	_, err := os.Stat(f.After)
	return err == nil
}

func (f *faults) do(p Point, fault Fault) error {
	fmt.Fprintf(os.Stderr, "scripted: %s at %s\n", fault.Do, p)
	switch fault.Do {
	case Kill:
		return syscall.Kill(os.Getpid(), syscall.SIGKILL)
	case Cut:
		// It announces a header of a megabyte, which nothing that follows completes.
		if _, err := syscall.Write(f.socket, []byte("OMN1\x00\x00\x00\x00\x00\x00\x10\x00\x00\x00\x00\x00\x00\x00\x00\x00{")); err != nil {
			return err
		}
		return syscall.Kill(os.Getpid(), syscall.SIGKILL)
	case Exit0:
		os.Exit(0)
	case Exit3:
		os.Exit(3)
	case Hang:
		select {}
	case Freeze:
		return syscall.Kill(os.Getpid(), syscall.SIGSTOP)
	case Pause:
		for {
			if _, err := os.Stat(fault.Once); err != nil {
				return nil //nolint:nilerr // the file is gone, which is what is waited for
			}
			time.Sleep(time.Millisecond)
		}
	case Garbage:
		_, err := syscall.Write(f.socket, []byte("This is not what a worker should say."))
		return err
	case Flood:
		line := append(bytes.Repeat([]byte("x"), 127), '\n')
		for range 4 << 20 / len(line) {
			if _, err := os.Stderr.Write(line); err != nil {
				return err
			}
		}
	case Error:
		return message.Errorf(message.InvalidArgument, "scripted error at %s", p)
	case Lose:
		return message.Errorf(message.DeviceLost, "scripted loss at %s", p)
	case Panic:
		panic(fmt.Sprintf("scripted panic at %s", p))
	case Exhaust:
		return exhaust()
	default:
		return fmt.Errorf("unknown action %q", fault.Do)
	}
	return nil
}

// exhaust lowers the limit of this process's memory to 64 MiB above what it has, and goes beyond it.
func exhaust() error {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return err
	}
	var pages uint64
	if _, err := fmt.Sscan(string(text), &pages); err != nil {
		return fmt.Errorf("/proc/self/statm: %w", err)
	}
	most := pages*uint64(os.Getpagesize()) + 64<<20
	if err := syscall.Setrlimit(syscall.RLIMIT_AS, &syscall.Rlimit{Cur: most, Max: most}); err != nil {
		return fmt.Errorf("limit of memory: %w", err)
	}
	var taken [][]byte
	for len(taken) < 1024 {
		taken = append(taken, make([]byte, 8<<20))
	}
	return fmt.Errorf("took %d MiB beyond the limit", len(taken)*8)
}

// scripts reads the scripts of all stages, by their engine's name.
func scripts() (map[string]Script, error) {
	all := map[string]Script{}
	if text := os.Getenv(scriptVariable); text != "" {
		if err := json.Unmarshal([]byte(text), &all); err != nil {
			return nil, fmt.Errorf("%s: %w", scriptVariable, err)
		}
	}
	return all, nil
}
