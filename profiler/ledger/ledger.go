// Package ledger holds where the time of requests went: for each request and each stage, when it was dispatched,
// received, computed and handed on, in Unix nanoseconds of the pipeline's clock.
//
// A pipeline keeps these times anyway. When a profile session ends it writes those of the requests that ended during the
// session to one file, a line of JSON each after a line about the session; see [Path]. A dump of the flight recorders has
// those that were running, too. The file lies in a subfolder and
// is no .json: analysers take every such file beside the traces for a trace.
package ledger

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Version is that of the file's form.
const Version = 1

// Session is the first line of a file.
type Session struct {
	Version int    `json:"ledger"`
	Session string `json:"session"`
	// StampNS is the time in the names of the session's traces.
	StampNS int64 `json:"stamp_ns"`
	// StoppedNS is when the session was stopped.
	StoppedNS int64 `json:"stopped_ns"`
	// Running counts the requests that had not ended then and are not in the file.
	Running int `json:"running"`
	// Dropped counts the requests for which there was no room.
	Dropped int64 `json:"dropped"`
	// Trigger says why the flight recorder was dumped; empty for a session that was started.
	Trigger string `json:"trigger,omitempty"`
	// RequestIDs are the only requests that were to be noted; empty for all.
	RequestIDs []string `json:"request_ids,omitempty"`
	// Workers has every worker of the session, those included that left no trace.
	Workers []Worker `json:"workers,omitempty"`
}

// Request is one run of a request through the stages.
type Request struct {
	ID string `json:"id"`
	// ArrivedNS, EnteredNS and DoneNS are when the pipeline got the request, let it into the stages and had its result.
	ArrivedNS int64 `json:"arrived_ns"`
	EnteredNS int64 `json:"entered_ns"`
	DoneNS    int64 `json:"done_ns"`
	// Unfinished says that the request was running: DoneNS is when that was written down, and what stages had not said of
	// it by then is 0.
	Unfinished bool `json:"unfinished,omitempty"`
	// PromptTokens is the length of the prompt.
	PromptTokens int `json:"prompt_tokens"`
	// Stages are those that the request needed, in the order of the data.
	Stages []Stage `json:"stages"`
	// Error says why the run failed; its times may be incomplete.
	Error string `json:"error,omitempty"`
	// Slow says that this is a request that was waited for: it took longer than ring_slo_ms.
	Slow bool `json:"slow,omitempty"`
}

// Stage is a request in one stage. A time is 0 if it never came to that.
type Stage struct {
	ID   int    `json:"id"`
	Name string `json:"name"`
	// From are the ids of the stages that fed this one.
	From []int `json:"from,omitempty"`
	// DispatchedNS is when the pipeline sent the request to the worker, ReceivedNS when the worker had it.
	DispatchedNS int64 `json:"dispatched_ns"`
	ReceivedNS   int64 `json:"received_ns"`
	// FirstInputNS and LastInputNS bound what came from other stages; without such they are ReceivedNS.
	FirstInputNS int64 `json:"first_input_ns"`
	LastInputNS  int64 `json:"last_input_ns"`
	// FirstComputeNS is when its first step began, LastComputeNS when its last one ended.
	FirstComputeNS int64 `json:"first_compute_ns"`
	LastComputeNS  int64 `json:"last_compute_ns"`
	// FirstOutputNS and LastOutputNS are when the worker handed results on.
	FirstOutputNS int64 `json:"first_output_ns"`
	LastOutputNS  int64 `json:"last_output_ns"`
	// DoneNS is when the pipeline had handled the last result.
	DoneNS int64 `json:"done_ns"`

	// QueueNS, WaitNS, ComputeNS are the sums of its time in the worker: could have been stepped and was not, lacked
	// input or room for output, was in steps. TransferNS is the sum of the times that its inputs were under way.
	QueueNS    int64 `json:"queue_ns"`
	WaitNS     int64 `json:"wait_ns"`
	ComputeNS  int64 `json:"compute_ns"`
	TransferNS int64 `json:"transfer_ns"`
	Steps      int64 `json:"steps"`
	Tokens     int64 `json:"tokens"`
	BytesIn    int64 `json:"bytes_in"`
	BytesOut   int64 `json:"bytes_out"`
}

// Folder is the subfolder of ledgers in a profile directory.
const Folder = "ledger"

// Path is where the ledger of a session goes.
func Path(dir, session string, stampNS int64) string {
	return filepath.Join(dir, Folder, fmt.Sprintf("requests_%s.%d.jsonl", session, stampNS))
}

// Write writes a ledger and creates its folder.
func Write(path string, session Session, requests []Request) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("write ledger: %w", err)
		}
	}()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	file, err := os.Create(path + ".tmp")
	if err != nil {
		return err
	}
	session.Version = Version
	buffered := bufio.NewWriter(file)
	lines := json.NewEncoder(buffered)
	err = lines.Encode(session)
	for i := range requests {
		if err == nil {
			err = lines.Encode(&requests[i])
		}
	}
	if err == nil {
		err = buffered.Flush()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return errors.Join(err, os.Remove(path+".tmp"))
	}
	return os.Rename(path+".tmp", path)
}

// Read reads a ledger.
func Read(path string) (Session, []Request, error) {
	file, err := os.Open(path)
	if err != nil {
		return Session{}, nil, fmt.Errorf("read ledger: %w", err)
	}
	defer func() { _ = file.Close() }() // it was only read
	lines := json.NewDecoder(bufio.NewReader(file))
	var session Session
	if err := lines.Decode(&session); err != nil {
		return Session{}, nil, fmt.Errorf("ledger %s: first line: %w", path, err)
	}
	if session.Version != Version {
		return Session{}, nil, fmt.Errorf("ledger %s: version %d, expected %d", path, session.Version, Version)
	}
	var requests []Request
	for {
		var r Request
		err := lines.Decode(&r)
		if errors.Is(err, io.EOF) {
			return session, requests, nil
		}
		if err != nil {
			return Session{}, nil, fmt.Errorf("ledger %s: request %d: %w", path, len(requests)+1, err)
		}
		requests = append(requests, r)
	}
}
