package message

import (
	"fmt"
	"slices"
)

// Code classifies an error. The numbers are those of csrc/omni.h, the names travel in JSON.
type Code int

// The codes, in the order of omni.h.
const (
	OK Code = iota
	InvalidArgument
	NotFound
	FailedPrecondition
	Unimplemented
	ResourceExhausted
	Cancelled
	DeviceLost
	WrongThread
	Internal
)

// codeNames has the name of each code at its number.
var codeNames = []string{
	"OK", "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "UNIMPLEMENTED", "RESOURCE_EXHAUSTED", "CANCELLED",
	"DEVICE_LOST", "WRONG_THREAD", "INTERNAL",
}

// String returns the name of the code, such as "NOT_FOUND".
func (c Code) String() string {
	if c < 0 || int(c) >= len(codeNames) {
		return fmt.Sprintf("CODE(%d)", int(c))
	}
	return codeNames[c]
}

// MarshalText encodes the code as its name; a number that has none is an error.
func (c Code) MarshalText() ([]byte, error) {
	if c < 0 || int(c) >= len(codeNames) {
		return nil, fmt.Errorf("error code %d is none of 0..%d", int(c), len(codeNames)-1)
	}
	return []byte(codeNames[c]), nil
}

// UnmarshalText decodes a name.
func (c *Code) UnmarshalText(text []byte) error {
	i := slices.Index(codeNames, string(text))
	if i < 0 {
		return fmt.Errorf("unknown error code %q, expected one of %q", text, codeNames)
	}
	*c = Code(i)
	return nil
}

// Error is an error that crosses a process boundary: a code for programs, a message for people.
type Error struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
}

// Error returns the message followed by the code.
func (e *Error) Error() string { return fmt.Sprintf("%s (%s)", e.Message, e.Code) }

// Errorf makes an Error.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}
