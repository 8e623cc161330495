package trace

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// Phases of events, the values of ph.
const (
	Complete  = "X" // a slice with a duration
	Instant   = "i"
	Metadata  = "M" // names a process or a thread
	Counter   = "C" // a number over time
	FlowStart = "s"
	FlowStep  = "t"
	FlowEnd   = "f"
)

// Event is one element of traceEvents.
type Event struct {
	Phase    string
	Category string
	Name     string
	Process  ID
	Thread   ID
	// Time is in nanoseconds from the trace's base.
	Time int64
	// Duration is in nanoseconds; meaningful if Phase is Complete.
	Duration int64
	// Flow is the id that the events of one flow or one asynchronous slice share; HasFlow says that there is one.
	Flow    ID
	HasFlow bool
	// Binding is the member bp, Scope the member s; empty if they are missing.
	Binding string
	Scope   string
	// Args is a JSON object, nil if there is none. What a Reader has filled in is valid until its next event.
	Args jsontext.Value
	// Other are further members as JSON text, `"k":v,...` without braces; valid as long as Args.
	Other []byte
}

// End is the time at which a complete event ends.
func (e *Event) End() int64 { return e.Time + e.Duration }

// ID is a number or a text: both are allowed for processes, threads and flows.
type ID struct {
	Number int64
	Text   string
	IsText bool
}

// Number is a numeric ID.
func Number(n int64) ID { return ID{Number: n} }

// String returns the number or the text.
func (id ID) String() string {
	if id.IsText {
		return id.Text
	}
	return strconv.FormatInt(id.Number, 10)
}

// append adds the JSON form.
func (id ID) append(out []byte) []byte {
	if id.IsText {
		return AppendText(out, id.Text)
	}
	return strconv.AppendInt(out, id.Number, 10)
}

// parseID reads a number or a string. Numbers that are no integers stay text.
func parseID(raw []byte, cache *texts) ID {
	if n, err := strconv.ParseInt(string(raw), 10, 64); err == nil {
		return ID{Number: n}
	}
	if len(raw) > 0 && raw[0] != '"' {
		return ID{Text: cache.keep(raw), IsText: true}
	}
	return ID{Text: cache.text(raw), IsText: true}
}

// AppendText appends text as a JSON string of raw UTF-8: Perfetto rejects files with escaped surrogates. Bytes that are
// no UTF-8 are replaced.
func AppendText[T ~string | ~[]byte](out []byte, text T) []byte {
	out, err := jsontext.AppendQuote(out, text)
	_ = err // it says that bytes were replaced, which is what is wanted
	return out
}

// Clean returns a JSON value in which strings are raw UTF-8, the value itself if they are already.
func Clean(value jsontext.Value) (jsontext.Value, error) {
	if !bytes.Contains(value, []byte(`\u`)) && utf8.Valid(value) {
		return value, nil
	}
	clean := value.Clone()
	if err := clean.Format(jsontext.AllowInvalidUTF8(true), jsontext.AllowDuplicateNames(true), jsontext.PreserveRawStrings(false)); err != nil {
		return nil, fmt.Errorf("JSON value %.60q: %w", value, err)
	}
	return jsontext.Value(bytes.ToValidUTF8(clean, []byte("\uFFFD"))), nil
}

// appendMicroseconds appends nanoseconds as microseconds with three decimals.
func appendMicroseconds(out []byte, ns int64) []byte {
	if ns < 0 {
		out, ns = append(out, '-'), -ns
	}
	out = strconv.AppendInt(out, ns/1000, 10)
	rest := ns % 1000
	return append(out, '.', byte('0'+rest/100), byte('0'+rest/10%10), byte('0'+rest%10))
}

// parseMicroseconds returns nanoseconds. Digits below a nanosecond are cut.
func parseMicroseconds(raw []byte) (int64, error) {
	text := strings.Trim(string(raw), `"`) // some writers quote numbers
	whole, decimals, _ := strings.Cut(text, ".")
	if strings.ContainsAny(text, "eE") {
		f, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return 0, err
		}
		return int64(f * 1000), nil
	}
	us, err := strconv.ParseInt(whole, 10, 64)
	if err != nil {
		return 0, err
	}
	if len(decimals) > 3 {
		decimals = decimals[:3]
	}
	var ns int64
	if decimals != "" {
		if ns, err = strconv.ParseInt(decimals+"000"[len(decimals):], 10, 64); err != nil {
			return 0, err
		}
	}
	if strings.HasPrefix(whole, "-") {
		ns = -ns
	}
	return us*1000 + ns, nil
}
