package media

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
)

// ErrNoEncoder says that a format needs a program that is not installed.
var ErrNoEncoder = errors.New("this format needs ffmpeg, which is not on the PATH of the server: install it (on Debian: apt-get install ffmpeg), " +
	"or ask for wav or pcm at speed 1, which do not need it")

// Format is how speech is encoded.
type Format string

// The formats.
const (
	WAV  Format = "wav"  // PCM in a RIFF file
	PCM  Format = "pcm"  // 16 bits, little endian, no header
	FLAC Format = "flac" // lossless
	MP3  Format = "mp3"
	Opus Format = "opus" // in Ogg, 48 kHz
	AAC  Format = "aac"  // in ADTS
)

// Formats lists all formats.
var Formats = []Format{WAV, PCM, FLAC, MP3, Opus, AAC}

// mediaTypes has the media type of each format.
var mediaTypes = map[Format]string{
	WAV: "audio/wav", PCM: "audio/pcm", FLAC: "audio/flac", MP3: "audio/mpeg", Opus: "audio/ogg", AAC: "audio/aac",
}

// MediaType is the format's media type: audio/wav.
func (f Format) MediaType() string { return mediaTypes[f] }

// muxers has what ffmpeg is told of each format. PCM is that of a stream that this package puts a header before.
var muxers = map[Format][]string{
	WAV:  {"-f", "s16le"},
	PCM:  {"-f", "s16le"},
	FLAC: {"-c:a", "flac", "-f", "flac"},
	MP3:  {"-c:a", "libmp3lame", "-b:a", "128k", "-f", "mp3"},
	Opus: {"-c:a", "libopus", "-b:a", "48k", "-f", "ogg", "-page_duration", "200000"},
	AAC:  {"-c:a", "aac", "-b:a", "128k", "-f", "adts"},
}

// Encoding says what to make of samples.
type Encoding struct {
	Format     Format
	SampleRate int
	// Speed plays the speech so many times as fast at the same pitch; 0 is 1.
	Speed float64
	// Samples is how many will come if that is known, for the header of a WAV; 0 leaves its sizes open, as in a stream.
	Samples int
}

// Validate reports all faults, joined.
func (e Encoding) Validate() error {
	var faults []error
	if !slices.Contains(Formats, e.Format) {
		faults = append(faults, fmt.Errorf("format is %q, want one of %q", e.Format, Formats))
	}
	if e.SampleRate <= 0 {
		faults = append(faults, fmt.Errorf("sample rate is %d, want more than 0", e.SampleRate))
	}
	if e.Speed != 0 && !(e.Speed >= 0.25 && e.Speed <= 4) {
		faults = append(faults, fmt.Errorf("speed is %v, want 0.25 to 4", e.Speed))
	}
	return errors.Join(faults...)
}

// external reports whether the encoding needs ffmpeg.
func (e Encoding) external() bool {
	return e.Format != WAV && e.Format != PCM || e.Speed != 0 && e.Speed != 1
}

// CanEncode returns ErrNoEncoder if an encoding needs a program that is not there.
func CanEncode(e Encoding) error {
	if !e.external() {
		return nil
	}
	if _, err := exec.LookPath("ffmpeg"); err != nil {
		return ErrNoEncoder
	}
	return nil
}

// Encoder turns samples into bytes of a format, piece by piece. Close must be called.
type Encoder struct {
	encoding Encoding
	begun    bool
	program  *program // nil if this package encodes itself
}

// NewEncoder returns an encoder. The end of ctx ends the program that encodes, if there is one.
func NewEncoder(ctx context.Context, e Encoding) (*Encoder, error) {
	if err := e.Validate(); err != nil {
		return nil, fmt.Errorf("encode audio: %w", err)
	}
	if err := CanEncode(e); err != nil {
		return nil, fmt.Errorf("encode audio as %s: %w", e.Format, err)
	}
	encoder := &Encoder{encoding: e}
	if !e.external() {
		return encoder, nil
	}
	rate := strconv.Itoa(e.SampleRate)
	arguments := []string{
		"-hide_banner", "-loglevel", "error", "-probesize", "32", "-analyzeduration", "0",
		"-f", "s16le", "-ar", rate, "-ac", "1", "-i", "pipe:0", "-flush_packets", "1",
	}
	if filter := tempo(e.Speed); filter != "" {
		arguments = append(arguments, "-filter:a", filter)
	}
	arguments = append(append(arguments, muxers[e.Format]...), "pipe:1")
	program, err := startProgram(ctx, "ffmpeg", arguments...)
	if err != nil {
		return nil, fmt.Errorf("encode audio as %s: %w", e.Format, err)
	}
	encoder.program = program
	return encoder, nil
}

// tempo is the filter for a speed, empty for 1. One link of its chain takes 0.5 to 2.
func tempo(speed float64) string {
	if speed == 0 || speed == 1 {
		return ""
	}
	var chain []string
	for ; speed > 2; speed /= 2 {
		chain = append(chain, "atempo=2")
	}
	for ; speed < 0.5; speed /= 0.5 {
		chain = append(chain, "atempo=0.5")
	}
	return strings.Join(append(chain, "atempo="+strconv.FormatFloat(speed, 'f', 6, 64)), ",")
}

// Encode takes samples and returns the bytes that are ready, which may belong to earlier ones.
func (e *Encoder) Encode(samples []float32) ([]byte, error) {
	pcm := make([]byte, 0, 2*len(samples))
	for i, sample := range samples {
		if sample != sample { // NaN
			return nil, fmt.Errorf("encode audio: sample %d of the piece is not a number", i)
		}
		value := pcm16(sample)
		pcm = binary.LittleEndian.AppendUint16(pcm, uint16(value))
	}
	if e.program == nil {
		return e.headed(pcm), nil
	}
	out, err := e.program.write(pcm)
	if err != nil {
		return nil, fmt.Errorf("encode audio as %s: %w", e.encoding.Format, err)
	}
	return e.headed(out), nil
}

// Close ends the audio and returns the bytes that are left. After an error, and when called again, there are none.
func (e *Encoder) Close() ([]byte, error) {
	if e.program == nil {
		return e.headed(nil), nil
	}
	out, err := e.program.close()
	if err != nil {
		return nil, fmt.Errorf("encode audio as %s: %w", e.encoding.Format, err)
	}
	return e.headed(out), nil
}

// headed puts the header before the first piece of a WAV.
func (e *Encoder) headed(data []byte) []byte {
	if e.begun || e.encoding.Format != WAV {
		return data
	}
	e.begun = true
	samples := e.encoding.Samples
	if e.program != nil {
		samples = 0 // the speed changes their number
	}
	return append(wavHeader(e.encoding.SampleRate, samples), data...)
}

// wavHeader is the header of a mono PCM16 file. Without a number of samples its sizes are the largest, which readers of streams
// take for "to the end".
func wavHeader(rate, samples int) []byte {
	const headerBytes, frameBytes = 36, bitDepth / 8
	riff, data := ^uint32(0), ^uint32(0)
	if samples > 0 {
		data = uint32(samples * frameBytes)
		riff = data + headerBytes
	}
	h := append(binary.LittleEndian.AppendUint32([]byte("RIFF"), riff), "WAVEfmt "...)
	h = binary.LittleEndian.AppendUint32(h, 16)
	h = binary.LittleEndian.AppendUint16(h, pcmFormat)
	h = binary.LittleEndian.AppendUint16(h, 1)
	h = binary.LittleEndian.AppendUint32(h, uint32(rate))
	h = binary.LittleEndian.AppendUint32(h, uint32(rate*frameBytes))
	h = binary.LittleEndian.AppendUint16(h, frameBytes)
	h = binary.LittleEndian.AppendUint16(h, bitDepth)
	return binary.LittleEndian.AppendUint32(append(h, "data"...), data)
}
