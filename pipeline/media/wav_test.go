package media_test

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/go-audio/wav"
	"github.com/stretchr/testify/require"

	"github.com/omni-run/omni/pipeline/media"
)

// referenceSamples are the floats of which testdata/make_reference.py made reference.wav.
func referenceSamples(t *testing.T) []float32 {
	t.Helper()
	text, err := os.ReadFile("testdata/samples.json")
	require.NoError(t, err)
	var samples []float32
	require.NoError(t, json.Unmarshal(text, &samples))
	require.Len(t, samples, 229)
	return samples
}

func TestFileEqualsTheReferenceByteForByte(t *testing.T) {
	want, err := os.ReadFile("testdata/reference.wav")
	require.NoError(t, err)
	samples := referenceSamples(t)

	for name, pieces := range map[string]int{"in one piece": len(samples), "sample by sample": 1, "in pieces of 64": 64} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "speech.wav")
			file, err := os.Create(path)
			require.NoError(t, err)
			defer file.Close()
			writer, err := media.NewWAVWriter(file, 24000)
			require.NoError(t, err)
			for piece := range slices.Chunk(samples, pieces) {
				require.NoError(t, writer.Write(piece))
			}
			require.NoError(t, writer.Close())
			require.Equal(t, len(samples), writer.Samples())

			got, err := os.ReadFile(path)
			require.NoError(t, err)
			require.Equal(t, want, got)
		})
	}
}

func TestWhatLiesOutsideFullScaleIsCutToIt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "loud.wav")
	require.NoError(t, media.WriteWAVFile(path, 24000, []float32{1, -1, 1.0000001, -1.0000001, 3, float32(math.Inf(-1)), 0}))
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	const most, least = "\xff\x7f", "\x00\x80"
	require.Equal(t, most+least+most+least+most+least+"\x00\x00", string(text[len(text)-14:]))
}

func TestASampleThatIsNotANumberIsAnErrorThatNamesIt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "broken.wav")
	err := media.WriteWAVFile(path, 24000, []float32{0, 0, float32(math.NaN())})
	require.EqualError(t, err, "write WAV: sample 2 is not a number")
	_, err = os.Stat(path)
	require.ErrorIs(t, err, fs.ErrNotExist, "a failed write leaves no file")
}

func TestWriteWAVFileReadsBack(t *testing.T) {
	tests := []struct {
		name    string
		rate    int
		samples []float32
		want    []int
	}{
		{"speech", 24000, []float32{0, 0.25, -0.25, 1, -1}, []int{0, 8192, -8192, 32767, -32768}},
		{"another rate", 16000, []float32{0.5}, []int{16384}},
		{"no samples", 24000, nil, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "a.wav")
			require.NoError(t, media.WriteWAVFile(path, test.rate, test.samples))
			text, err := os.ReadFile(path)
			require.NoError(t, err)
			require.Len(t, text, 44+2*len(test.samples))
			decoder := wav.NewDecoder(bytes.NewReader(text))
			decoder.ReadInfo()
			require.NoError(t, decoder.Err())
			require.EqualValues(t, test.rate, decoder.SampleRate)
			require.EqualValues(t, 1, decoder.NumChans)
			require.EqualValues(t, 16, decoder.BitDepth)
			if test.want == nil {
				return
			}
			buffer, err := decoder.FullPCMBuffer()
			require.NoError(t, err)
			require.Equal(t, test.want, buffer.Data)
		})
	}
}

func TestWriteWAVFileRefuses(t *testing.T) {
	folder := t.TempDir()
	existing := filepath.Join(folder, "there.wav")
	require.NoError(t, os.WriteFile(existing, []byte("mine"), 0o600))
	err := media.WriteWAVFile(existing, 24000, []float32{0})
	require.ErrorIs(t, err, fs.ErrExist)
	text, err := os.ReadFile(existing)
	require.NoError(t, err)
	require.Equal(t, "mine", string(text), "the file is left as it was")

	require.ErrorIs(t, media.WriteWAVFile(filepath.Join(folder, "no", "a.wav"), 24000, nil), fs.ErrNotExist)
	require.ErrorContains(t, media.WriteWAVFile(filepath.Join(folder, "zero.wav"), 0, nil), "sample rate 0")
}
