// Package media turns what the models make into files that people and programs open.
//
// Today that is speech: WAVWriter writes mono 16-bit PCM piece by piece, as the vocoder hands it on, and
// WriteWAVFile writes a finished waveform in one call; Encoder makes bytes of any format for a stream. WAV and PCM it makes
// itself; FLAC, MP3, Opus, AAC and other speeds are made by the ffmpeg program, which must be installed for them: for two of
// the four formats there is no encoder in Go, and one way for all is easier to trust. Reading images, audio and video for prompts belongs here
// too; nothing of it exists yet.
//
// The package knows no model and no process. A writer is used by one goroutine at a time.
package media
