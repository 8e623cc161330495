package torch

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// serve returns a thread that a goroutine of this test serves until the test ends.
func serve(t *testing.T) *Thread {
	t.Helper()
	thread := NewThread()
	go thread.Serve()
	t.Cleanup(thread.Stop)
	return thread
}

func TestThreadRunsEverythingOnOneOSThread(t *testing.T) {
	checkNoLeaks(t)
	thread := serve(t)
	var mu sync.Mutex
	ids := map[int]int{}
	var callers sync.WaitGroup
	for range 8 {
		callers.Go(func() {
			for range 20 {
				err := thread.Do(context.Background(), func() error {
					mu.Lock()
					defer mu.Unlock()
					ids[syscall.Gettid()]++
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	callers.Wait()
	if len(ids) != 1 {
		t.Fatalf("functions ran on %d threads, want 1", len(ids))
	}
	for _, n := range ids {
		if n != 160 {
			t.Errorf("%d functions ran, want 160", n)
		}
	}
}

func TestThreadReturnsTheFunctionsError(t *testing.T) {
	checkNoLeaks(t)
	want := errors.New("no such tensor")
	if err := serve(t).Do(context.Background(), func() error { return want }); !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
	}
}

func TestThreadTakesBackAFunctionThatHasNotBegun(t *testing.T) {
	checkNoLeaks(t)
	thread := serve(t)
	running, release := make(chan struct{}), make(chan struct{})
	first := make(chan error, 1)
	go func() {
		first <- thread.Do(context.Background(), func() error {
			close(running)
			<-release
			return nil
		})
	}()
	<-running
	ctx, cancel := context.WithCancel(context.Background())
	second := make(chan error, 1)
	go func() {
		second <- thread.Do(ctx, func() error {
			t.Error("a cancelled function ran")
			return nil
		})
	}()
	cancel()
	if err := <-second; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	close(release)
	if err := <-first; err != nil {
		t.Errorf("the running function: got %v, want nil", err)
	}
}

func TestThreadFinishesWhatHasBegunWhenItsContextEnds(t *testing.T) {
	checkNoLeaks(t)
	ctx, cancel := context.WithCancel(context.Background())
	ran := false
	err := serve(t).Do(ctx, func() error {
		cancel()
		ran = true
		return nil
	})
	if err != nil || !ran {
		t.Errorf("got error %v, ran %v; want nil, true", err, ran)
	}
}

// panicOf returns what f panics with.
func panicOf(f func()) (value any) {
	defer func() { value = recover() }()
	f()
	return nil
}

func explode() { panic("out of cheese") }

func TestThreadCarriesAPanicToTheCallerAndGoesOn(t *testing.T) {
	checkNoLeaks(t)
	thread := serve(t)
	value := panicOf(func() {
		_ = thread.Do(context.Background(), func() error { explode(); return nil })
	})
	p, ok := value.(*ThreadPanicError)
	if !ok || p.Value != "out of cheese" || !strings.Contains(p.Error(), "torch.explode") {
		t.Fatalf("got %v, want a ThreadPanicError with the value and the stack", value)
	}
	if err := thread.Do(context.Background(), func() error { return nil }); err != nil {
		t.Errorf("after a panic: %v", err)
	}
}

func TestThreadDoesNotHangAfterGoexit(t *testing.T) {
	checkNoLeaks(t)
	thread := serve(t)
	value := panicOf(func() {
		_ = thread.Do(context.Background(), func() error { runtime.Goexit(); return nil })
	})
	if p, ok := value.(*ThreadPanicError); !ok || !strings.Contains(p.Error(), "Goexit") {
		t.Errorf("got %v, want a ThreadPanicError that names Goexit", value)
	}
}

func TestThreadRefusesAfterStop(t *testing.T) {
	checkNoLeaks(t)
	thread := serve(t)
	thread.Stop()
	thread.Stop()
	if err := thread.Do(context.Background(), func() error { return nil }); !errors.Is(err, ErrThreadStopped) {
		t.Errorf("got %v, want ErrThreadStopped", err)
	}
}
