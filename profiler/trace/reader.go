package trace

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/klauspost/compress/gzip"
)

// ErrNoTrace says that a file is well-formed JSON without a list of events.
var ErrNoTrace = errors.New("there is no traceEvents list in it")

// Header holds the members of a trace beside its events, as JSON text by name.
type Header map[string]jsontext.Value

// Reader reads one trace. It is for one goroutine.
type Reader struct {
	path   string
	file   io.Closer // nil if the caller owns the input
	json   *jsontext.Decoder
	header Header
	inside bool // in the list of events
	bare   bool // the file is a list of events without an object around it
	found  bool // the list of events has been read
	events int64
	texts  texts
}

// Open opens a trace file, compressed by gzip or not.
func Open(path string) (*Reader, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open trace: %w", err)
	}
	r, err := NewReader(file, path)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	r.file = file
	return r, nil
}

// NewReader reads a trace from in; name is for error texts.
func NewReader(in io.Reader, name string) (*Reader, error) {
	buffered := bufio.NewReaderSize(in, 1<<16)
	r := &Reader{path: name, header: Header{}}
	var text io.Reader = buffered
	if magic, _ := buffered.Peek(2); len(magic) == 2 && magic[0] == 0x1f && magic[1] == 0x8b {
		unzipped, err := gzip.NewReader(buffered)
		if err != nil {
			return nil, r.fault(err)
		}
		text = unzipped
	}
	// Duplicate names would cost a set per object; strings that are no UTF-8 are repaired, not refused.
	r.json = jsontext.NewDecoder(text, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	first, err := r.json.ReadToken()
	if err != nil {
		return nil, r.fault(err)
	}
	switch first.Kind() {
	case '{':
	case '[':
		r.inside, r.bare = true, true
	default:
		return nil, r.fault(ErrNoTrace)
	}
	return r, nil
}

// Close closes the file.
func (r *Reader) Close() error {
	if r.file == nil {
		return nil
	}
	return r.file.Close()
}

// Header returns the members read so far: before the first event those that stand before the events, and all of them
// after the last.
func (r *Reader) Header() Header { return r.header }

// Start reads up to the first event, so that Header says what stands before it.
func (r *Reader) Start() error {
	if r.inside || r.found {
		return nil
	}
	return r.members()
}

// Next reads the next event into e. It returns io.EOF at the end of a complete trace.
func (r *Reader) Next(e *Event) error {
	for !r.inside {
		if r.found && r.bare {
			return io.EOF
		}
		if err := r.members(); err != nil {
			return err
		}
	}
	if r.json.PeekKind() == ']' {
		if _, err := r.json.ReadToken(); err != nil {
			return r.fault(err)
		}
		r.inside, r.found = false, true
		return r.Next(e)
	}
	raw, err := r.json.ReadValue()
	if err != nil {
		return r.fault(err)
	}
	r.events++
	if raw.Kind() != '{' {
		return r.fault(fmt.Errorf("event %d is %.40s, expected an object", r.events, raw))
	}
	if err := r.parse(raw, e); err != nil {
		return r.fault(fmt.Errorf("event %d (%.80s): %w", r.events, raw, err))
	}
	return nil
}

// members reads what stands around the list of events, up to that list or to the end, which is io.EOF.
func (r *Reader) members() error {
	for {
		name, err := r.json.ReadToken()
		if err != nil {
			return r.fault(err)
		}
		if name.Kind() == '}' {
			if !r.found {
				return r.fault(ErrNoTrace)
			}
			return io.EOF
		}
		key := name.String()
		if key == "traceEvents" && r.json.PeekKind() == '[' && !r.found {
			_, err := r.json.ReadToken()
			if err != nil {
				return r.fault(err)
			}
			r.inside = true
			return nil
		}
		value, err := r.json.ReadValue()
		if err != nil {
			return r.fault(err)
		}
		r.header[key] = value.Clone()
	}
}

// parse takes an event apart.
func (r *Reader) parse(raw jsontext.Value, e *Event) error {
	*e = Event{Other: e.Other[:0]}
	var err error
	for key, value := range Members(raw) {
		switch string(key) {
		case `"ph"`:
			e.Phase = r.texts.text(value)
		case `"cat"`:
			e.Category = r.texts.text(value)
		case `"name"`:
			e.Name = r.texts.text(value)
		case `"pid"`:
			e.Process = parseID(value, &r.texts)
		case `"tid"`:
			e.Thread = parseID(value, &r.texts)
		case `"ts"`:
			if e.Time, err = parseMicroseconds(value); err != nil {
				return fmt.Errorf("ts: %w", err)
			}
		case `"dur"`:
			if e.Duration, err = parseMicroseconds(value); err != nil {
				return fmt.Errorf("dur: %w", err)
			}
		case `"id"`:
			e.Flow, e.HasFlow = parseID(value, &r.texts), true
		case `"bp"`:
			e.Binding = r.texts.text(value)
		case `"s"`:
			e.Scope = r.texts.text(value)
		case `"args"`:
			if value.Kind() == '{' {
				e.Args = value
			}
		default:
			if len(e.Other) > 0 {
				e.Other = append(e.Other, ',')
			}
			e.Other = append(append(append(e.Other, key...), ':'), value...)
		}
	}
	return nil
}

// fault says where an error is. The end of the file before the end of the trace is not the end of reading.
func (r *Reader) fault(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = fmt.Errorf("the file ends after %d events, before the trace does: %w", r.events, io.ErrUnexpectedEOF)
	}
	return fmt.Errorf("trace %s: %w", r.path, err)
}

// Base is the time that event times count from, in Unix nanoseconds; 0 if they are absolute.
func (h Header) Base() (int64, error) {
	raw, ok := h["baseTimeNanoseconds"]
	if !ok {
		return 0, nil
	}
	base, err := strconv.ParseInt(string(raw), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("baseTimeNanoseconds is %.40s, expected an integer: %w", raw, err)
	}
	return base, nil
}

// WithoutGPUs reports whether the header says that none took part.
func (h Header) WithoutGPUs() bool {
	var devices []jsontext.Value
	err := json.Unmarshal(h["deviceProperties"], &devices) // absent: it does not say
	return err == nil && len(devices) == 0
}

// Source is what a header says about where its trace comes from.
type Source struct {
	Session string `json:"session"`
	Worker  string `json:"worker"`
	Stage   int    `json:"stage"`
	// Rank is that of distributedInfo, -1 if there is none.
	Rank int `json:"-"`
}

// Source returns what the header says about the recording worker. Traces of others have no stage: it is their rank.
func (h Header) Source() Source {
	var distributed struct {
		Rank *int `json:"rank"`
	}
	s := Source{Rank: -1, Stage: -1}
	_ = json.Unmarshal(h["distributedInfo"], &distributed) // absent or of another shape: there is no rank
	if distributed.Rank != nil {
		s.Rank = *distributed.Rank
	}
	s.Stage = s.Rank
	_ = json.Unmarshal(h["omni"], &s) // likewise
	return s
}
