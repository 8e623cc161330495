package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/omni-run/omni/pipeline/message"
)

// apply takes what has come and does it, profile control before everything else: a session begins, and ends if the receiver
// could not end it, with the step that is next, however much input has come meanwhile.
func (l *loop) apply(ctx context.Context) error {
	queue, connErr := l.inbox.take()
	for i := 0; i < len(queue); i++ {
		if !isProfile(queue[i].message) {
			continue
		}
		if err := l.profileOne(ctx, queue[i].message); err != nil {
			return err
		}
		if l.inbox.profiled() { // what has come meanwhile counts on being next
			var more []received
			more, connErr = l.inbox.take()
			queue = append(queue, more...)
		}
	}
	for _, r := range queue {
		if err := l.applyOne(ctx, r); err != nil {
			return err
		}
	}
	if connErr != nil {
		return fmt.Errorf("%w: %w", ErrLost, connErr)
	}
	return nil
}

func (l *loop) applyOne(ctx context.Context, r received) error {
	switch m := r.message.(type) {
	case *message.Admit:
		return l.admit(ctx, m, r.at)
	case *message.Feed:
		return l.feed(ctx, m, r.at)
	case *message.Cancel:
		return l.cancel(ctx, m.Sequence)
	case *message.Credit:
		if s := l.sequences[m.Sequence]; s != nil {
			s.credits += m.Outputs
			if s.phase == blocked {
				s.enter(queued, r.at)
			}
		}
		return nil
	case *message.ProfileStart, *message.ProfileStop, *message.ProfileDump:
		return nil // it was first
	case *message.Drain:
		l.draining = true
		return nil
	default:
		return message.Errorf(message.InvalidArgument, "a worker cannot be sent %s", m.Kind())
	}
}

func (l *loop) admit(ctx context.Context, m *message.Admit, at time.Time) error {
	if m.Sequence <= l.newest {
		return message.Errorf(message.InvalidArgument, "admit of sequence %d after %d: numbers must rise", m.Sequence, l.newest)
	}
	l.newest = m.Sequence
	s := &sequence{id: m.Sequence, cost: m.Cost, fed: m.Last, full: m.Full, window: m.Window, credits: m.Window, phase: waiting, since: at}
	s.ledger.ReceivedNS = at.UnixNano()
	if m.Last {
		s.phase = queued
		s.input(at)
	}
	s.ledger.TransferNS = underWay(m.SentNS, at)
	s.ledger.BytesIn = int64(len(m.Params))
	_, cancelled := l.early[m.Sequence]
	delete(l.early, m.Sequence)
	if cancelled || l.draining {
		return l.refuse(ctx, s, errCancelled)
	}
	if err := l.engine.Admit(m.Sequence, m.Params); err != nil {
		return l.refuse(ctx, s, fmt.Errorf("admit request %q: %w", m.Request, err))
	}
	l.sequences[m.Sequence] = s
	l.count.Store(int64(len(l.sequences)))
	return nil
}

// errCancelled ends the sequences that were cancelled.
var errCancelled = message.Errorf(message.Cancelled, "cancelled")

func (l *loop) feed(ctx context.Context, m *message.Feed, at time.Time) error {
	s := l.sequences[m.Sequence]
	if s == nil {
		return nil // it has ended while this was under way
	}
	if s.fed {
		return l.fail(ctx, s, message.Errorf(message.InvalidArgument, "input after the last"))
	}
	s.input(at)
	s.ledger.TransferNS += underWay(m.SentNS, at)
	s.ledger.BytesIn += size(m.Tokens, m.Tensors)
	if err := l.engine.Feed(m.Sequence, Input{Tokens: m.Tokens, Tensors: m.Tensors, Last: m.Last}); err != nil {
		return l.fail(ctx, s, fmt.Errorf("input: %w", err))
	}
	s.fed = m.Last
	s.wanted -= int64(len(m.Tokens))
	if s.phase == waiting && s.fedEnough() {
		s.enter(s.resume(), at)
	}
	return nil
}

// cancel drops a sequence. A cancel may overtake the Admit of its sequence: it is kept until that has come.
func (l *loop) cancel(ctx context.Context, id uint64) error {
	if s := l.sequences[id]; s != nil {
		return l.fail(ctx, s, errCancelled)
	}
	if id > l.newest {
		l.early[id] = struct{}{}
	}
	return nil
}

// step advances a batch by one step and sends what it gave.
func (l *loop) step(ctx context.Context, batch []*sequence) error {
	ids := make([]uint64, len(batch))
	began := time.Now()
	for i, s := range batch {
		ids[i] = s.id
		s.enter(stepped, began)
	}
	l.stepStart.Store(began.UnixNano())
	p := l.profiler.Load()
	_ = p.StepBegin() // an error concerns the profile alone and is in its report
	results, err := l.engine.Step(ids)
	_ = p.StepEnd()
	l.stepStart.Store(0)
	l.steps.Add(1)
	l.stepped.Add(int64(len(batch)))
	now := time.Now()
	l.busyNS.Add(now.Sub(began).Nanoseconds())
	if err == nil && len(results) != len(batch) {
		err = message.Errorf(message.Internal, "a step of %d sequences gave %d results", len(batch), len(results))
	}
	if err != nil {
		err = fmt.Errorf("step of %d sequences: %w", len(batch), err)
		var coded *message.Error
		if errors.As(err, &coded) && coded.Code == message.DeviceLost {
			return err
		}
		for _, s := range batch {
			s.enter(queued, now)
			if err := l.fail(ctx, s, err); err != nil {
				return err
			}
		}
		return nil
	}
	for i, s := range batch {
		if err := l.result(ctx, s, &results[i], now); err != nil {
			return err
		}
	}
	return nil
}

// result books what a step did for a sequence and sends it on.
func (l *loop) result(ctx context.Context, s *sequence, r *Result, now time.Time) error {
	s.enter(waiting, now) // until it is known better
	if r.Sequence != s.id {
		return l.fail(ctx, s, message.Errorf(message.Internal, "the engine gave a result for sequence %d, expected %d", r.Sequence, s.id))
	}
	s.ledger.Steps++
	s.ledger.Tokens += int64(len(r.Tokens))
	l.tokens.Add(int64(len(r.Tokens)))
	l.samples.Add(samples(r.Tensors))
	s.ledger.BytesOut += size(r.Tokens, r.Tensors)
	out := &message.Output{Sequence: s.id, State: r.State, Finish: r.Finish, Tokens: r.Tokens, Tensors: r.Tensors}
	switch r.State {
	case message.StateFailed:
		return l.fail(ctx, s, r.Err)
	case message.StateDone:
		return l.forget(ctx, s, out)
	case message.StateReady, message.StateWaiting:
	default:
		return l.fail(ctx, s, message.Errorf(message.Internal, "the engine gave the unknown state %q", r.State))
	}
	gave := len(r.Tokens) > 0 || len(r.Tensors) > 0
	if r.State == message.StateReady || gave {
		s.started = true
	}
	if gave {
		s.credits--
		if err := l.send(ctx, s, out, time.Now()); err != nil {
			return err
		}
	}
	if r.State == message.StateReady {
		s.enter(s.resume(), now)
		return nil
	}
	s.wanted = r.Wanted
	if s.fed {
		return l.fail(ctx, s, message.Errorf(message.FailedPrecondition, "the engine waits for input, but the input is complete"))
	}
	return nil
}

// samples counts those of the audio among tensors.
func samples(tensors []message.Tensor) int64 {
	var n int64
	for _, t := range tensors {
		if t.Name == "audio" && len(t.Shape) > 0 {
			n += t.Shape[len(t.Shape)-1]
		}
	}
	return n
}

// fail ends a sequence with an error.
func (l *loop) fail(ctx context.Context, s *sequence, err error) error {
	if err == nil {
		err = errors.New("the engine reported a failure without an error")
	}
	return l.forget(ctx, s, &message.Output{Sequence: s.id, State: message.StateFailed, Error: asError(err)})
}

// forget releases a sequence and sends its last output. A sequence that the engine cannot release is a fault of the
// worker: its memory would be lost.
func (l *loop) forget(ctx context.Context, s *sequence, out *message.Output) error {
	if err := l.engine.Release(s.id); err != nil {
		return fmt.Errorf("release sequence %d: %w", s.id, err)
	}
	delete(l.sequences, s.id)
	l.count.Store(int64(len(l.sequences)))
	now := time.Now() // what the ledger says of the sequence's time ends with its last output
	s.enter(s.phase, now)
	return l.send(ctx, s, out, now)
}

// refuse answers for a sequence that the engine does not have.
func (l *loop) refuse(ctx context.Context, s *sequence, err error) error {
	return l.send(ctx, s, &message.Output{Sequence: s.id, State: message.StateFailed, Error: asError(err)}, time.Now())
}

func (l *loop) send(ctx context.Context, s *sequence, out *message.Output, now time.Time) error {
	out.SentNS = now.UnixNano()
	if s.ledger.FirstOutputNS == 0 {
		s.ledger.FirstOutputNS = out.SentNS
	}
	s.ledger.LastOutputNS = out.SentNS
	out.Ledger = s.ledger
	return l.conn.Send(ctx, out)
}

// dropAll ends all sequences, for a worker that stops.
func (l *loop) dropAll(ctx context.Context) error {
	for _, s := range l.sequences {
		if err := l.fail(ctx, s, errCancelled); err != nil {
			return err
		}
	}
	return nil
}

// underWay is the time since something was sent, by this worker's clock.
func underWay(sentNS int64, at time.Time) int64 {
	if sentNS == 0 {
		return 0
	}
	return max(0, at.UnixNano()-sentNS)
}

func size(tokens []int64, tensors []message.Tensor) int64 {
	return int64(len(tokens))*8 + message.Bytes(tensors)
}
