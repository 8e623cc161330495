package media_test

import (
	"bytes"
	"context"
	"math"
	"os/exec"
	"strings"
	"testing"

	"github.com/go-audio/wav"
	"github.com/stretchr/testify/require"

	"github.com/omni-run/omni/pipeline/media"
)

const rate = 24000

// tone is a second of 440 Hz.
func tone() []float32 {
	samples := make([]float32, rate)
	for i := range samples {
		samples[i] = float32(0.5 * math.Sin(2*math.Pi*440*float64(i)/rate))
	}
	return samples
}

// encode gives the samples to an encoder in ten pieces.
func encode(t *testing.T, e media.Encoding) []byte {
	t.Helper()
	encoder, err := media.NewEncoder(t.Context(), e)
	require.NoError(t, err)
	var out []byte
	for samples := tone(); len(samples) > 0; samples = samples[rate/10:] {
		data, err := encoder.Encode(samples[:rate/10])
		require.NoError(t, err)
		out = append(out, data...)
	}
	data, err := encoder.Close()
	require.NoError(t, err)
	return append(out, data...)
}

func TestWAVHasASizeIfItIsKnown(t *testing.T) {
	data := encode(t, media.Encoding{Format: media.WAV, SampleRate: rate, Samples: rate})
	decoder := wav.NewDecoder(bytes.NewReader(data))
	buffer, err := decoder.FullPCMBuffer()
	require.NoError(t, err)
	require.Len(t, buffer.Data, rate)
	require.Equal(t, rate, int(decoder.SampleRate))
	require.Len(t, data, 44+2*rate)

	stream := encode(t, media.Encoding{Format: media.WAV, SampleRate: rate})
	require.Equal(t, "\xff\xff\xff\xff", string(stream[40:44]))
	require.Equal(t, data[44:], stream[44:])
	require.Equal(t, data[44:], encode(t, media.Encoding{Format: media.PCM, SampleRate: rate}))

	none, err := media.NewEncoder(t.Context(), media.Encoding{Format: media.WAV, SampleRate: rate})
	require.NoError(t, err)
	header, err := none.Close()
	require.NoError(t, err)
	require.Len(t, header, 44, "a WAV of no samples has a header")
}

// ffmpeg itself says what the formats are and how long the audio is.
func TestFormatsAreWhatTheySay(t *testing.T) {
	if _, err := exec.LookPath("ffmpeg"); err != nil {
		t.Skip("ffmpeg is not installed")
	}
	for _, test := range []struct {
		format  media.Format
		speed   float64
		codec   string
		seconds float64
	}{
		{media.FLAC, 1, "flac", 1},
		{media.MP3, 1, "mp3", 1},
		{media.Opus, 1, "opus", 1},
		{media.AAC, 1, "aac", 1},
		{media.WAV, 2, "pcm_s16le", 0.5},
		{media.MP3, 0.25, "mp3", 4},
		{media.FLAC, 4, "flac", 0.25},
	} {
		t.Run(string(test.format), func(t *testing.T) {
			data := encode(t, media.Encoding{Format: test.format, SampleRate: rate, Speed: test.speed})
			probe := exec.CommandContext(t.Context(), "ffprobe", "-v", "error", "-show_entries", "stream=codec_name", "-of", "csv=p=0", "-")
			probe.Stdin = bytes.NewReader(data)
			codec, err := probe.CombinedOutput()
			require.NoError(t, err, string(codec))
			require.Equal(t, test.codec, strings.TrimSpace(string(codec)))
			decode := exec.CommandContext(t.Context(), "ffmpeg", "-v", "error", "-i", "-", "-ar", "24000", "-f", "s16le", "-")
			decode.Stdin = bytes.NewReader(data)
			pcm, err := decode.Output()
			require.NoError(t, err)
			require.InDelta(t, test.seconds, float64(len(pcm))/2/rate, 0.15)
		})
	}
}

func TestEncodingsThatCannotBe(t *testing.T) {
	for _, e := range []media.Encoding{
		{Format: "ogg", SampleRate: rate},
		{Format: media.WAV},
		{Format: media.WAV, SampleRate: rate, Speed: 5},
		{Format: media.WAV, SampleRate: rate, Speed: math.NaN()},
	} {
		_, err := media.NewEncoder(t.Context(), e)
		require.Error(t, err, "%+v", e)
	}
	encoder, err := media.NewEncoder(t.Context(), media.Encoding{Format: media.PCM, SampleRate: rate})
	require.NoError(t, err)
	_, err = encoder.Encode([]float32{float32(math.NaN())})
	require.ErrorContains(t, err, "not a number")
}

func TestWithoutFFmpeg(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	for _, e := range []media.Encoding{{Format: media.MP3, SampleRate: rate}, {Format: media.WAV, SampleRate: rate, Speed: 2}} {
		_, err := media.NewEncoder(t.Context(), e)
		require.ErrorIs(t, err, media.ErrNoEncoder)
	}
	require.NoError(t, media.CanEncode(media.Encoding{Format: media.WAV, SampleRate: rate, Speed: 1}))
}

func TestTheEndOfTheContextEndsTheProgram(t *testing.T) {
	if _, err := exec.LookPath("ffmpeg"); err != nil {
		t.Skip("ffmpeg is not installed")
	}
	ctx, cancel := context.WithCancel(t.Context())
	encoder, err := media.NewEncoder(ctx, media.Encoding{Format: media.FLAC, SampleRate: rate})
	require.NoError(t, err)
	cancel()
	_, err = encoder.Close()
	require.Error(t, err)
}
