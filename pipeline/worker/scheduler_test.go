package worker

import (
	"slices"
	"testing"
)

// sim is a scheduler with sequences whose steps take no time.
type sim struct {
	scheduler
	sequences map[uint64]*sequence
}

func (s *sim) add(id uint64, cost int, started bool) {
	s.sequences[id] = &sequence{id: id, cost: cost, started: started}
}

// step picks a batch and returns its sequences' numbers; they are ready again afterwards.
func (s *sim) step() []uint64 {
	var ids []uint64
	for _, q := range s.pick(s.sequences) {
		q.started = true
		ids = append(ids, q.id)
	}
	return ids
}

func TestBatches(t *testing.T) {
	type add struct {
		id      uint64
		cost    int
		started bool
	}
	tests := map[string]struct {
		maxBatch, prefill int
		sequences         []add
		want              [][]uint64
	}{
		"nothing to do":                         {4, 100, nil, [][]uint64{nil}},
		"all that run":                          {4, 100, []add{{1, 10, true}, {2, 10, true}}, [][]uint64{{1, 2}, {1, 2}}},
		"prompts up to the budget":              {8, 25, []add{{1, 10, false}, {2, 10, false}, {3, 10, false}}, [][]uint64{{1, 2}, {1, 2, 3}}},
		"a long prompt goes alone":              {8, 25, []add{{1, 1000, false}, {2, 10, false}}, [][]uint64{{1}, {1, 2}}},
		"a long prompt beside those that run":   {8, 25, []add{{1, 5, true}, {2, 1000, false}, {3, 5, false}}, [][]uint64{{1, 2}, {1, 2, 3}}},
		"running ones take turns":               {2, 25, []add{{1, 5, true}, {2, 5, true}, {3, 5, true}}, [][]uint64{{1, 2}, {3, 1}, {2, 3}, {1, 2}}},
		"a new one gets a place":                {2, 25, []add{{1, 5, true}, {2, 5, true}, {3, 5, false}}, [][]uint64{{1, 3}, {2, 1}, {3, 2}, {1, 3}}},
		"one place, new and running take turns": {1, 25, []add{{1, 5, true}, {2, 5, false}, {3, 5, false}}, [][]uint64{{2}, {1}, {3}, {2}, {1}, {3}}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := &sim{scheduler: scheduler{maxBatch: tt.maxBatch, prefill: tt.prefill}, sequences: map[uint64]*sequence{}}
			for _, a := range tt.sequences {
				s.add(a.id, a.cost, a.started)
			}
			for i, want := range tt.want {
				if got := s.step(); !slices.Equal(got, want) {
					t.Errorf("step %d: got %v, want %v", i, got, want)
				}
			}
		})
	}
}

// Under a stream of new prompts that never ends, running sequences are stepped and new ones taken in.
func TestNobodyStarves(t *testing.T) {
	for _, maxBatch := range []int{1, 2, 3, 8} {
		s := &sim{scheduler: scheduler{maxBatch: maxBatch, prefill: 64}, sequences: map[uint64]*sequence{}}
		last := map[uint64]int{}
		next := uint64(1)
		for round := range 200 {
			if len(s.sequences) < 2*maxBatch+2 {
				s.add(next, 100, false)
				last[next] = round
				next++
			}
			for _, id := range s.step() {
				last[id] = round
			}
			for id := range s.sequences {
				if waited := round - last[id]; waited > 6*maxBatch+12 {
					t.Fatalf("max batch %d: sequence %d has waited for %d steps", maxBatch, id, waited)
				}
			}
			if round%7 == 0 { // one ends
				for id, q := range s.sequences {
					if q.started {
						delete(s.sequences, id)
						break
					}
				}
			}
		}
	}
}

func TestWaitingAndBlockedSequencesAreLeftOut(t *testing.T) {
	s := &sim{scheduler: scheduler{maxBatch: 4, prefill: 64}, sequences: map[uint64]*sequence{}}
	s.add(1, 1, true)
	s.add(2, 1, true)
	s.add(3, 1, false)
	s.sequences[1].phase = waiting
	s.sequences[3].phase = blocked
	if got := s.step(); !slices.Equal(got, []uint64{2}) {
		t.Errorf("got %v, want [2]", got)
	}
}
