package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"github.com/omni-run/omni/pipeline"
	"github.com/omni-run/omni/pipeline/config"
	"github.com/omni-run/omni/pipeline/prompt"
)

// maxLineBytes bounds one line of a prompts file.
const maxLineBytes = 16 << 20

// promptSources are the places where prompts can come from; exactly one must be used.
type promptSources struct {
	texts []string // --prompt
	file  string   // --prompts-file
	args  []string // what follows the flags: nothing or "-"
	stdin io.Reader
}

// line is one line of a prompts file in its JSON form. A field that is absent keeps the flags' value.
type line struct {
	RequestID  string                  `json:"request_id"`
	Prompt     string                  `json:"prompt"`
	Messages   []prompt.Message        `json:"messages"`
	System     *string                 `json:"system"`
	Modalities []string                `json:"modalities"`
	Speaker    *string                 `json:"speaker"`
	Seed       *int64                  `json:"seed"`
	MaxTokens  *int                    `json:"max_tokens"`
	Sampling   []config.SamplingParams `json:"sampling_params"`
	Speech     config.Speech           `json:"speech"`
}

// readPrompts returns one request per prompt, with the flags' values where the prompt does not say otherwise.
func readPrompts(from promptSources, defaults pipeline.Request) ([]pipeline.Request, error) {
	for _, arg := range from.args {
		if arg != "-" {
			return nil, usagef("unexpected argument %q: flags come first, prompts are given with --prompt TEXT, --prompts-file FILE or -", arg)
		}
	}
	used := 0
	for _, is := range []bool{len(from.texts) > 0, from.file != "", len(from.args) > 0} {
		if is {
			used++
		}
	}
	if used != 1 {
		return nil, usagef("want prompts from one of --prompt TEXT, --prompts-file FILE and - (standard input), got %d of them", used)
	}

	switch {
	case len(from.texts) > 0:
		return promptTexts(from.texts, defaults)
	case from.file == "" || from.file == "-":
		return parsePrompts("standard input", from.stdin, false, defaults)
	}
	file, err := os.Open(from.file)
	if err != nil {
		return nil, usagef("--prompts-file: %w", err)
	}
	defer func() { _ = file.Close() }() // read only: nothing can be lost
	extension := filepath.Ext(from.file)
	return parsePrompts(from.file, file, extension == ".jsonl" || extension == ".ndjson", defaults)
}

func promptTexts(texts []string, defaults pipeline.Request) ([]pipeline.Request, error) {
	var requests []pipeline.Request
	for _, text := range texts {
		if strings.TrimSpace(text) == "" || !utf8.ValidString(text) {
			return nil, usagef("--prompt %q: want UTF-8 text that is not blank", text)
		}
		request := defaults
		request.Prompt = text
		requests = append(requests, request)
	}
	return requests, nil
}

// parsePrompts reads plain lines, or JSON lines if the name says so or the first line is an object with a prompt.
// Blank lines are skipped.
func parsePrompts(name string, in io.Reader, isJSON bool, defaults pipeline.Request) ([]pipeline.Request, error) {
	scanner := bufio.NewScanner(in)
	scanner.Buffer(nil, maxLineBytes)
	var requests []pipeline.Request
	var faults []error
	seen := map[string]int{} // request id to line
	for number := 1; scanner.Scan(); number++ {
		text := scanner.Bytes()
		if number == 1 {
			text = bytes.TrimPrefix(text, []byte("\ufeff"))
		}
		if len(bytes.TrimSpace(text)) == 0 {
			continue
		}
		if len(requests) == 0 && len(faults) == 0 {
			isJSON = isJSON || looksLikeRequest(text)
		}
		request, err := parseLine(text, isJSON, defaults)
		if earlier := seen[request.ID]; err == nil && request.ID != "" && earlier > 0 {
			err = fmt.Errorf("request_id %q is that of line %d too", request.ID, earlier)
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("%s line %d: %w", name, number, err))
			continue
		}
		seen[request.ID] = number
		requests = append(requests, request)
	}
	switch err := scanner.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return nil, usagef("%s: a line is longer than %d MiB", name, maxLineBytes>>20)
	case err != nil:
		return nil, usagef("%s: %w", name, err)
	case len(faults) > 0:
		return nil, &usageError{errors.Join(faults...)}
	case len(requests) == 0:
		return nil, usagef("%s: there is no prompt in it", name)
	}
	return requests, nil
}

func looksLikeRequest(text []byte) bool {
	var object struct{ Prompt, Messages json.RawMessage }
	return json.Unmarshal(text, &object) == nil && (object.Prompt != nil || object.Messages != nil)
}

func parseLine(text []byte, isJSON bool, defaults pipeline.Request) (pipeline.Request, error) {
	request := defaults
	if !utf8.Valid(text) {
		return request, errors.New("not UTF-8")
	}
	if !isJSON {
		request.Prompt = string(text)
		return request, nil
	}
	var l line
	if err := decodeStrictly(text, &l); err != nil {
		return request, fmt.Errorf("want one JSON object with a prompt: %w", err)
	}
	return l.over(request)
}

// over lays the line's fields over a request.
func (l line) over(request pipeline.Request) (pipeline.Request, error) {
	if (strings.TrimSpace(l.Prompt) == "") == (len(l.Messages) == 0) {
		return request, errors.New("want either prompt or messages")
	}
	request.ID, request.Prompt, request.Messages = l.RequestID, l.Prompt, l.Messages
	if l.System != nil {
		request.System = *l.System
	}
	if l.Speaker != nil {
		request.Speaker = *l.Speaker
	}
	if l.Modalities != nil {
		if err := checkModalities(l.Modalities); err != nil {
			return request, err
		}
		request.Modalities = l.Modalities
	}
	if l.Seed != nil {
		if *l.Seed < 0 {
			return request, fmt.Errorf("seed is %d, want 0 or more", *l.Seed)
		}
		request.Seed = l.Seed
	}
	if l.MaxTokens != nil {
		if *l.MaxTokens < 1 {
			return request, fmt.Errorf("max_tokens is %d, want 1 or more", *l.MaxTokens)
		}
		request.MaxTokens = *l.MaxTokens
	}
	if l.Sampling != nil {
		if err := checkSampling(l.Sampling); err != nil {
			return request, named("sampling_params", err)
		}
		request.Sampling = l.Sampling
	}
	request.Speech = request.Speech.Merge(l.Speech)
	return request, named("speech", l.Speech.Validate())
}
