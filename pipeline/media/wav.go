package media

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"

	"github.com/go-audio/audio"
	"github.com/go-audio/wav"
)

const (
	bitDepth  = 16
	pcmFormat = 1 // WAVE_FORMAT_PCM
)

// WAVWriter writes a mono PCM16 WAV file in pieces. The sizes in the header are right only after Close.
//
// A sample is a float whose full scale is -1 to 1. It is taken to 32 bits, rounded half to even and clipped there,
// and its upper 16 bits are written: the rule of libsndfile, with which the reference writes its files, so that
// equal waveforms give equal bytes.
type WAVWriter struct {
	encoder *wav.Encoder
	buffer  audio.IntBuffer
	samples int
}

// NewWAVWriter returns a writer of samples at sampleRate per second. It seeks in w to complete the header, and
// does not close it.
func NewWAVWriter(w io.WriteSeeker, sampleRate int) (*WAVWriter, error) {
	if sampleRate <= 0 {
		return nil, fmt.Errorf("write WAV: sample rate %d, want more than 0", sampleRate)
	}
	return &WAVWriter{
		encoder: wav.NewEncoder(w, sampleRate, bitDepth, 1, pcmFormat),
		buffer:  audio.IntBuffer{Format: &audio.Format{NumChannels: 1, SampleRate: sampleRate}, SourceBitDepth: bitDepth},
	}, nil
}

// Write appends samples. A sample that is not a number is an error, and nothing of the piece is written.
func (w *WAVWriter) Write(samples []float32) error {
	data := w.buffer.Data[:0]
	for i, sample := range samples {
		if sample != sample { // NaN
			return fmt.Errorf("write WAV: sample %d is not a number", w.samples+i)
		}
		data = append(data, int(pcm16(sample)))
	}
	w.buffer.Data = data
	if err := w.encoder.Write(&w.buffer); err != nil {
		return fmt.Errorf("write WAV: %w", err)
	}
	w.samples += len(samples)
	return nil
}

// Samples is the number of samples written so far.
func (w *WAVWriter) Samples() int { return w.samples }

// Close completes the header. A file without any sample is a valid, empty one.
func (w *WAVWriter) Close() error {
	if w.samples == 0 { // the encoder writes its header with the first sample
		w.buffer.Data = w.buffer.Data[:0]
		if err := w.encoder.Write(&w.buffer); err != nil {
			return fmt.Errorf("write WAV: %w", err)
		}
	}
	if err := w.encoder.Close(); err != nil {
		return fmt.Errorf("write WAV: complete the header: %w", err)
	}
	return nil
}

// pcm16 converts one sample; what lies outside full scale is cut to it.
func pcm16(sample float32) int16 {
	const scale = 1 << 31
	scaled := float64(sample * scale)
	switch {
	case scaled >= scale:
		return math.MaxInt16
	case scaled <= -scale:
		return math.MinInt16
	}
	return int16(int32(math.RoundToEven(scaled)) >> 16)
}

// WriteWAVFile writes a whole waveform to a new file; a file of that name is an error that matches fs.ErrExist and
// is left as it is. After any other error no file is left.
func WriteWAVFile(path string, sampleRate int, samples []float32) (err error) {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return fmt.Errorf("write WAV: %w", err)
	}
	defer func() {
		err = errors.Join(err, file.Close())
		if err != nil {
			err = errors.Join(err, os.Remove(path))
		}
	}()
	writer, err := NewWAVWriter(file, sampleRate)
	if err != nil {
		return err
	}
	if err := writer.Write(samples); err != nil {
		return err
	}
	return writer.Close()
}
