package worker

import (
	"cmp"
	"slices"
)

// scheduler chooses the sequences of each step.
type scheduler struct {
	maxBatch int
	prefill  int    // prompt tokens of one step
	turn     uint64 // counts sequences stepped
	tookNew  bool   // the last batch had a new sequence
}

// ready counts the sequences that could be stepped.
func ready(sequences map[uint64]*sequence) int {
	n := 0
	for _, q := range sequences {
		if q.phase == queued {
			n++
		}
	}
	return n
}

// pick returns the batch of the next step, nil if no sequence is ready. Sequences that run come first, those that have
// not been stepped for longest ahead; new ones follow in the order of their numbers while their prompts fit into the
// budget. The first new one always fits, and one place is kept for it, so nobody waits for ever.
func (s *scheduler) pick(sequences map[uint64]*sequence) []*sequence {
	var running, fresh []*sequence
	for _, q := range sequences {
		switch {
		case q.phase != queued:
		case q.started:
			running = append(running, q)
		default:
			fresh = append(fresh, q)
		}
	}
	slices.SortFunc(running, func(a, b *sequence) int {
		return cmp.Or(cmp.Compare(a.turn, b.turn), cmp.Compare(a.id, b.id))
	})
	slices.SortFunc(fresh, func(a, b *sequence) int { return cmp.Compare(a.id, b.id) })

	room := s.maxBatch
	if len(fresh) > 0 && room > 1 {
		room--
	}
	if s.maxBatch == 1 && len(fresh) > 0 && len(running) > 0 { // no room for both: take turns
		if s.tookNew {
			fresh = nil
		} else {
			running = nil
		}
	}
	batch := running[:min(len(running), room)]
	tokens := 0
	for i, q := range fresh {
		if len(batch) == s.maxBatch || (i > 0 && tokens+q.cost > s.prefill) {
			break
		}
		tokens += q.cost
		batch = append(batch, q)
	}
	for _, q := range batch {
		s.turn++
		q.turn = s.turn
	}
	s.tookNew = len(batch) > 0 && !batch[len(batch)-1].started
	return batch
}
