// Package transporttest is the suite that every transport.Conn passes: order, large bodies, many senders at once, cancellation,
// and what both ends see when one of them closes or vanishes. A new transport writes a constructor and calls [Run]. How fast
// a transport is the suite does not say.
package transporttest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/omni-run/omni/pipeline/message"
	"github.com/omni-run/omni/pipeline/transport"
)

// Pair makes the two ends of a new connection. The suite closes both.
type Pair func(t *testing.T) (a, b transport.Conn)

// Run runs the suite.
func Run(t *testing.T, pair Pair) {
	tests := map[string]func(t *testing.T, a, b transport.Conn){
		"messages arrive in order and unchanged":        inOrder,
		"bodies of every size arrive unchanged":         bodies,
		"many goroutines may send":                      manySenders,
		"both directions carry at once":                 bothWays,
		"control messages overtake waiting data":        priority,
		"close of one side is the end for the other":    endOfOther,
		"close is the end also with messages unread":    endUnread,
		"close of this side ends its own calls":         endOfSelf,
		"a full queue waits until its context ends":     backpressure,
		"what was flushed arrives although one is gone": flushed,
		"an invalid message is refused by the sender":   invalid,
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			a, b := pair(t)
			defer a.Close()
			defer b.Close()
			test(t, a, b)
		})
	}
}

// wait bounds every step of the suite; reaching it is a failure.
const wait = 20 * time.Second

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	t.Cleanup(cancel)
	return ctx
}

func send(t *testing.T, c transport.Conn, m message.Message) {
	t.Helper()
	if err := c.Send(within(t), m); err != nil {
		t.Fatalf("send %s: %v", m.Kind(), err)
	}
}

func recv[T message.Message](t *testing.T, c transport.Conn) T {
	t.Helper()
	m, err := c.Recv()
	if err != nil {
		t.Fatalf("recv: %v", err)
	}
	got, ok := m.(T)
	if !ok {
		t.Fatalf("got %s %+v, want %T", m.Kind(), m, *new(T))
	}
	return got
}

// feed is a data message with a body of size bytes, whose content depends on the sequence.
func feed(sequence uint64, size int) *message.Feed {
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(uint64(i)*31 + sequence)
	}
	return &message.Feed{Sequence: sequence, Tensors: []message.Tensor{
		{Name: "x", DType: "uint8", Shape: []int64{int64(size)}, Data: data},
	}}
}

func same(t *testing.T, got, want *message.Feed) {
	t.Helper()
	if got.Sequence != want.Sequence || len(got.Tensors) != len(want.Tensors) {
		t.Fatalf("got sequence %d with %d tensors, want %d with %d", got.Sequence, len(got.Tensors), want.Sequence, len(want.Tensors))
	}
	for i := range want.Tensors {
		if !bytes.Equal(got.Tensors[i].Data, want.Tensors[i].Data) {
			t.Fatalf("sequence %d: tensor %d of %d bytes differs", want.Sequence, i, len(want.Tensors[i].Data))
		}
	}
}

func inOrder(t *testing.T, a, b transport.Conn) {
	const n = 100
	go func() {
		for i := range uint64(n) {
			_ = a.Send(t.Context(), feed(i+1, 10)) // a failure shows as a missing message
		}
	}()
	for i := range uint64(n) {
		same(t, recv[*message.Feed](t, b), feed(i+1, 10))
	}
}

func bodies(t *testing.T, a, b transport.Conn) {
	sizes := []int{0, 1, 4096, transport.Inline - 1, transport.Inline, transport.Inline + 1, 3 << 20}
	go func() {
		for i, size := range sizes {
			_ = a.Send(t.Context(), feed(uint64(i+1), size)) // a failure shows as a missing message
		}
		two := feed(99, 100<<10)
		two.Tensors = append(two.Tensors, feed(98, 7).Tensors...)
		_ = a.Send(t.Context(), two)
	}()
	for i, size := range sizes {
		same(t, recv[*message.Feed](t, b), feed(uint64(i+1), size))
	}
	two := feed(99, 100<<10)
	two.Tensors = append(two.Tensors, feed(98, 7).Tensors...)
	same(t, recv[*message.Feed](t, b), two)
}

func manySenders(t *testing.T, a, b transport.Conn) {
	const senders, each = 16, 20
	for s := range uint64(senders) {
		go func() {
			for i := range uint64(each) {
				_ = a.Send(t.Context(), feed(1+s*each+i, int(s)*12_000)) // some inline, some not
			}
		}()
	}
	seen := map[uint64]bool{}
	for range senders * each {
		got := recv[*message.Feed](t, b)
		same(t, got, feed(got.Sequence, int((got.Sequence-1)/each)*12_000))
		if seen[got.Sequence] {
			t.Fatalf("sequence %d arrived twice", got.Sequence)
		}
		seen[got.Sequence] = true
	}
}

func bothWays(t *testing.T, a, b transport.Conn) {
	const n = 200
	var senders sync.WaitGroup
	for _, c := range []transport.Conn{a, b} {
		senders.Go(func() {
			for i := range uint64(n) {
				_ = c.Send(t.Context(), feed(i+1, 50_000)) // a failure shows as a missing message
			}
		})
	}
	var readers sync.WaitGroup
	errs := make(chan error, 2)
	for _, c := range []transport.Conn{a, b} {
		readers.Go(func() {
			for i := range uint64(n) {
				m, err := c.Recv()
				if err != nil {
					errs <- err
					return
				}
				if f, ok := m.(*message.Feed); !ok || f.Sequence != i+1 {
					errs <- fmt.Errorf("got %+v, want sequence %d", m, i+1)
					return
				}
			}
		})
	}
	readers.Wait()
	senders.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
}

// priority fills the connection until data waits, then sends a control message: it must come before the last data.
func priority(t *testing.T, a, b transport.Conn) {
	sent := uint64(0)
	for {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		err := a.Send(ctx, feed(sent+1, 60_000))
		cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		sent++
	}
	send(t, a, &message.Ping{ID: 7})
	before := uint64(0)
	for {
		m, err := b.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := m.(*message.Ping); ok {
			break
		}
		before++
	}
	if before >= sent {
		t.Fatalf("the ping came after all %d data messages", sent)
	}
	for i := before; i < sent; i++ {
		same(t, recv[*message.Feed](t, b), feed(i+1, 60_000))
	}
}

func endOfOther(t *testing.T, a, b transport.Conn) {
	send(t, a, feed(1, 200_000))
	recv[*message.Feed](t, b)
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if m, err := b.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("recv after the other side closed: got %v and %v, want io.EOF", m, err)
	}
	ctx := within(t)
	for ctx.Err() == nil { // the first sends may still be accepted
		if err := b.Send(ctx, &message.Ping{ID: 1}); err != nil {
			if !errors.Is(err, transport.ErrBroken) && ctx.Err() == nil {
				t.Errorf("send: got %v, want ErrBroken", err)
			}
			break
		}
	}
	if ctx.Err() != nil {
		t.Error("sending to a closed connection never failed")
	}
}

func endUnread(t *testing.T, a, b transport.Conn) {
	send(t, b, feed(1, 10))
	if err := b.Flush(within(t)); err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if m, err := b.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("got %v and %v, want io.EOF", m, err)
	}
}

func endOfSelf(t *testing.T, a, _ transport.Conn) {
	got := make(chan error, 1)
	go func() {
		_, err := a.Recv()
		got <- err
	}()
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil {
		t.Errorf("second close: %v", err)
	}
	if err := <-got; !errors.Is(err, transport.ErrClosed) {
		t.Errorf("recv: got %v, want ErrClosed", err)
	}
	if err := a.Send(within(t), &message.Ping{ID: 1}); !errors.Is(err, transport.ErrClosed) {
		t.Errorf("send: got %v, want ErrClosed", err)
	}
	if err := a.Flush(within(t)); !errors.Is(err, transport.ErrClosed) {
		t.Errorf("flush: got %v, want ErrClosed", err)
	}
}

func backpressure(t *testing.T, a, _ transport.Conn) {
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	for sequence := uint64(1); ; sequence++ {
		err := a.Send(ctx, feed(sequence, 60_000))
		if errors.Is(err, context.DeadlineExceeded) {
			return
		}
		if err != nil {
			t.Fatalf("got %v, want the context's end", err)
		}
		if sequence == 100_000 {
			t.Fatal("nothing ever waited")
		}
	}
}

func flushed(t *testing.T, a, b transport.Conn) {
	go func() {
		_ = a.Send(t.Context(), feed(1, 150_000)) // a failure shows as a missing message
		_ = a.Send(t.Context(), feed(2, 10))
		_ = a.Send(t.Context(), &message.Bye{Steps: 3})
		_ = a.Flush(t.Context())
		_ = a.Close()
	}()
	kinds := map[message.Kind]int{}
	for {
		m, err := b.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		kinds[m.Kind()]++
	}
	if kinds[message.KindFeed] != 2 || kinds[message.KindBye] != 1 {
		t.Errorf("got %v, want two feeds and a bye", kinds)
	}
}

func invalid(t *testing.T, a, b transport.Conn) {
	if err := a.Send(within(t), &message.Cancel{}); err == nil {
		t.Error("a cancel without a sequence was sent")
	}
	send(t, a, &message.Admit{Sequence: 1, Params: json.RawMessage(`{}`)})
	recv[*message.Admit](t, b)
}
