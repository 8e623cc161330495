package pipelinetest

import (
	"context"
	"encoding/json"
	"sync/atomic"

	"github.com/omni-run/omni/pipeline/message"
	"github.com/omni-run/omni/pipeline/transport"
)

// scriptedConn does to a worker's messages what the script of its engine says, which is known once Open has come.
//
// It gives the worker a clock that differs from its pipeline's: on their way out the worker's times become those of the other
// clock, and on their way in those of the other clock become the worker's. Recorders write files, and shift by themselves.
type scriptedConn struct {
	transport.Conn
	scripts map[string]Script
	faults  *faults // at AtControl; for the receiving goroutine
	aheadNS atomic.Int64
}

// Recv implements transport.Conn.
func (c *scriptedConn) Recv() (message.Message, error) {
	m, err := c.Conn.Recv()
	if err != nil {
		return nil, err
	}
	switch m := m.(type) {
	case *message.Open:
		model, err := modelOf(m.Engine)
		if err != nil {
			return nil, err
		}
		script := c.scripts[model]
		c.aheadNS.Store(script.Ahead.Nanoseconds())
		c.faults = &faults{list: script.Faults, seen: map[Point]int{}, socket: -1}
	case *message.ProfileStart, *message.ProfileStop:
		return m, c.faults.at(AtControl)
	case *message.Admit:
		m.SentNS -= c.aheadNS.Load()
	case *message.Feed:
		m.SentNS -= c.aheadNS.Load()
	}
	return m, nil
}

// Send implements transport.Conn. What the worker sends it does not look at again.
func (c *scriptedConn) Send(ctx context.Context, m message.Message) error {
	var times []*int64
	switch m := m.(type) {
	case *message.Pong:
		times = []*int64{&m.NowNS}
	case *message.Output:
		l := &m.Ledger
		times = []*int64{
			&m.SentNS, &l.ReceivedNS, &l.FirstInputNS, &l.LastInputNS, &l.FirstStepNS, &l.LastStepNS, &l.FirstOutputNS, &l.LastOutputNS,
		}
	case *message.ProfileReply:
		times = []*int64{&m.Report.StartedNS, &m.Report.StoppedNS}
	}
	for _, at := range times {
		if *at != 0 { // it has come
			*at += c.aheadNS.Load()
		}
	}
	return c.Conn.Send(ctx, m)
}

// modelOf returns the name of the engine that a configuration asks for.
func modelOf(config json.RawMessage) (string, error) {
	var c struct {
		Model string `json:"model"`
	}
	err := json.Unmarshal(config, &c)
	return c.Model, err
}
