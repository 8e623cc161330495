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
	for _, seed := range pickles(own["data.pkl"], readArchive(f, "../../csrc/tests/testdata/two_speakers.pt")["data.pkl"]) {
		f.Add(seed)
	}
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

// pickles are seeds: whole tables of two writers, changes of them that each break one promise, and small ones.
func pickles(whole ...[]byte) [][]byte {
	seeds := [][]byte{
		[]byte("\x80\x02}q\x00."), // an empty dict
		[]byte("\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x05Ethan\x94}\x94s."), // the opcodes of protocol 4
		[]byte("\x80\x04\x8c\x0ctorch._utils\x8c\x12_rebuild_tensor_v2\x93)R."),             // a name from the stack, called with nothing
		[]byte("\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R."),                            // a call of what must not be called
		[]byte("\x80\x02]q\x00h\x00a."),                                                     // a list that holds itself
		[]byte("\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s."),                                   // a dict that holds itself
		[]byte("\x80\x02" + strings.Repeat("(", 1<<16)),                                     // marks without end
		[]byte("\x80\x02" + strings.Repeat("]", 1<<12) + strings.Repeat("a", 1<<12)),        // depth without end
		[]byte("\x80\x02\x8a\xff"),                                                          // a number that is cut off
		[]byte("\x80\x02X\xff\xff\xff\x7f"),                                                 // a text of 2 GiB
		[]byte("\x80\x02j\xff\xff\xff\xff."),                                                // what nobody remembered
		[]byte("\x80\x02G\x7f\xf0\x00\x00\x00\x00\x00\x00N\x88\x89\x85."),                   // other kinds of values
		[]byte("\x80\xff."), // a protocol of the future
	}
	changes := [][2]string{
		{"K", "J"}, {"Q", "tQ"}, // wrong widths of numbers, wrong references
		{"FloatStorage", "DoubleStorage"}, {"FloatStorage", "HalfStorage"}, {"FloatStorage", "QInt8Storage"}, // elements of another size
		{"storage", "Storage"}, {"cpu", "gpu"}, {"cond", "Cond"}, {"ref_mel", "cond"}, // unknown kinds, missing and doubled keys
		{"X\x01\x00\x00\x000", "X\x0a\x00\x00\x00../version"}, // a storage outside of the folder
		{"\x86", "\x87"}, {"\x89", "N"}, {"u", "s"}, {"OrderedDict", "defaultdict"}, // tuples of another size, other calls
		{"K\x01K\x04", "K\x01\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f"}, // a shape that no memory holds
		{"K\x01K\x04", "K\x01\x8a\x01\xff"},                             // a shape below zero
		{"QK\x00", "QK\xff"},                                            // a tensor that begins beyond its storage
	}
	for _, text := range whole {
		seeds = append(seeds, text, text[:len(text)/4], text[:len(text)/2], text[:len(text)-1], append(bytes.Clone(text), '.'))
		for _, change := range changes {
			seeds = append(seeds, bytes.ReplaceAll(text, []byte(change[0]), []byte(change[1])))
		}
	}
	return seeds
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
