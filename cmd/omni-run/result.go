package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/omni-run/omni/pipeline"
	"github.com/omni-run/omni/pipeline/message"
)

// result is what became of one request: the pipeline's response, or as much of it as there is and an error.
type result struct {
	*pipeline.Response
	Error *requestError `json:"error,omitempty"`
}

// requestError is the fault of one request in the JSON output.
type requestError struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	// Stage is the id of the stage at fault, nil if it was none of them.
	Stage *int `json:"stage"`
}

// output is the object that --format json prints.
type output struct {
	Requests []result `json:"requests"`
	// Profile is null without --profile-dir.
	Profile *profileOutput `json:"profile"`
}

// profileOutput names what a profile session wrote.
type profileOutput struct {
	Session string `json:"session"`
	// Trigger says why flight recorders were dumped.
	Trigger  string                    `json:"trigger,omitempty"`
	Files    []pipeline.ProfileFile    `json:"files"`
	Pictures *pipeline.ProfilePictures `json:"pictures,omitempty"`
	Error    string                    `json:"error,omitempty"`
}

// failure is the result of a request that ended with err. response may be nil.
func failure(request pipeline.Request, response *pipeline.Response, err error) result {
	if response == nil {
		response = &pipeline.Response{
			RequestID: request.ID, Prompt: request.Prompt,
			PromptTokenIDs: []int64{}, TokenIDs: []int64{}, Stages: []pipeline.StageReport{},
		}
	}
	fault := &requestError{Code: pipeline.CodeOf(err).String(), Message: err.Error()}
	if errors.Is(err, context.Canceled) || errors.Is(err, errInterrupted) {
		fault = &requestError{Code: message.Cancelled.String(), Message: errInterrupted.Error()}
	}
	var stage *pipeline.StageError
	if errors.As(err, &stage) {
		fault.Stage = &stage.Stage
	}
	return result{Response: response, Error: fault}
}

// printJSON prints one object, without escaping what is safe outside HTML.
func printJSON(w io.Writer, value any) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		return fmt.Errorf("write JSON: %w", err)
	}
	return nil
}

// printText prints the text of one request; several get a line that names the request before each.
func printText(w io.Writer, r result, several bool) error {
	if r.Error != nil {
		return nil
	}
	text := r.Text + "\n"
	if several {
		text = fmt.Sprintf("== %s\n%s", r.RequestID, text)
	}
	if _, err := io.WriteString(w, text); err != nil {
		return fmt.Errorf("write text: %w", err)
	}
	return nil
}
