package picture

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPicturesForAnotherProcess(t *testing.T) {
	dir, id := t.TempDir(), fmt.Sprintf("s1.%d", int64(stamp))
	writeTrace(t, dir, 0, 2)
	writeLedger(t, dir)
	in, theirs := io.Pipe()
	defer theirs.Close()
	go func() { _, _ = theirs.Write([]byte{Free}) }()
	var out bytes.Buffer
	require.NoError(t, makeFor(in, &out, dir, id))
	var got Result
	require.NoError(t, json.Unmarshal(out.Bytes(), &got))
	want, err := Make(t.Context(), dir, id)
	require.NoError(t, err)
	require.Equal(t, *want, got)
}

// Without anybody who waits for them, pictures are not begun, or are given up, and nothing half made stays.
func TestPicturesThatNobodyWaitsFor(t *testing.T) {
	dir, id := t.TempDir(), fmt.Sprintf("s1.%d", int64(stamp))
	writeTrace(t, dir, 0, 20_000)
	writeLedger(t, dir)
	for _, said := range []string{"", string(Free)} {
		var out bytes.Buffer
		require.ErrorIs(t, makeFor(strings.NewReader(said), &out, dir, id), errAlone)
		require.NotContains(t, out.String(), KindReport)
		source, err := Open(dir, id)
		require.NoError(t, err)
		for _, o := range outputs {
			require.NoFileExists(t, source.Path(o.file)+".tmp")
		}
	}
}

func TestOtherArgumentsAreForOthers(t *testing.T) {
	for _, args := range [][]string{nil, {Command}, {Command, "profiles"}, {"--version", "profiles", "s1"}} {
		_, ok := Main(args)
		require.False(t, ok, args)
	}
}
