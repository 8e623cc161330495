package prompt

import "sync"

// bpe merges the characters of one word into tokens, lowest rank first and leftmost among equals. A word of n bytes
// costs O(n log n): symbols form a linked list, candidate pairs wait in a heap.
type bpe struct {
	bytes   [256]int32       // id of each byte's own token, -1 if the vocabulary lacks it
	merges  map[uint64]merge // by pairKey
	whole   map[string]int32 // the vocabulary, when words that are tokens are taken unmerged; else nil
	unknown int32            // token for a byte that the vocabulary lacks, -1 to drop it
	fuse    bool             // several unknown bytes in a row make one token
	pool    sync.Pool        // of *bpeScratch
}

type merge struct{ rank, id int32 }

// pairKey packs two token ids.
func pairKey(left, right int32) uint64 { return uint64(uint32(left))<<32 | uint64(uint32(right)) }

// bpeScratch is reused between words.
type bpeScratch struct {
	symbols []symbol
	heap    []uint64 // rank<<32 | position of the left symbol: ordered by rank, then from the left
}

// symbol is a node of the linked list; id is -1 once it was merged into its left neighbour.
type symbol struct{ id, prev, next int32 }

// encode appends the tokens of word to ids.
func (m *bpe) encode(ids []int64, word []byte) []int64 {
	if m.whole != nil {
		if id, ok := m.whole[visible(word)]; ok {
			return append(ids, int64(id))
		}
	}
	s, _ := m.pool.Get().(*bpeScratch)
	if s == nil {
		s = &bpeScratch{}
	}
	defer m.pool.Put(s)
	m.fill(s, word)
	for i := range s.symbols {
		m.offer(s, int32(i))
	}
	for len(s.heap) > 0 {
		rank, at := s.pop()
		m.apply(s, rank, at)
	}
	for i := range s.symbols {
		if id := s.symbols[i].id; id >= 0 {
			ids = append(ids, int64(id))
		}
	}
	return ids
}

// fill makes one symbol per byte that has a token.
func (m *bpe) fill(s *bpeScratch, word []byte) {
	s.symbols, s.heap = s.symbols[:0], s.heap[:0]
	afterUnknown := false
	for _, b := range word {
		id := m.bytes[b]
		isUnknown := id < 0
		if isUnknown {
			if m.unknown < 0 || (afterUnknown && m.fuse) {
				continue
			}
			id = m.unknown
		}
		afterUnknown = isUnknown
		n := int32(len(s.symbols))
		s.symbols = append(s.symbols, symbol{id: id, prev: n - 1, next: n + 1})
	}
	if n := len(s.symbols); n > 0 {
		s.symbols[n-1].next = -1
	}
}

// offer puts the pair that starts at position at into the heap, if it can be merged.
func (m *bpe) offer(s *bpeScratch, at int32) {
	if at < 0 {
		return
	}
	left := s.symbols[at]
	if left.id < 0 || left.next < 0 {
		return
	}
	if found, ok := m.merges[pairKey(left.id, s.symbols[left.next].id)]; ok {
		s.push(uint64(uint32(found.rank))<<32 | uint64(uint32(at)))
	}
}

// apply merges the pair at position at, unless an earlier merge changed it.
func (m *bpe) apply(s *bpeScratch, rank, at int32) {
	left := &s.symbols[at]
	if left.id < 0 || left.next < 0 {
		return
	}
	right := &s.symbols[left.next]
	found, ok := m.merges[pairKey(left.id, right.id)]
	if !ok || found.rank != rank {
		return
	}
	left.id, left.next = found.id, right.next
	right.id = -1
	if left.next >= 0 {
		s.symbols[left.next].prev = at
	}
	m.offer(s, left.prev)
	m.offer(s, at)
}

func (s *bpeScratch) push(key uint64) {
	s.heap = append(s.heap, key)
	i := len(s.heap) - 1
	for i > 0 {
		parent := (i - 1) / 2
		if s.heap[parent] <= key {
			break
		}
		s.heap[i] = s.heap[parent]
		i = parent
	}
	s.heap[i] = key
}

func (s *bpeScratch) pop() (rank, at int32) {
	top := s.heap[0]
	n := len(s.heap) - 1
	last := s.heap[n]
	s.heap = s.heap[:n]
	i := 0
	for {
		child := 2*i + 1
		if child >= n {
			break
		}
		if child+1 < n && s.heap[child+1] < s.heap[child] {
			child++
		}
		if last <= s.heap[child] {
			break
		}
		s.heap[i] = s.heap[child]
		i = child
	}
	if n > 0 {
		s.heap[i] = last
	}
	return int32(top >> 32), int32(uint32(top))
}
