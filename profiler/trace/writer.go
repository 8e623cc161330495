package trace

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/klauspost/compress/gzip"
)

// Writer writes one trace. It is for one goroutine. Until Commit the file has another name.
type Writer struct {
	path   string
	temp   string
	file   *os.File
	zip    *gzip.Writer // nil for plain text
	out    *bufio.Writer
	line   []byte
	events int64
	begun  bool // the list of events has been opened
}

// Create creates a trace file, compressed if its name ends in .gz, and the folder that it is in. Until Commit it has the
// suffix .tmp.
func Create(path string) (*Writer, error) { return CreateAs(path, path+".tmp") }

// CreateAs is Create with another name until Commit, in the same folder.
func CreateAs(path, temp string) (*Writer, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("create trace: %w", err)
	}
	file, err := os.Create(temp)
	if err != nil {
		return nil, fmt.Errorf("create trace: %w", err)
	}
	w := &Writer{path: path, temp: temp, file: file}
	var under io.Writer = file
	if strings.HasSuffix(path, ".gz") {
		// One member: Perfetto and chrome://tracing read no further than the first.
		if w.zip, err = gzip.NewWriterLevel(file, gzip.BestSpeed); err != nil {
			return nil, errors.Join(err, file.Close())
		}
		under = w.zip
	}
	w.out = bufio.NewWriterSize(under, 1<<18)
	_, err = w.out.WriteString("{\n")
	return w, err
}

// Member writes a member beside the events; those before the first event stand in front of them.
func (w *Writer) Member(name string, value jsontext.Value) error {
	w.line = w.line[:0]
	if w.begun {
		w.line = append(w.line, "\n],\n"...)
		w.begun = false
	}
	w.line = AppendText(w.line, name)
	w.line = append(w.line, ": "...)
	w.line = append(append(w.line, value...), ",\n"...)
	_, err := w.out.Write(w.line)
	return err
}

// Write writes an event.
func (w *Writer) Write(e *Event) error {
	args, err := Clean(e.Args)
	if err != nil {
		return err
	}
	line := w.line[:0]
	if w.begun {
		line = append(line, ",\n"...)
	} else {
		line = append(line, `"traceEvents": [`+"\n"...)
		w.begun = true
	}
	line = AppendText(append(line, `{"ph":`...), e.Phase)
	if e.Category != "" {
		line = AppendText(append(line, `,"cat":`...), e.Category)
	}
	line = AppendText(append(line, `,"name":`...), e.Name)
	line = e.Process.append(append(line, `,"pid":`...))
	line = e.Thread.append(append(line, `,"tid":`...))
	line = appendMicroseconds(append(line, `,"ts":`...), e.Time)
	if e.Phase == Complete {
		line = appendMicroseconds(append(line, `,"dur":`...), e.Duration)
	}
	if e.HasFlow {
		line = e.Flow.append(append(line, `,"id":`...))
	}
	if e.Binding != "" {
		line = AppendText(append(line, `,"bp":`...), e.Binding)
	}
	if e.Scope != "" {
		line = AppendText(append(line, `,"s":`...), e.Scope)
	}
	if len(e.Other) > 0 {
		line = append(append(line, ','), e.Other...)
	}
	if len(args) > 0 {
		line = append(append(line, `,"args":`...), args...)
	}
	w.line = append(line, '}')
	w.events++
	_, err = w.out.Write(w.line)
	return err
}

// Events is the number of events written.
func (w *Writer) Events() int64 { return w.events }

// Commit ends the trace and gives the file its name. It must have an event.
func (w *Writer) Commit() error {
	tail := "\"traceName\": "
	if w.begun {
		tail = "\n],\n" + tail
	}
	_, err := w.out.Write(append(AppendText([]byte(tail), w.path), "\n}\n"...))
	if err == nil {
		err = w.out.Flush()
	}
	if err == nil && w.zip != nil {
		err = w.zip.Close()
	}
	if err = errors.Join(err, w.file.Close()); err == nil {
		err = os.Rename(w.temp, w.path)
	}
	w.file = nil
	if err != nil {
		return fmt.Errorf("write trace %s: %w", w.path, err)
	}
	return nil
}

// Discard removes the file unless it has been committed.
func (w *Writer) Discard() {
	if w.file == nil {
		return
	}
	_ = w.file.Close() // it is removed
	_ = os.Remove(w.temp)
	w.file = nil
}
