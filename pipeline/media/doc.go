// Package media turns what the models make into files that people and programs open.
//
// Today that is speech: WAVWriter writes mono 16-bit PCM piece by piece, as the vocoder hands it on, and
// WriteWAVFile writes a finished waveform in one call. Reading images, audio and video for prompts belongs here
// too; nothing of it exists yet.
//
// The package knows no model and no process. A writer is used by one goroutine at a time.
package media
