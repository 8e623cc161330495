//go:build !race

package picture

import (
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A session of many events and steps takes no more memory than a short one.
func TestMakeInConstantMemory(t *testing.T) {
	const steps = 60_000
	dir := t.TempDir()
	writeTrace(t, dir, 0, steps)
	writeLedger(t, dir)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	result, err := Make(t.Context(), dir, "s1")
	require.NoError(t, err)
	runtime.ReadMemStats(&after)
	// Sys never shrinks: it is the highest that the heap has been.
	require.Less(t, after.Sys-before.Sys, uint64(64<<20))
	page, err := os.ReadFile(result.Files[1].Path)
	require.NoError(t, err)
	require.Contains(t, string(page), "60000")
	require.Less(t, len(page), 2<<20)
	require.True(t, strings.HasPrefix(string(page), "<!DOCTYPE html>"))
}
