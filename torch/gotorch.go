package torch

import (
	"fmt"
	"math"
	"runtime"
	"unsafe"

	"github.com/wangkuiyi/gotorch"

	"github.com/omni-run/omni/torch/internal/keepthreads"
)

// The only file that uses gotorch: single tensors of the host, and their pickles. Every error of gotorch is a panic,
// which guardGotorch turns into an *Error; nothing of it gets out.

func init() {
	if err := keepthreads.Restore(); err != nil {
		panic(err) // the variable was set a moment ago: it can be unset
	}
}

// gotorchDTypes maps the names of element types to gotorch's numbers, which are libtorch's.
var gotorchDTypes = map[string]int8{
	"float32":  gotorch.Float,
	"float16":  gotorch.Half,
	"bfloat16": gotorch.BFloat16,
	"int64":    gotorch.Long,
	"int32":    gotorch.Int,
	"uint8":    gotorch.Byte,
}

// EncodePickle returns the tensor as Python's torch.save writes a tensor. The name is not part of it.
func EncodePickle(t Tensor) (data []byte, err error) {
	const op = "encode pickle"
	defer guardGotorch(op, &err)
	if err := t.check(); err != nil {
		return nil, &Error{Op: op, Code: InvalidArgument, Message: err.Error()}
	}
	g := toGotorch(t)
	data, err = g.GobEncode()
	runtime.KeepAlive(g.T)
	return data, err
}

// DecodePickle reads one tensor that [EncodePickle] or Python's torch.save wrote. A pickle of anything else is an error.
// For small files that can be trusted: the reader is libtorch's, which reads past the end of a storage that the pickle makes
// larger than it is; gotorch reads at most 2 GiB and never frees its copy of the bytes. The files of a checkpoint are read
// by csrc/runtime/pickle.h, which checks every size.
func DecodePickle(data []byte) (t Tensor, err error) {
	const op = "decode pickle"
	defer guardGotorch(op, &err)
	if len(data) == 0 || len(data) > math.MaxInt32 {
		message := fmt.Sprintf("a pickle of %d bytes, expected 1 to %d", len(data), math.MaxInt32)
		return Tensor{}, &Error{Op: op, Code: InvalidArgument, Message: message}
	}
	var g gotorch.Tensor
	if err := g.GobDecode(data); err != nil {
		return Tensor{}, err
	}
	return fromGotorch(op, g)
}

// toGotorch copies a tensor that Tensor.check has accepted. gotorch takes the address of a first dimension and of a
// first byte, so scalars and empty tensors need some help.
func toGotorch(t Tensor) gotorch.Tensor {
	data := t.Data
	if len(data) == 0 {
		data = make([]byte, 8)
	}
	shape := t.Shape
	if len(shape) == 0 {
		shape = []int64{1}
	}
	g := gotorch.FromBlob(unsafe.Pointer(&data[0]), gotorchDTypes[t.DType], shape)
	if len(t.Shape) > 0 {
		return g
	}
	scalar := g.Squeeze(0)
	runtime.KeepAlive(g.T)
	return scalar
}

// fromGotorch copies a tensor of any device and layout.
func fromGotorch(op string, g gotorch.Tensor) (Tensor, error) {
	defer runtime.KeepAlive(g.T)
	return copyForeign(op, *g.T)
}

// guardGotorch turns a panic of gotorch into an error. To be deferred.
func guardGotorch(op string, err *error) {
	value := recover()
	if value == nil {
		return
	}
	if bug, ok := value.(runtime.Error); ok {
		panic(bug) // a mistake of this file
	}
	*err = &Error{Op: op, Code: InvalidArgument, Message: fmt.Sprint(value)}
}
