package golden_test

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/omni-run/omni/torch"
)

// FuzzSpeakers feeds arbitrary pickles as the table of speakers: the engine opens or says what is wrong. The C++ parser is
// reached as users reach it, through OpenEngine; the pickle is put into a proper archive, since the archive's reader and
// its check sums are libtorch's and would stop nearly every mutation.
func FuzzSpeakers(f *testing.F) {
	source := tinyA(f)[0].WriteCheckpoint(f, scratchFolder)
	folder := f.TempDir()
	entries, err := os.ReadDir(source)
	require.NoError(f, err)
	for _, entry := range entries {
		if entry.Name() != "spk_dict.pt" {
			require.NoError(f, os.Symlink(filepath.Join(source, entry.Name()), filepath.Join(folder, entry.Name())))
		}
	}
	config, err := json.Marshal(map[string]any{"model": "qwen2_5_omni.token2wav", "checkpoint": folder, "dtype": "float32"})
	require.NoError(f, err)

	own := readArchive(f, filepath.Join(source, "spk_dict.pt"))
	f.Add(own["data.pkl"])
	f.Add(readArchive(f, "../../csrc/tests/testdata/two_speakers.pt")["data.pkl"])
	f.Add([]byte("\x80\x02}q\x00."))                                     // an empty dict
	f.Add([]byte("\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R."))      // a call of what must not be called
	f.Add([]byte("\x80\x02]q\x00h\x00a."))                               // a list that holds itself
	f.Add([]byte("\x80\x02" + strings.Repeat("(", 1<<16)))               // marks without end
	f.Add([]byte("\x80\x02\x8a\xff"))                                    // a number that is cut off
	f.Add([]byte("\x80\x02X\xff\xff\xff\x7f"))                           // a text of 2 GiB
	f.Add(bytes.Replace(own["data.pkl"], []byte("K"), []byte("J"), -1))  // wrong widths of numbers
	f.Add(bytes.Replace(own["data.pkl"], []byte("Q"), []byte("tQ"), -1)) // wrong persistent ids
	f.Fuzz(func(t *testing.T, pickle []byte) {
		own["data.pkl"] = pickle
		require.NoError(t, os.WriteFile(filepath.Join(folder, "spk_dict.pt"), writeArchive(t, own), 0o600))
		onThread(t, func() error {
			if err := torch.Init(1); err != nil {
				return err
			}
			engine, err := torch.OpenEngine(config)
			if err == nil {
				return engine.Close()
			}
			if coded := (*torch.Error)(nil); !errors.As(err, &coded) || coded.Code != torch.InvalidArgument ||
				!strings.Contains(err.Error(), "spk_dict.pt") {
				t.Errorf("got %v, want an INVALID_ARGUMENT that names the file", err)
			}
			return nil
		})
		checkNothingLives(t)
	})
}

// readArchive returns the records of a file of torch.save by their names without the folder.
func readArchive(tb testing.TB, path string) map[string][]byte {
	tb.Helper()
	archive, err := zip.OpenReader(path)
	require.NoError(tb, err)
	defer archive.Close()
	records := map[string][]byte{}
	for _, file := range archive.File {
		record, err := file.Open()
		require.NoError(tb, err)
		data, err := io.ReadAll(record)
		require.NoError(tb, err)
		_, name, _ := strings.Cut(file.Name, "/")
		records[name] = data
	}
	return records
}

// writeArchive makes a file of torch.save of records.
func writeArchive(tb testing.TB, records map[string][]byte) []byte {
	tb.Helper()
	var out bytes.Buffer
	archive := zip.NewWriter(&out)
	for name, data := range records {
		record, err := archive.CreateHeader(&zip.FileHeader{Name: "archive/" + name, Method: zip.Store})
		require.NoError(tb, err)
		_, err = record.Write(data)
		require.NoError(tb, err)
	}
	require.NoError(tb, archive.Close())
	return out.Bytes()
}
