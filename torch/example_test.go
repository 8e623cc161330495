package torch_test

import (
	"context"
	"fmt"

	"github.com/omni-run/omni/torch"
)

// A program lets its main goroutine serve the thread; here another goroutine does.
func ExampleThread() {
	thread := torch.NewThread()
	go thread.Serve()
	defer thread.Stop()

	err := thread.Do(context.Background(), func() error {
		fmt.Println("on the torch thread")
		return nil
	})
	fmt.Println(err)
	// Output:
	// on the torch thread
	// <nil>
}
