package torch

import "fmt"

// Code classifies an error. Numbers and names are those of csrc/omni.h.
type Code int

// The codes that a call can fail with.
const (
	InvalidArgument    Code = 1 // the caller's input is wrong
	NotFound           Code = 2 // a file or sequence does not exist
	FailedPrecondition Code = 3 // not possible in this state or on this machine
	Unimplemented      Code = 4
	ResourceExhausted  Code = 5 // memory or room for sequences
	Cancelled          Code = 6
	DeviceLost         Code = 7 // the process must be replaced
	WrongThread        Code = 8 // not called on the torch thread
	Internal           Code = 9 // a defect of this program
)

var codeNames = map[Code]string{
	InvalidArgument:    "INVALID_ARGUMENT",
	NotFound:           "NOT_FOUND",
	FailedPrecondition: "FAILED_PRECONDITION",
	Unimplemented:      "UNIMPLEMENTED",
	ResourceExhausted:  "RESOURCE_EXHAUSTED",
	Cancelled:          "CANCELLED",
	DeviceLost:         "DEVICE_LOST",
	WrongThread:        "WRONG_THREAD",
	Internal:           "INTERNAL",
}

// String returns the name that csrc/omni.h gives the code.
func (c Code) String() string {
	if name, ok := codeNames[c]; ok {
		return name
	}
	return fmt.Sprintf("Code(%d)", int(c))
}

// Error is an error of the C++ library, or of this package in its name.
type Error struct {
	Op      string // what was being done: "open engine"
	Code    Code
	Message string // what was wrong, where, and what was expected
}

// Error returns the operation, the message and the code.
func (e *Error) Error() string { return fmt.Sprintf("%s: %s (%s)", e.Op, e.Message, e.Code) }

// errClosed is the error of using a handle after Close.
func errClosed(op string) error {
	return &Error{Op: op, Code: FailedPrecondition, Message: "already closed"}
}
