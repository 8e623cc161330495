package picture

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"

	"github.com/omni-run/omni/profiler/background"
)

// Command is the first argument of a program that makes the pictures of a session for the process that has started it. The
// second is the session's directory, the third its ID. Standard output gets the [Result] as JSON, standard error what went wrong.
const Command = "pictures"

// What the process that waits for pictures writes to standard input, a byte at a time. The first has to come before work
// begins; without the other process, and its end of the pipe, nobody wants pictures.
const (
	Busy byte = 'b' // there is more urgent work
	Free byte = 'f' // there is none
)

var errAlone = errors.New("picture: nobody waits for the pictures any more")

// Main makes pictures, and returns the status with which the process ends, if args are those of [Command].
func Main(args []string) (status int, ok bool) {
	if len(args) != 3 || args[0] != Command {
		return 0, false
	}
	if err := makeFor(os.Stdin, os.Stdout, args[1], args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1, true
	}
	return 0, true
}

// makeFor is Make, with rests while in says that there is more urgent work; after the first such word the whole process
// only takes what nobody else wants of the processors.
func makeFor(in io.Reader, out io.Writer, dir, id string) error {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	var busy atomic.Bool
	told := make(chan struct{})
	go func() {
		defer cancel(errAlone)
		word := make([]byte, 1)
		for first := true; ; first = false {
			if _, err := io.ReadFull(in, word); err != nil {
				return
			}
			if word[0] == Busy {
				background.Yield()
			}
			busy.Store(word[0] == Busy)
			if first {
				close(told)
			}
		}
	}()
	select {
	case <-told:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	result, err := Make(background.Paced(ctx, busy.Load), dir, id)
	return errors.Join(err, json.NewEncoder(out).Encode(result))
}
