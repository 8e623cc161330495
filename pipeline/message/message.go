package message

import (
	"encoding/json"
	"fmt"

	"github.com/omni-run/omni/profiler"
)

// Protocol is the version of this package's messages. Parent and worker must agree exactly.
const Protocol = 2

// ABI is the version of csrc/omni.h whose config and params the pipeline writes.
const ABI = 1

// Kind names a type of message in the header.
type Kind string

// The kinds of messages. Those that a worker sends are marked.
const (
	KindHello         Kind = "hello" // worker
	KindOpen          Kind = "open"
	KindProgress      Kind = "progress" // worker
	KindReady         Kind = "ready"    // worker
	KindFault         Kind = "fault"    // worker
	KindAdmit         Kind = "admit"
	KindFeed          Kind = "feed"
	KindCancel        Kind = "cancel"
	KindCredit        Kind = "credit"
	KindOutput        Kind = "output" // worker
	KindPing          Kind = "ping"
	KindPong          Kind = "pong" // worker
	KindProfileStart  Kind = "profile_start"
	KindProfileStop   Kind = "profile_stop"
	KindProfileWait   Kind = "profile_wait"
	KindProfileDump   Kind = "profile_dump"
	KindProfileStatus Kind = "profile_status"
	KindProfileReply  Kind = "profile_reply" // worker
	KindDrain         Kind = "drain"
	KindBye           Kind = "bye" // worker
)

// Message is one of the pointer types of this package.
type Message interface {
	Kind() Kind
	// check reports what is wrong with the decoded fields.
	check() error
}

// Carrier is a message that carries tensors.
type Carrier interface {
	Message
	carried() *[]Tensor
}

// IsControl reports whether m must not wait behind data: everything but Admit, Feed and Output. A transport may deliver
// a control message before data that was sent earlier, never after data that was sent later.
func IsControl(m Message) bool {
	switch m.Kind() {
	case KindAdmit, KindFeed, KindOutput:
		return false
	default:
		return true
	}
}

// Hello is the first message of a worker.
type Hello struct {
	Protocol int    `json:"protocol"`
	ABI      int    `json:"abi"`   // of omni.h, as the worker's library reports it
	Build    string `json:"build"` // for people: version of the worker and of torch
	PID      int    `json:"pid"`
}

// Open tells a worker which stage it is and which engine to load.
type Open struct {
	Stage    int             `json:"stage"`
	Name     string          `json:"name"`   // of the stage, for error texts
	Worker   string          `json:"worker"` // "stage-0": names the files of profiles
	Rank     int             `json:"rank"`   // unique over all workers of the pipeline
	World    int             `json:"world"`  // number of workers of the pipeline
	Threads  int             `json:"threads"`
	MaxBatch int             `json:"max_batch"` // sequences of one step
	Prefill  int             `json:"prefill"`   // prompt tokens that one step may take in; a longer prompt goes alone
	Engine   json.RawMessage `json:"engine"`    // config of omni_engine_open
	// Ring is the configuration of the worker's flight recorder, which records from Ready on; nil for none.
	Ring *profiler.Config `json:"ring,omitempty"`
}

// Progress reports bytes of weights loaded.
type Progress struct {
	Done  int64 `json:"done"`
	Total int64 `json:"total"`
}

// Ready ends the opening of an engine.
type Ready struct {
	Info json.RawMessage `json:"info"` // of omni_engine_info
	RSS  int64           `json:"rss"`  // resident bytes of the worker
}

// Fault says why a worker cannot work; it ends after sending it.
type Fault struct {
	Error Error `json:"error"`
}

// Admit creates a sequence. Numbers of sequences rise in the order in which the parent sends their Admit.
type Admit struct {
	Sequence uint64          `json:"sequence"`
	Request  string          `json:"request"`
	Params   json.RawMessage `json:"params"`
	Cost     int             `json:"cost"`    // prompt tokens, a hint for the scheduler; 0 if the engine has no prefill
	Window   int             `json:"window"`  // outputs that may be under way without a Credit; 0: any number
	Last     bool            `json:"last"`    // no Feed follows
	Full     bool            `json:"full"`    // it is stepped only once its input is complete
	SentNS   int64           `json:"sent_ns"` // on the receiver's clock
}

// Feed gives a sequence more input. SentNS is the time at which the producer of the data sent it, on the receiver's clock.
type Feed struct {
	Sequence uint64   `json:"sequence"`
	Tokens   []int64  `json:"tokens,omitempty"`
	Tensors  []Tensor `json:"-"`
	Last     bool     `json:"last,omitempty"`
	SentNS   int64    `json:"sent_ns"`
}

// Cancel drops a sequence between two steps; its last Output has the code CANCELLED.
type Cancel struct {
	Sequence uint64 `json:"sequence"`
}

// Credit lets a sequence send so many outputs more.
type Credit struct {
	Sequence uint64 `json:"sequence"`
	Outputs  int    `json:"outputs"`
}

// State says what can happen to a sequence next.
type State string

// The states of omni.h.
const (
	StateReady   State = "ready"
	StateWaiting State = "waiting"
	StateDone    State = "done"
	StateFailed  State = "failed"
)

// Finish says why a sequence is done.
type Finish string

// The finish reasons of omni.h.
const (
	FinishNone   Finish = ""
	FinishStop   Finish = "stop"
	FinishLength Finish = "length"
)

// Ledger counts what a sequence has cost its stage so far. Times are nanoseconds.
type Ledger struct {
	QueueNS    int64 `json:"queue_ns"`    // ready but not in a step
	WaitNS     int64 `json:"wait_ns"`     // waiting for input or credit
	ComputeNS  int64 `json:"compute_ns"`  // in steps, of whatever batch size
	TransferNS int64 `json:"transfer_ns"` // its input under way, from the producer to this worker
	Steps      int64 `json:"steps"`
	Tokens     int64 `json:"tokens"`
	BytesIn    int64 `json:"bytes_in"`
	BytesOut   int64 `json:"bytes_out"`

	// What follows are moments in Unix nanoseconds, 0 before they have come.
	ReceivedNS    int64 `json:"received_ns"`     // the worker had the Admit
	FirstInputNS  int64 `json:"first_input_ns"`  // of the first Feed; of the Admit if none follows
	LastInputNS   int64 `json:"last_input_ns"`   // of the last Feed so far
	FirstStepNS   int64 `json:"first_step_ns"`   // its first step began
	LastStepNS    int64 `json:"last_step_ns"`    // its last step so far ended
	FirstOutputNS int64 `json:"first_output_ns"` // its first Output was sent
	LastOutputNS  int64 `json:"last_output_ns"`  // its last Output so far was sent
}

// Output is what one step did for one sequence. After StateDone or StateFailed the worker has forgotten the sequence.
type Output struct {
	Sequence uint64   `json:"sequence"`
	State    State    `json:"state"`
	Finish   Finish   `json:"finish,omitempty"`
	Tokens   []int64  `json:"tokens,omitempty"`
	Tensors  []Tensor `json:"-"`
	Error    *Error   `json:"error,omitempty"` // if and only if StateFailed
	Ledger   Ledger   `json:"ledger"`
	SentNS   int64    `json:"sent_ns"`
}

// Ping asks for a Pong, which a worker sends even from inside a long step.
type Ping struct {
	ID uint64 `json:"id"`
}

// Pong answers a Ping.
type Pong struct {
	ID        uint64 `json:"id"`
	StepNS    int64  `json:"step_ns"` // age of the step that is running, 0 if none is
	Steps     int64  `json:"steps"`   // steps since the engine was opened
	Sequences int    `json:"sequences"`
	Queued    int    `json:"queued"`  // sequences that could be in the step that is running and are not
	Stepped   int64  `json:"stepped"` // sum over all steps of the sequences in them
	Tokens    int64  `json:"tokens"`  // given out since the engine was opened
	Samples   int64  `json:"samples"` // of audio, likewise
	BusyNS    int64  `json:"busy_ns"` // in steps that have ended
	RSS       int64  `json:"rss"`     // resident bytes of the worker
	NowNS     int64  `json:"now_ns"`  // the worker's clock when it answered, Unix nanoseconds
}

// ProfileStart begins a profile session in the worker.
type ProfileStart struct {
	ID    uint64         `json:"id"`
	Start profiler.Start `json:"start"`
}

// ProfileStop ends collection. The files are written after the reply.
type ProfileStop struct {
	ID uint64 `json:"id"`
	// Discard is why the session must not leave files: it did not begin in every stage. Empty for a session that leaves them.
	Discard string `json:"discard,omitempty"`
}

// ProfileWait asks for the report of a session that has been stopped, once its files are complete.
type ProfileWait struct {
	ID      uint64 `json:"id"`
	Session string `json:"session"`
}

// ProfileDump makes a session of what the flight recorder holds. The files are written after the reply.
type ProfileDump struct {
	ID    uint64         `json:"id"`
	Start profiler.Start `json:"start"`
}

// ProfileStatus asks for the state of the worker's profile session.
type ProfileStatus struct {
	ID uint64 `json:"id"`
}

// ProfileReply answers the messages above. One with the ID 0 answers none: it is the last word of a worker that ends about
// its last session.
type ProfileReply struct {
	ID     uint64          `json:"id"`
	Report profiler.Report `json:"report"`
	Error  *Error          `json:"error,omitempty"`
}

// Drain asks the worker to take no more sequences, end what it has to write and leave with Bye.
type Drain struct{}

// Bye is the last message of a worker that was drained.
type Bye struct {
	Steps int64 `json:"steps"`
}

// Kind names the message in the header; the same holds for the methods below.
func (*Hello) Kind() Kind { return KindHello }

// Kind implements Message.
func (*Open) Kind() Kind { return KindOpen }

// Kind implements Message.
func (*Progress) Kind() Kind { return KindProgress }

// Kind implements Message.
func (*Ready) Kind() Kind { return KindReady }

// Kind implements Message.
func (*Fault) Kind() Kind { return KindFault }

// Kind implements Message.
func (*Admit) Kind() Kind { return KindAdmit }

// Kind implements Message.
func (*Feed) Kind() Kind { return KindFeed }

// Kind implements Message.
func (*Cancel) Kind() Kind { return KindCancel }

// Kind implements Message.
func (*Credit) Kind() Kind { return KindCredit }

// Kind implements Message.
func (*Output) Kind() Kind { return KindOutput }

// Kind implements Message.
func (*Ping) Kind() Kind { return KindPing }

// Kind implements Message.
func (*Pong) Kind() Kind { return KindPong }

// Kind implements Message.
func (*ProfileStart) Kind() Kind { return KindProfileStart }

// Kind implements Message.
func (*ProfileStop) Kind() Kind { return KindProfileStop }

// Kind implements Message.
func (*ProfileWait) Kind() Kind { return KindProfileWait }

// Kind implements Message.
func (*ProfileDump) Kind() Kind { return KindProfileDump }

// Kind implements Message.
func (*ProfileStatus) Kind() Kind { return KindProfileStatus }

// Kind implements Message.
func (*ProfileReply) Kind() Kind { return KindProfileReply }

// Kind implements Message.
func (*Drain) Kind() Kind { return KindDrain }

// Kind implements Message.
func (*Bye) Kind() Kind { return KindBye }

func (f *Feed) carried() *[]Tensor   { return &f.Tensors }
func (o *Output) carried() *[]Tensor { return &o.Tensors }

func (h *Hello) check() error {
	if h.Protocol < 1 || h.PID < 1 {
		return fmt.Errorf("protocol %d and pid %d must be positive", h.Protocol, h.PID)
	}
	return nil
}

func (o *Open) check() error {
	if o.Worker == "" || len(o.Engine) == 0 {
		return fmt.Errorf("worker %q and an engine config of %d bytes must not be empty", o.Worker, len(o.Engine))
	}
	if o.Stage < 0 || o.Rank < 0 || o.World < 1 || o.Threads < 0 || o.MaxBatch < 1 || o.Prefill < 0 {
		return fmt.Errorf("stage %d, rank %d, threads %d, prefill %d must not be negative; world %d, max_batch %d at least 1",
			o.Stage, o.Rank, o.Threads, o.Prefill, o.World, o.MaxBatch)
	}
	return nil
}

func (p *Progress) check() error {
	if p.Done < 0 || p.Total < p.Done {
		return fmt.Errorf("done %d and total %d must hold 0 <= done <= total", p.Done, p.Total)
	}
	return nil
}

func (r *Ready) check() error {
	if len(r.Info) == 0 {
		return fmt.Errorf("info is missing")
	}
	return nil
}

func (f *Fault) check() error { return checkError(&f.Error) }

func (a *Admit) check() error {
	if a.Cost < 0 || a.Window < 0 || len(a.Params) == 0 {
		return fmt.Errorf("cost %d and window %d must not be negative, params of %d bytes not empty", a.Cost, a.Window, len(a.Params))
	}
	return checkSequence(a.Sequence)
}

func (f *Feed) check() error { return checkSequence(f.Sequence) }

func (c *Cancel) check() error { return checkSequence(c.Sequence) }

func (c *Credit) check() error {
	if c.Outputs < 1 {
		return fmt.Errorf("outputs %d must be at least 1", c.Outputs)
	}
	return checkSequence(c.Sequence)
}

func (o *Output) check() error {
	switch o.State {
	case StateReady, StateWaiting, StateDone, StateFailed:
	default:
		return fmt.Errorf("unknown state %q", o.State)
	}
	switch o.Finish {
	case FinishNone, FinishStop, FinishLength:
	default:
		return fmt.Errorf("unknown finish reason %q", o.Finish)
	}
	switch {
	case (o.State == StateFailed) != (o.Error != nil):
		return fmt.Errorf("state %q and an error (%t) do not go together", o.State, o.Error != nil)
	case o.Error != nil:
		if err := checkError(o.Error); err != nil {
			return err
		}
	}
	return checkSequence(o.Sequence)
}

func (*Ping) check() error { return nil }

func (p *Pong) check() error {
	if p.StepNS < 0 || p.Steps < 0 || p.Sequences < 0 {
		return fmt.Errorf("step_ns %d, steps %d and sequences %d must not be negative", p.StepNS, p.Steps, p.Sequences)
	}
	return nil
}

func (p *ProfileStart) check() error { return checkSession(p.Start.Session) }
func (p *ProfileWait) check() error  { return checkSession(p.Session) }
func (p *ProfileDump) check() error  { return checkSession(p.Start.Session) }

func checkSession(name string) error {
	if name == "" {
		return fmt.Errorf("session must not be empty")
	}
	return nil
}

func (*ProfileStop) check() error   { return nil }
func (*ProfileStatus) check() error { return nil }

func (p *ProfileReply) check() error {
	if p.Error == nil {
		return nil
	}
	return checkError(p.Error)
}

func (*Drain) check() error { return nil }
func (*Bye) check() error   { return nil }

func checkSequence(sequence uint64) error {
	if sequence == 0 {
		return fmt.Errorf("sequence must not be 0")
	}
	return nil
}

func checkError(e *Error) error {
	if e.Code == OK || e.Message == "" {
		return fmt.Errorf("an error needs a code and a message, found %s %q", e.Code, e.Message)
	}
	return nil
}
