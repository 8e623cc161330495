package pipelinetest

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Gate holds a worker up at a point of its script, so that a test can do something just then.
type Gate struct {
	tb   testing.TB
	path string
}

// NewGate makes a gate for one worker, which is opened when the test ends at the latest.
func NewGate(tb testing.TB) *Gate {
	tb.Helper()
	g := &Gate{tb: tb, path: filepath.Join(tb.TempDir(), "gate")}
	tb.Cleanup(g.Open)
	return g
}

// Script is a script in which the worker stops at the gate in the nth call at a point.
func (g *Gate) Script(at Point, nth int) Script { return Script{Faults: []Fault{g.Fault(at, nth)}} }

// Fault is the gate as a fault among others.
func (g *Gate) Fault(at Point, nth int) Fault {
	return Fault{At: at, Nth: nth, Do: Pause, Once: g.path}
}

// Reached waits until the worker stands at the gate.
func (g *Gate) Reached() {
	g.tb.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if _, err := os.Stat(g.path); err == nil {
			return
		}
	}
	g.tb.Fatal("no worker has come to the gate")
}

// Open lets the worker go on. A worker that is started again stops at the gate again.
func (g *Gate) Open() { _ = os.Remove(g.path) } // it may not be there: then nobody waits
