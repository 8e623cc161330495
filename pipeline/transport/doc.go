// Package transport carries messages between a pipeline and a worker.
//
// [Conn] is what both sides use. [Socket] is the one for processes of one host: an inherited unix stream socket, made
// by [Pair], on which every message is a frame:
//
//	offset  size
//	     0     4  magic "OMN1"
//	     4     4  flags: 1 = the body is a file descriptor
//	     8     4  length of the header
//	    12     8  length of the body
//	    20        header (JSON), then the body unless it is a descriptor
//
// All numbers are little-endian. A body of more than [Inline] bytes travels as a memfd in the control data of the same
// frame, so that the socket's stream holds small frames only and a large tensor is copied once by each side. A sender
// writes control messages before data that waits, so that they are never behind more than one frame. What does not
// follow the format is an error that ends the connection; memory is taken for bytes that have arrived, not for bytes that
// were announced.
//
// Package transporttest holds the suite that every Conn passes.
package transport
